//! Checks, counted and printed.

use core::fmt::{self, Write};

/// How it went. The numbers are those that a kernel ends with, and also xtask's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Everything passed.
    Passed = 0x10,
    /// Something failed.
    Failed = 0x11,
    /// The kernel panicked.
    Panicked = 0x12,
    /// The CPU lacks what was asked for.
    Skipped = 0x13,
}

/// How many failed checks of one row are printed; the rest are counted.
const PRINTED_FAILURES: u64 = 8;

/// What was checked so far, and where it is printed.
pub struct Report<'w> {
    out: &'w mut dyn Write,
    passed: u64,
    failed: u64,
    skipped: u64,
    in_row: (u64, u64),
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("passed", &self.passed)
            .field("failed", &self.failed)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

impl<'w> Report<'w> {
    /// Prints to `out`.
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self {
            out,
            passed: 0,
            failed: 0,
            skipped: 0,
            in_row: (0, 0),
        }
    }

    /// Prints a line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        // A line that cannot be printed is missed by whoever reads the last one.
        let _ = self
            .out
            .write_fmt(line)
            .and_then(|()| self.out.write_char('\n'));
    }

    /// Counts a check, and prints it where it failed.
    pub fn check<E: fmt::Display>(&mut self, what: &str, outcome: Result<(), E>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                self.in_row.0 += 1;
            }
            Err(why) => {
                self.failed += 1;
                self.in_row.1 += 1;
                if self.in_row.1 <= PRINTED_FAILURES {
                    self.line(format_args!("  FAILED: {what}: {why}"));
                }
            }
        }
    }

    /// Counts and prints what cannot be done here, and why.
    pub fn skip(&mut self, what: fmt::Arguments<'_>, why: fmt::Arguments<'_>) {
        self.skipped += 1;
        self.line(format_args!("skipped  {what}: {why}"));
    }

    /// Ends a row: how many checks passed and failed since the last one.
    pub(crate) fn end_row(&mut self) -> (u64, u64) {
        core::mem::take(&mut self.in_row)
    }

    /// How many checks passed.
    pub const fn passed(&self) -> u64 {
        self.passed
    }

    /// How many checks failed.
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// How much could not be checked.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Prints the last line, and says how it went: all well where something was checked and nothing
    /// failed.
    pub fn finish(mut self) -> Verdict {
        let (passed, failed, skipped) = (self.passed, self.failed, self.skipped);
        self.line(format_args!(
            "{passed} passed, {failed} failed, {skipped} skipped"
        ));
        if passed > 0 && failed == 0 {
            Verdict::Passed
        } else {
            Verdict::Failed
        }
    }
}
