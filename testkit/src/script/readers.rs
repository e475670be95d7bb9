//! Readers, or none: what they find, references that they keep, and memory that is frozen.

use super::interpreter::Interpreter;
use super::model::Expected;
use super::op::{Fault, One};
use super::oracle::Oracle;
use super::reorder::Request;
use crate::TestMachine;
use crate::threads::{ThreadCpus, ThreadKernel};
use arch_sim::SimMemory;
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, DirectMap, FrameAllocator};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::Replacement;
use mm_core::readers::{
    CountReferences, NoReaders, NoReference, OnlineEntry, PageReference, Readers, ReadersOf,
};
use mm_core::vmemmap::{Described, FoldError, OfflineError, Vmemmap};
use std::ops::Range;

/// How many vmemmap pages are frozen at a time: no more units than one call freezes.
const FROZEN: u64 = 512;

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
        commits: bool,
    ) -> Result<(), String>;

    /// Freezes the pages that `request` is about, and changes them, or not.
    fn reorder_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &Request<'_, 's>,
        references: u32,
        commits: bool,
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

    fn freeze(_: &mut Interpreter<'s, E, Self>, _: One, _: u64, _: bool) -> Result<(), String> {
        Ok(())
    }

    fn reorder_frozen(
        _: &mut Interpreter<'s, E, Self>,
        _: &Request<'_, 's>,
        _: u32,
        _: bool,
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
        commits: bool,
    ) -> Result<(), String> {
        script.freeze_pages(at, pages, commits)
    }

    fn reorder_frozen(
        script: &mut Interpreter<'s, E, Self>,
        request: &Request<'_, 's>,
        references: u32,
        commits: bool,
    ) -> Result<(), String> {
        script.freeze_and_reorder(request, references, commits)
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
    fn can_read(&self) -> bool {
        self.parts.machine.facts().has_tables
    }

    fn check_found_in(&self, pages: &Range<u64>) -> Result<(), String> {
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
            match found.map(|page| (page.first(), page.order())) {
                Some(found) if found == right => {}
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
    fn frozen_references(&self, pages: &Range<u64>, reserved: Option<PfnRange>) -> (u32, Vec<u64>) {
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

    fn freeze_pages(&mut self, at: One, pages: u64, commits: bool) -> Result<(), String> {
        if !self.can_read() {
            return Ok(());
        }
        let (page, _) = self.frame(at)?;
        let all = self.model.all_pages();
        let of_subsection = self.scale().subsection / self.scale().per_page;
        let part = page..(page + pages).min(all.end);
        let whole = self.model.orders().whole(&part).unwrap_or(part);
        let start = whole.start - whole.start % of_subsection;
        let part = start.max(all.start)..whole.end.next_multiple_of(of_subsection).min(all.end);
        let Some(frames) = self.scale().frames(&part) else {
            return Ok(());
        };
        let window = [self.aligned_window(Order::BASE).unwrap_or(frames)];
        let (pagemap, altmap) = match self.with_altmap(frames) {
            Some(live) => (
                live.pagemaps().ours,
                live.altmaps.map(|both| both.ours.reserved()),
            ),
            None => {
                let model = self.parts.machine.model();
                let made = DevPagemap::new(&model, &window, Geometry::BASE_PAGES);
                (made.map_err(|error| error.to_string())?, None)
            }
        };
        self.model.refresh();
        let reserved = altmap.filter(|reserved| reserved.overlaps(frames));
        let (references, busy) = self.frozen_references(&part, reserved);
        let of_altmap = |page: u64| {
            let frames = self.scale().frames(&(page..page + 1));
            frames.is_some_and(|frames| reserved.is_some_and(|all| all.contains_range(frames)))
        };
        let all_found = |part: &Range<u64>| {
            part.clone()
                .all(|page| of_altmap(page) || self.model.found(page).is_some())
        };
        let whole = || match self.model.orders().are_whole(&part) && all_found(&part) {
            true => Expected::Done,
            false => Expected::refused(ErrorKind::Misaligned),
        };
        let free = || match busy.first() {
            None => Expected::Done,
            Some(_) => Expected::refused(ErrorKind::Busy),
        };
        let expected = self.model.piece(pagemap.ranges(), frames);
        let expected = expected
            .and(|| self.model.depopulate(altmap, frames))
            .and(whole)
            .and(free);
        self.arm(Fault::None);
        let hull = self.hull(&[frames]);
        self.speculate(&hull);
        let before = self.snapshot(&hull);
        // SAFETY: 1: they translate by the machine's one table. 2: each page has the references of its owner.
        // 3: nothing else happens before it is committed or dropped.
        let frozen = unsafe {
            self.vmemmap
                .freeze(&self.table, &pagemap, frames, references)
        };
        let frozen = match (frozen, expected) {
            (Ok(frozen), Expected::Done) => frozen,
            (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => {
                if let OfflineError::Busy { first } = error
                    && Some(first.get()) != busy.first().copied()
                {
                    return Err(format!("{first} is busy, expected {busy:x?}"));
                }
                self.tally.busy += u64::from(kind == ErrorKind::Busy);
                return self.unchanged(&before, &hull, "after a freeze was refused");
            }
            (frozen, expected) => {
                return Err(format!("{frozen:?} of {frames}, expected {expected:?}"));
            }
        };
        // Nobody finds it.
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing happens meanwhile.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        for frame in [frames.start(), frames.last()] {
            if reading.is_online(frame) || reading.reference(frame).is_ok() {
                return Err(format!("readers find {frame}, which is frozen"));
            }
        }
        drop(reading);
        if !commits {
            drop(frozen);
            self.tally.thawed += 1;
            self.unchanged(&before, &hull, "after it was thawed")?;
            return self.check_found_in(&part);
        }
        let is_split = !self.model.straddlers(&part).is_empty();
        let theirs = self.with_altmap(frames).map(|live| live.pagemaps().theirs);
        let gone = self.vmemmap.commit(&mut self.table, frozen.wait());
        let gone = gone.map_err(|error| format!("frozen memory: {error}"))?;
        if let Some(Oracle { vmemmap, table, .. }) = &mut self.oracle {
            let theirs = theirs.flatten().unwrap_or(pagemap);
            let done = vmemmap.depopulate(table, &theirs, frames);
            done.map_err(|error| format!("the oracle: {error}"))?;
        }
        self.tally.frozen += 1;
        self.tally.offline += 1;
        self.tally.split_offline += u64::from(is_split);
        let marked = self.model.take_piece(frames);
        match gone.marked == marked {
            true => Ok(()),
            false => Err(format!("{gone:?}, expected {marked} marks")),
        }
    }

    fn freeze_and_reorder(
        &mut self,
        request: &Request<'_, 's>,
        references: u32,
        commits: bool,
    ) -> Result<(), String> {
        let used = request.used;
        let part = self.scale().pages(request.frames);
        let whole = self.model.orders().whole(&part).unwrap_or(part.clone());
        if whole.end - whole.start > FROZEN {
            return Ok(());
        }
        let Some(frames) = self.scale().frames(&whole) else {
            return Ok(());
        };
        self.model.refresh();
        let (before_references, busy) = self.frozen_references(&whole, None);
        let order = self.model.orders().largest(&whole).max(used.order.get());
        let unit = self.scale().unit(order);
        let all_found = whole.clone().all(|page| self.model.found(page).is_some());
        let is_in = |range: &PfnRange| range.contains_range(frames);
        let in_range = request.pagemaps.ours.ranges().iter().any(is_in);
        let is_aligned = frames.is_aligned(used.order);
        let refused = |is_right: bool, kind: ErrorKind| match is_right {
            true => Expected::Done,
            false => Expected::refused(kind),
        };
        let of_units = all_found && whole.start % unit + whole.end % unit == 0;
        let expected = refused(is_aligned, ErrorKind::Misaligned)
            .and(|| refused(in_range, ErrorKind::OutOfRange))
            .and(|| self.model.depopulate(None, frames))
            .and(|| refused(of_units, ErrorKind::Misaligned));
        self.speculate(&whole);
        let before = self.snapshot(&whole);
        let costs = self.model.costs();
        let done = self.without_allocator(|this| {
            let pagemap = &request.pagemaps.ours;
            let (vmemmap, table) = (&mut this.vmemmap, &mut this.table);
            // SAFETY: 1: they translate by the machine's one table. 2: each page has the references of its
            // owner. 3: nothing else happens before it is committed or dropped.
            let frozen =
                unsafe { vmemmap.freeze_units(&*table, pagemap, frames, before_references) }?;
            if !commits {
                return Ok(None);
            }
            let quiescent = frozen.wait();
            let changed =
                vmemmap.commit_reorder(table, quiescent, pagemap, request.frames, references);
            Ok::<_, FoldError>(Some(changed))
        })?;
        let changed = match (done, expected) {
            (Ok(changed), Expected::Done) => changed,
            (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => {
                self.tally.reorder_refused += 1;
                return self.unchanged(&before, &whole, "after a freeze was refused");
            }
            (done, expected) => return Err(format!("{done:?}, expected {expected:?}")),
        };
        let Some(changed) = changed else {
            self.tally.thawed += 1;
            return self.unchanged(&before, &whole, "after it was thawed");
        };
        let per_page = self.scale().per_page;
        let units: Vec<Range<u64>> = (whole.start..whole.end)
            .step_by(unit as usize)
            .map(|start| start..start + unit)
            .collect();
        let is_busy = |unit: &Range<u64>| {
            let mut busy = busy.iter().map(|head| head / per_page);
            busy.any(|page| unit.contains(&page))
        };
        // Units that are next to each other change together.
        let mut runs: Vec<Range<u64>> = Vec::new();
        for unit in units.iter().filter(|unit| !is_busy(unit)) {
            match runs.last_mut() {
                Some(run) if run.end == unit.start => run.end = unit.end,
                _ => runs.push(unit.clone()),
            }
        }
        let mut count = 0;
        for run in runs {
            let mut left = part.start.max(run.start)..part.end.min(run.end);
            let of_run = left.clone();
            while !left.is_empty() {
                let [_, unit] = self
                    .model
                    .units(&left, &used)
                    .map_err(|refused| format!("the rest of {part:?} at {left:?}: {refused:?}"))?;
                self.enter_unit(request, &unit, (&left, references), None)?;
                left.start = unit.end.min(left.end);
                count += 1;
            }
            self.model.set_references(&run, references);
            if let Some(frames) = self.scale().frames(&of_run) {
                self.oracle_reorders(request, frames)?;
                self.oracle_counts(&run)?;
            }
        }
        self.nothing_is_lost(&costs)?;
        self.model.touch_all(&whole);
        let busy_units = units.iter().filter(|unit| is_busy(unit)).count() as u64;
        let first_busy = busy.first().copied().and_then(Pfn::new);
        let found = (
            changed.folded.changed,
            changed.busy,
            changed.first_busy,
            changed.error,
        );
        if found != (count, busy_units, first_busy, None) {
            return Err(format!(
                "{changed:?}, expected {count} units, and {busy:x?} busy"
            ));
        }
        self.tally.reordered_frozen += count;
        self.tally.busy += busy_units;
        Ok(())
    }

    /// The oracle's pages in `pages` have the references that the model says.
    fn oracle_counts(&mut self, pages: &Range<u64>) -> Result<(), String> {
        let Some(Oracle { vmemmap, table, .. }) = &self.oracle else {
            return Ok(());
        };
        for head in self.model.heads(pages) {
            let kept = self.model.held.get(&head).copied().unwrap_or(0);
            let right = self.model.references(head) - kept;
            let frame = Pfn::new(head).ok_or("no such frame")?;
            let descriptor = vmemmap.descriptor(table, frame).and_then(Described::own);
            let descriptor = descriptor.ok_or("the oracle has no descriptor")?;
            let now = descriptor.references().get().unwrap_or(0);
            if !descriptor.try_freeze(now) {
                return Err(format!("the oracle's {frame} is frozen"));
            }
            // SAFETY: 1: frozen just now. 2: nobody counts there.
            unsafe { descriptor.unfreeze(right) };
        }
        Ok(())
    }
}
