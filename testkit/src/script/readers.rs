//! Readers, or none: what they find, and references that they keep.

use super::interpreter::Interpreter;
use super::op::{Ending, Frozen, One};
use super::{fold, reorder};
use crate::TestMachine;
use crate::threads::{ThreadCpus, ThreadKernel};
use arch_sim::SimMemory;
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::model::MemoryModel;
use mm_core::paging::Replacement;
use mm_core::readers::{NoReaders, NoReference, OnlineEntry, PageReference, Readers, ReadersOf};
use mm_core::vmemmap::Vmemmap;
use std::ops::Range;

/// A reference that a reader keeps.
pub(super) type Held<'s, E> = PageReference<'s, Page<E>, ThreadKernel<'s>>;

/// What readers of a machine borrow.
pub(super) struct ReaderParts {
    cpus: ThreadCpus,
    root: Vec<OnlineEntry>,
}

impl ReaderParts {
    /// Readers of `memory`, translating by the tables of `machine`. Where there are none, nobody translates.
    pub(super) fn new(kind: BackendKind, machine: &TestMachine, memory: &SimMemory) -> Self {
        let translated = match machine.facts().has_tables {
            true => kind,
            false => BackendKind::X86_64,
        };
        let entries = 0..machine.model().online_entries();
        Self {
            cpus: ThreadCpus::new(translated, memory, machine.root(), Replacement::Direct),
            root: entries.map(|_| OnlineEntry::new()).collect(),
        }
    }

    pub(super) fn kernel(&self) -> ThreadKernel<'_> {
        ThreadKernel::new(&self.cpus)
    }

    pub(super) fn readers<'r>(
        &'r self,
        model: MemoryModel,
        kernel: &'r ThreadKernel<'r>,
    ) -> Result<Readers<'r, ThreadKernel<'r>>, String> {
        Readers::new(model, &self.root, kernel).map_err(|error| error.to_string())
    }
}

/// Readers, or [none](NoReaders), and what is done with them.
pub(super) trait ScriptReaders<'s, E: TailEncoding>: ReadersOf + 's {
    /// Whether there are any.
    const READ: bool;

    /// A vmemmap with these readers.
    ///
    /// # Safety
    ///
    /// The duties of [`Vmemmap::new`] or [`Vmemmap::with_readers`].
    unsafe fn vmemmap<A: FrameAllocator, M: DirectMap>(
        self,
        model: MemoryModel,
        frames: A,
        memory: M,
    ) -> Result<Vmemmap<Page<E>, A, M, Self>, String>;

    /// Compares what readers find in `pages` and next to them with what they should.
    fn check_found(script: &Interpreter<'s, E, Self>, pages: &Range<u64>) -> Result<(), String>;

    /// A reader takes a reference to the page of a frame, and keeps it.
    fn hold(script: &mut Interpreter<'s, E, Self>, one: One) -> Result<(), String>;

    /// Freezes pages, from the one at `at` on. They go offline, or are thawed.
    fn freeze(
        script: &mut Interpreter<'s, E, Self>,
        at: One,
        pages: u64,
        ending: Ending,
    ) -> Result<(), String>;

    /// Freezes the pages that `request` is about, and changes their order, or not.
    fn reorder_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &reorder::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String>;

    /// Freezes the pages that `request` is about, and folds, unfolds or reshapes them, or not.
    fn change_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &fold::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String>;
}

impl<'s, E: TailEncoding> ScriptReaders<'s, E> for NoReaders {
    const READ: bool = false;

    unsafe fn vmemmap<A: FrameAllocator, M: DirectMap>(
        self,
        model: MemoryModel,
        frames: A,
        memory: M,
    ) -> Result<Vmemmap<Page<E>, A, M, Self>, String> {
        // SAFETY: the caller's.
        unsafe { Vmemmap::new(model, frames, memory) }.map_err(|error| error.to_string())
    }

    fn check_found(_: &Interpreter<'s, E, Self>, _: &Range<u64>) -> Result<(), String> {
        Ok(())
    }

    fn hold(_: &mut Interpreter<'s, E, Self>, _: One) -> Result<(), String> {
        Ok(())
    }

    fn freeze(_: &mut Interpreter<'s, E, Self>, _: One, _: u64, _: Ending) -> Result<(), String> {
        Ok(())
    }

    fn reorder_frozen(
        _: &mut Interpreter<'s, E, Self>,
        _: &reorder::Request<'_, 's>,
        _: Frozen,
    ) -> Result<(), String> {
        Ok(())
    }

    fn change_frozen(
        _: &mut Interpreter<'s, E, Self>,
        _: &fold::Request<'_, 's>,
        _: Frozen,
    ) -> Result<(), String> {
        Ok(())
    }
}

impl<'s, E: TailEncoding> ScriptReaders<'s, E> for Readers<'s, ThreadKernel<'s>> {
    const READ: bool = true;

    unsafe fn vmemmap<A: FrameAllocator, M: DirectMap>(
        self,
        _: MemoryModel,
        frames: A,
        memory: M,
    ) -> Result<Vmemmap<Page<E>, A, M, Self>, String> {
        // SAFETY: the caller's.
        unsafe { Vmemmap::with_readers(self, frames, memory) }.map_err(|error| error.to_string())
    }

    fn check_found(script: &Interpreter<'s, E, Self>, pages: &Range<u64>) -> Result<(), String> {
        script.check_found_in(pages)
    }

    fn hold(script: &mut Interpreter<'s, E, Self>, one: One) -> Result<(), String> {
        script.take_reference(one)
    }

    fn freeze(
        script: &mut Interpreter<'s, E, Self>,
        at: One,
        pages: u64,
        ending: Ending,
    ) -> Result<(), String> {
        script.freeze_pages(at, pages, ending)
    }

    fn reorder_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &reorder::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String> {
        script.freeze_and_reorder(request, frozen)
    }

    fn change_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &fold::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String> {
        script.freeze_and_change(request, frozen)
    }
}

/// References that readers keep.
impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// A reader gives a reference back.
    pub(super) fn give_back(&mut self, index: usize) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.swap_remove(index % self.held.len());
        let first = held.first().get();
        if let Some(count) = self.model.held.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                self.model.held.remove(&first);
            }
        }
        drop(held);
    }

    /// Readers give all references back.
    pub(super) fn give_all_back(&mut self) {
        while !self.held.is_empty() {
            self.give_back(0);
        }
    }

    /// Readers give references back to pages that are partly in `pages`: what is done next is done with
    /// memory that nobody has references to.
    pub(super) fn give_back_in(&mut self, pages: &Range<u64>) {
        let Some(frames) = self.scale().frames(pages) else {
            return;
        };
        let is_in = |held: &Held<'s, E>| held.frames().overlaps(frames);
        while let Some(index) = self.held.iter().position(is_in) {
            self.give_back(index);
        }
    }
}

