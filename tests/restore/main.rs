//! Trees come back as they were, whatever is in them and whatever is in the way. One file for each promise.

#[path = "../support/mod.rs"]
mod support;

mod fidelity;
