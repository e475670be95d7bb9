//! Sources, exchanges and ranges of any type.

use core::cell::Cell;
use mm_core::addr::{Block, Order, VirtAddr, VirtRange};
use mm_core::paging::{Exchange, Groups, Leaf, Run, RunSource, Span};

/// A source whose error is kept by who made it.
pub struct AnySource<'s>(pub &'s mut dyn RunSource<Error = ()>);

impl RunSource for AnySource<'_> {
    type Error = ();

    #[inline]
    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, ()> {
        self.0.next_run(at, pages, largest)
    }

    #[inline]
    fn next_groups(&mut self, at: VirtAddr, pages: u64) -> Result<Option<Groups>, ()> {
        self.0.next_groups(at, pages)
    }

    #[inline]
    fn share_tables(&self) -> bool {
        self.0.share_tables()
    }

    #[inline]
    fn return_unused(&mut self, run: Run) {
        self.0.return_unused(run);
    }
}

/// An exchange of any type.
pub struct AnyExchange<'x>(pub &'x mut dyn Exchange);

impl Exchange for AnyExchange<'_> {
    #[inline]
    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        self.0.should_split(at, leaf)
    }

    #[inline]
    fn split(&mut self, block: Block) {
        self.0.split(block);
    }

    // It is not known which exchange it is; that one's `span` answers.
    fn has_spans() -> bool {
        true
    }

    #[inline]
    fn span(&self, at: VirtAddr) -> Span {
        self.0.span(at)
    }

    #[inline]
    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        self.0.tail_at(at)
    }

    #[inline]
    fn acquire_for_copy(&mut self, run: Run) -> bool {
        self.0.acquire_for_copy(run)
    }

    #[inline]
    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        self.0.join(at, order)
    }

    #[inline]
    fn joined(&mut self, at: VirtAddr, old: Run) {
        self.0.joined(at, old);
    }

    #[inline]
    fn groups(&mut self, at: VirtAddr, old: Run) -> Option<Groups> {
        self.0.groups(at, old)
    }

    #[inline]
    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        self.0.exchange(at, old)
    }

    #[inline]
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

    #[inline]
    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, ()> {
        let run = self.source.next_run(at, pages, largest);
        run.map_err(|error| self.error = Some(error))
    }

    #[inline]
    fn next_groups(&mut self, at: VirtAddr, pages: u64) -> Result<Option<Groups>, ()> {
        let groups = self.source.next_groups(at, pages);
        groups.map_err(|error| self.error = Some(error))
    }

    #[inline]
    fn share_tables(&self) -> bool {
        self.source.share_tables()
    }

    #[inline]
    fn return_unused(&mut self, run: Run) {
        self.source.return_unused(run);
    }
}

/// Ranges that can be asked for by number.
pub(super) struct Ranges<I> {
    all: I,
    /// Those from some number on, which was the one behind what was asked for last.
    next: Cell<Option<(usize, I)>>,
}

impl<I: Iterator<Item = VirtRange> + Clone> Ranges<I> {
    pub(super) fn new(all: I) -> Self {
        Self {
            next: Cell::new(Some((0, all.clone()))),
            all,
        }
    }
}

/// See [`Ranges`].
trait Numbered {
    fn get(&self, number: usize) -> Option<VirtRange>;
}

impl<I: Iterator<Item = VirtRange> + Clone> Numbered for Ranges<I> {
    fn get(&self, number: usize) -> Option<VirtRange> {
        let next = self.next.take().filter(|(first, _)| *first <= number);
        let (first, mut ranges) = next.unwrap_or_else(|| (0, self.all.clone()));
        let range = ranges.nth(number - first);
        self.next.set(Some((number + 1, ranges)));
        range
    }
}

/// Ranges in order, from an iterator of any type.
#[derive(Clone)]
pub struct AnyRanges<'r> {
    ranges: &'r dyn Numbered,
    number: usize,
}

impl<'r> AnyRanges<'r> {
    pub(super) fn of<I: Iterator<Item = VirtRange> + Clone>(ranges: &'r Ranges<I>) -> Self {
        Self { ranges, number: 0 }
    }
}

impl Iterator for AnyRanges<'_> {
    type Item = VirtRange;

    #[inline]
    fn next(&mut self) -> Option<VirtRange> {
        let range = self.ranges.get(self.number)?;
        self.number += 1;
        Some(range)
    }
}
