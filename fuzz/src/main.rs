//! One fuzzer for every decoder; `COMPLINE_FUZZ_TARGET` names the one that is meant.

#![no_main]

mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn target() -> fn(&[u8]) {
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("COMPLINE_FUZZ_TARGET").unwrap_or_default();
        let found = targets::ALL.iter().find(|(name, _)| *name == wanted);
        let names: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
        found.unwrap_or_else(|| panic!("COMPLINE_FUZZ_TARGET is `{wanted}`, not one of {}", names.join(" "))).1
    })
}

fuzz_target!(|data: &[u8]| target()(data));

// The default one; named here so that a target that needs its own has a place for it.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
    libfuzzer_sys::fuzzer_mutate(data, size, max_size)
});
