//! What every backend has to pass, hosted and inside a kernel.
//!
//! It is for authors of a [`PageTable`](mm_core::paging::PageTable), of an allocator or of a direct
//! map. They implement [`Harness`] and call [`run`]. The battery then does everything that the
//! library promises to do, or not to do, on them:
//!
//! ```text
//!   Harness ──parts──▶ Bench ──▶ checks ──▶ Outcome: passed, failed (with numbers), skipped (why)
//! ```
//!
//! It has no heap, no threads and no panics. A kernel can run it at boot and print its report.
//!
//! The author of an entry format for the engine has [`format`] besides. It needs no harness.
//!
//! - Where they can, checks look at things outside the page table: the independent reader of
//!   translations and the log of broken rules (both from [`Controls`]), the allocator's counts, the
//!   contents of frames. A check that needs a control which the harness does not have is skipped
//!   and says so.
//! - Every check leaves everything as it was. That it did is part of the check.
//! - A check works on a bench with one tail encoding. With the pointer encoding, the tails of each
//!   compound page are different bytes. With the mask encoding, all compound pages of an order can
//!   share a tail frame.
//! - Changes of order run while the allocator refuses, with what is in reserve.
//! - Where the harness says in which frame a CPU reads ([`Controls::read`]), checks have readers, who look at
//!   every flush: they find each page as it was or as it is to be, and nothing after the wait of what went.
//!   They are compared with a plain map, not with the library's look-ups.
//! - What is known to have gone wrong elsewhere has a check each. `checks/mod.rs` lists them.
#![no_std]
#![deny(missing_docs)]

mod bench;
mod checks;
pub mod format;
mod harness;
mod outcome;
mod watch;

pub use checks::{Check, checks};
pub use harness::{AltmapUnderTest, Controls, Harness, Parts, RootChanges, Seen};
pub use outcome::{Cause, Failure, Outcome};

/// Why checks are skipped after one that failed.
const AFTER_A_FAILURE: &str = "a check has failed, and the harness cannot start anew";

/// Runs every check on `harness` and gives each one's name and outcome to `report`. Says whether
/// none failed.
pub fn run<H: Harness>(harness: &mut H, report: &mut dyn FnMut(&'static str, Outcome)) -> bool {
    run_some(harness, &|_| true, report)
}

/// Runs the checks whose names are `wanted` on `harness`, as [`run`] does.
pub fn run_some<H: Harness>(
    harness: &mut H,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut dyn FnMut(&'static str, Outcome),
) -> bool {
    let (mut passed, mut usable) = (true, true);
    for check in checks::<H>() {
        if !wanted(check.name()) {
            continue;
        }
        let outcome = match usable {
            true => run_one(harness, &check),
            false => Outcome::Skipped(AFTER_A_FAILURE),
        };
        report(check.name(), outcome);
        if matches!(outcome, Outcome::Failed(_)) {
            passed = false;
            usable = harness.renew();
        }
    }
    passed
}

/// Runs one check on `harness`.
pub fn run_one<H: Harness>(harness: &mut H, check: &Check<H>) -> Outcome {
    check.run(harness.parts())
}
