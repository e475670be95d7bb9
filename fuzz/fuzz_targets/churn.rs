//! Any bytes are the seed of a world, and whatever is done in it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use testkit::churn::run_any;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = run_any(bytes) {
        panic!("{error}");
    }
});
