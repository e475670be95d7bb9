//! Any bytes are a script of operations on thousands of pages, and every script holds, compared with
//! the oracle.
#![no_main]

use testkit::script::{Width, run_any};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = run_any(Width::Wide, bytes) {
        panic!("{error}");
    }
});
