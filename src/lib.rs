//! compline: a content-addressed, deduplicating archive of whole platforms.
//!
//! ```text
//! main > cli > commands > plan > components > archive > store > storage
//!                                                      └> chunker compress delta crypto codec pipeline (bytes in, bytes out)
//!              vocabulary: id units clock error observer settings
//! ```
//! Arrows point down only; `tests/tidy.rs` fails when one doesn't.

pub mod archive;
pub mod clock;
pub mod codec;
pub mod components;
pub mod durable;
pub mod error;
pub mod id;
pub mod mmap;
pub mod observer;
pub mod settings;
pub mod storage;
pub mod store;
pub mod units;
