//! Any bytes are a script of operations, and every script holds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = hosted::script::run_any(bytes) {
        panic!("{error}");
    }
});
