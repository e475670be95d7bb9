//! Where the references of cleared leaves go.

use super::{Groups, Run};

/// Who takes over the references of leaves that a page table has cleared, the counterpart of
/// [`RunSource`](super::RunSource). A closure that takes a [`Run`] is one.
///
/// A page table reports leaves as it finds them: as runs, or as groups where it looks for these. Both stand
/// for the same leaves, and one reference for each of them belongs to the sink from then on.
pub trait RunSink {
    /// Takes the references of the leaves of `run`.
    fn run(&mut self, run: Run);

    /// Takes the references of the leaves of `groups`. By default the [runs](Groups::runs) that they stand
    /// for, one after the other. Worth overriding where something can be done for all groups together.
    fn groups(&mut self, groups: Groups) {
        groups.runs().for_each(|run| self.run(run));
    }
}

impl<T: FnMut(Run) + ?Sized> RunSink for T {
    fn run(&mut self, run: Run) {
        self(run);
    }
}
