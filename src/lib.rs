//! compline: a content-addressed, deduplicating archive of whole platforms.
//!
//! ```text
//! main > cli > commands > plan > components > archive > store > storage
//!                                                      └> chunker compress delta reflate crypto codec pipeline (bytes in, bytes out)
//!              vocabulary: id units clock error observer settings
//! ```
//! Arrows point down only; `tests/tidy.rs` fails when one doesn't.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "unit tests make and break files as they like"))]

pub mod allocator;
pub mod archive;
pub mod chunker;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod commands;
pub mod components;
pub mod compress;
pub mod crypto;
pub mod delta;
pub mod durable;
pub mod error;
pub mod id;
pub mod mmap;
pub mod observer;
pub mod pipeline;
pub mod plan;
pub mod reflate;
pub mod settings;
pub mod storage;
pub mod store;
pub mod units;
