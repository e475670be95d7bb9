//! Sources, sinks and exchanges on whose way somebody looks.

use super::Watch;
use mm_core::addr::{Block, Order, VirtAddr};
use mm_core::paging::{Exchange, Groups, Leaf, Run, RunSink, RunSource, Span};

/// A source that is watched.
pub(super) struct WatchedSource<'s, 'w, S> {
    pub(super) source: &'s mut S,
    pub(super) watch: &'s Watch<'w>,
}

impl<S: RunSource> RunSource for WatchedSource<'_, '_, S> {
    type Error = S::Error;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, S::Error> {
        self.watch.look();
        self.source.next_run(at, pages, largest)
    }

    fn next_groups(&mut self, at: VirtAddr, pages: u64) -> Result<Option<Groups>, S::Error> {
        self.watch.look();
        self.source.next_groups(at, pages)
    }

    fn share_tables(&self) -> bool {
        self.source.share_tables()
    }

    fn return_unused(&mut self, run: Run) {
        self.source.return_unused(run);
    }
}

/// A sink that is watched: before each report, which is after the flush.
pub(super) struct WatchedSink<'s, 'w> {
    pub(super) released: &'s mut dyn RunSink,
    pub(super) watch: &'s Watch<'w>,
}

impl RunSink for WatchedSink<'_, '_> {
    fn run(&mut self, run: Run) {
        self.watch.look();
        self.released.run(run);
    }

    fn groups(&mut self, groups: Groups) {
        self.watch.look();
        self.released.groups(groups);
    }
}

/// An exchange that is watched: before each answer, and when what was exchanged is given back, which is
/// after each flush.
// Whatever can be asked of an exchange is passed on, also what has a default body.
pub(super) struct WatchedExchange<'x, 'w> {
    pub(super) exchange: &'x mut dyn Exchange,
    pub(super) watch: &'x Watch<'w>,
}

impl Exchange for WatchedExchange<'_, '_> {
    // It is not known which exchange it is; that one's `span` answers.
    fn has_spans() -> bool {
        true
    }

    fn span(&self, at: VirtAddr) -> Span {
        self.exchange.span(at)
    }

    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        self.exchange.tail_at(at)
    }

    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        self.exchange.should_split(at, leaf)
    }

    fn split(&mut self, block: Block) {
        self.exchange.split(block);
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        self.exchange.acquire_for_copy(run)
    }

    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        self.exchange.join(at, order)
    }

    fn joined(&mut self, at: VirtAddr, old: Run) {
        self.exchange.joined(at, old);
    }

    fn groups(&mut self, at: VirtAddr, old: Run) -> Option<Groups> {
        self.watch.look();
        let groups = self.exchange.groups(at, old);
        self.watch.look();
        groups
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        self.watch.look();
        let new = self.exchange.exchange(at, old);
        self.watch.look();
        new
    }

    fn released(&mut self, run: Run) {
        self.watch.look();
        self.exchange.released(run);
    }
}
