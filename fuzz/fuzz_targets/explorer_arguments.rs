//! Any bytes are arguments of the explorer, and none make it misbehave.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = explorer::robustness::check(bytes) {
        panic!("{error}");
    }
});
