//! Hearing how far a run is, while it has nothing to print yet.

/// Hears how far a run is.
pub trait Progress {
    /// `what` is being done, after `done` of `all` steps.
    fn step(&self, what: &str, done: usize, all: usize);

    /// Something is about to be printed, or all is done: whatever shows progress is taken away.
    fn hide(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _what: &str, _done: usize, _all: usize) {}

    fn hide(&self) {}
}
