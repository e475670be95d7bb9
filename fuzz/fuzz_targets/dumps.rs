//! Any bytes are a dump of memory, or what was changed in a sound one, and none make the explorer misbehave.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = explorer::dump::robustness::check(bytes) {
        panic!("{error}");
    }
});