/// What readers do.
impl<'s, E: TailEncoding> Interpreter<'s, E, Readers<'s, ThreadKernel<'s>>> {
    /// Whether they can read descriptors: they translate by tables.
    pub(super) fn can_read(&self) -> bool {
        self.parts.machine.facts().has_tables
    }

    pub(super) fn check_found_in(&self, pages: &Range<u64>) -> Result<(), String> {
        let all = self.model.all_pages();
        let first = pages.start.saturating_sub(1).max(all.start);
        let per_page = self.scale().per_page;
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing is folded or taken
        // offline while this reads, and it keeps no reference.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        for number in first..(pages.end + 1).min(all.end) {
            let expected = self.model.found(number);
            // The last one, since the first may be a head.
            let frame = Pfn::new(number * per_page + per_page - 1).ok_or("no such frame")?;
            if reading.is_online(frame) != expected.is_some() {
                return Err(format!("readers of {frame} should find {expected:?}"));
            }
            let (true, Some(order)) = (self.can_read(), expected) else {
                continue;
            };
            let order = Order::new(order).ok_or("no such order")?;
            let right = (frame.align_down(order), order);
            let found = reading.page_of(frame);
            let found = found.map(|page| ((page.first(), page.order()), page.head().order()));
            match found {
                Some((found, of_head)) if found == right && of_head == order => {}
                found => return Err(format!("readers of {frame} find {found:?}, not {right:?}")),
            }
        }
        Ok(())
    }

    fn take_reference(&mut self, one: One) -> Result<(), String> {
        if !self.can_read() {
            return Ok(());
        }
        self.model.refresh();
        let (number, frame) = self.frame(one)?;
        let order = self.model.found(number).and_then(Order::new);
        let head = order.map(|order| frame.align_down(order));
        let expected = match head.map(|head| self.model.references(head.get())) {
            None => Err(NoReference::NotOnline),
            Some(0) => Err(NoReference::Refused),
            Some(_) => Ok(head),
        };
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: pages are left alone as long as
        // there are references.
        let reader = unsafe { self.vmemmap.reader() };
        let taken = reader.enter().reference(frame);
        let first = taken.as_ref().map(|held| Some(held.first()));
        if first.map_err(|error| *error) != expected {
            return Err(format!(
                "a reference to {frame}: {taken:?}, expected {expected:?}"
            ));
        }
        if let Ok(held) = taken {
            *self.model.held.entry(held.first().get()).or_default() += 1;
            self.held.push(held);
            self.tally.held += 1;
        }
        Ok(())
    }

    /// How many references the pages in `pages` have that nobody keeps, by the first of them; and the first
    /// page among them, from `from` on, that has others.
    pub(super) fn frozen_references(
        &self,
        pages: &Range<u64>,
        reserved: Option<PfnRange>,
    ) -> (u32, Vec<u64>) {
        let is_page = |head: &u64| {
            let head = Pfn::new(*head).unwrap_or(Pfn::ZERO);
            !reserved.is_some_and(|reserved| reserved.contains(head))
        };
        let heads: Vec<u64> = self
            .model
            .heads(pages)
            .into_iter()
            .filter(is_page)
            .collect();
        let kept = |head: &u64| self.model.held.get(head).copied().unwrap_or(0);
        let first = heads
            .iter()
            .map(|head| self.model.references(*head) - kept(head));
        let references = first.max().unwrap_or(1).max(1);
        let is_busy = |head: &u64| self.model.references(*head) != references;
        (references, heads.into_iter().filter(is_busy).collect())
    }
}
