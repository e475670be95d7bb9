//! Sources and exchanges of any type.

use mm_core::addr::{Block, Order, VirtAddr};
use mm_core::paging::{Exchange, Leaf, Run, RunSource, Span};

/// A source whose error is kept by who made it.
pub struct AnySource<'s>(pub &'s mut dyn RunSource<Error = ()>);

impl RunSource for AnySource<'_> {
    type Error = ();

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, ()> {
        self.0.next_run(at, pages, largest)
    }

    fn share_tables(&self) -> bool {
        self.0.share_tables()
    }

    fn return_unused(&mut self, run: Run) {
        self.0.return_unused(run);
    }
}

/// An exchange of any type.
pub struct AnyExchange<'x>(pub &'x mut dyn Exchange);

impl Exchange for AnyExchange<'_> {
    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        self.0.should_split(at, leaf)
    }

    fn split(&mut self, block: Block) {
        self.0.split(block);
    }

    fn span(&self, at: VirtAddr) -> Span {
        self.0.span(at)
    }

    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        self.0.tail_at(at)
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        self.0.acquire_for_copy(run)
    }

    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        self.0.join(at, order)
    }

    fn joined(&mut self, at: VirtAddr, old: Run) {
        self.0.joined(at, old);
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        self.0.exchange(at, old)
    }

    fn released(&mut self, run: Run) {
        self.0.released(run);
    }
}

/// A source that keeps its error, which the page table inside does not know.
pub(super) struct KeepsError<'s, S: RunSource> {
    pub(super) source: &'s mut S,
    pub(super) error: Option<S::Error>,
}

impl<S: RunSource> RunSource for KeepsError<'_, S> {
    type Error = ();

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, ()> {
        let run = self.source.next_run(at, pages, largest);
        run.map_err(|error| self.error = Some(error))
    }

    fn share_tables(&self) -> bool {
        self.source.share_tables()
    }

    fn return_unused(&mut self, run: Run) {
        self.source.return_unused(run);
    }
}
