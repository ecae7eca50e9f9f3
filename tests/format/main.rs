//! The format is what format-spec/ says: every vector decodes to its meaning and encodes back to the same bytes, every
//! invalid one gives its error, and a reader that was written from the specification alone restores what compline wrote.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

mod deltas;
mod invalid;
mod reference_chunker;
mod reference_delta;
mod reference_parity;
mod reference_reader;
mod reference_reflate;
mod reflates;
mod restores;
mod shapes;
mod valid;
mod vectors;
