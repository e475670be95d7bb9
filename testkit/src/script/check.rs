//! Comparing the machine with the model and with the oracle.

use super::interpreter::Interpreter;
use super::model::{Described, Kind, Page as ModelPage};
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use crate::listed::Listed;
use hosted::inspect::SeenEntry;
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::paging::{PageTable, Visit};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Compares what the last operation has changed, and next to it; or everything.
    pub(super) fn check(&mut self, everything: bool) -> Result<(), String> {
        self.check_costs()?;
        for pages in self.model.take_touched() {
            self.check_contents(&pages, self.scale().is_wide())?;
            self.check_heads(&pages)?;
            if everything {
                continue;
            }
            self.check_pages(&pages)?;
            self.check_listed(&pages)?;
            R::check_found(self, &pages)?;
            if let Some(range) = self.range_of(&pages) {
                self.parts.machine.cpus().recheck(range);
            }
        }
        if everything {
            self.check_all()?;
        }
        let violations = self.parts.machine.violations();
        match violations.is_empty() {
            true => Ok(()),
            false => Err(format!("rules were broken: {violations}")),
        }
    }

    /// Compares how `pages` and those next to them are mapped with what should be.
    pub(super) fn check_pages(&self, pages: &Range<u64>) -> Result<(), String> {
        let all = self.model.all_pages();
        let first = pages.start.saturating_sub(1).clamp(all.start, all.end - 1);
        let pages = first..(pages.end + 1).clamp(first + 1, all.end);
        match self.range_of(&pages) {
            Some(range) => self.check_range(range),
            None => Err(format!("{pages:?} have no addresses")),
        }
    }

    /// Compares what is mapped in `range`, whole pages, with what should be.
    fn check_range(&self, range: VirtRange) -> Result<(), String> {
        let scale = self.scale();
        let pages = scale.page_at(range.start())..scale.page_at(range.last()) + 1;
        let mut next = pages.start;
        let mut wrong = None;
        self.table.scan(range, &mut |entry| {
            let SeenEntry::Leaf(leaf) = entry else {
                return;
            };
            if scale.is_place(leaf.at) {
                // Next to the vmemmap, and compared with other pages.
                return;
            }
            let first = scale.page_at(leaf.at);
            let end = first + leaf.order.frames();
            let part = first.max(pages.start)..end.min(pages.end);
            for number in part {
                let expected = self.model.page(number);
                let right = next <= number
                    && (next..number).all(|gap| self.model.page(gap).is_none())
                    && expected.is_some_and(|page| {
                        page.frame == leaf.frame.get() + (number - first)
                            && page.is_ours() == leaf.owned
                            && page.is_writable() == leaf.writable
                            && page.is_huge() == (leaf.order > Order::BASE)
                            && !(leaf.owned && leaf.executable)
                    });
                if !right {
                    wrong.get_or_insert((number, expected, leaf));
                }
                next = number + 1;
            }
        });
        if let Some((number, page, leaf)) = wrong {
            return Err(format!(
                "page {number:#x} up to there: {leaf:x?}, expected {page:x?}"
            ));
        }
        match (next..pages.end).find(|gap| self.model.page(*gap).is_some()) {
            Some(gap) => Err(format!("nothing is mapped at page {gap:#x}")),
            None => Ok(()),
        }
    }

    /// Compares descriptors of `pages`: all, or the first, the last and some other.
    fn check_contents(&self, pages: &Range<u64>, all: bool) -> Result<(), String> {
        let per_page = self.scale().per_page;
        let mut last_tail = None;
        for (number, page) in self.model.mapped_in(pages.clone()) {
            let seen = page.is_tail() && last_tail == Some(page.frame);
            last_tail = page.is_tail().then_some(page.frame);
            if !page.is_ours() || seen {
                continue;
            }
            let frame = Pfn::new(page.frame).ok_or("no such frame")?;
            let descriptors = self.parts.machine.memory().frame_pointer(frame);
            let some = [0, per_page - 1, number * 7 % per_page];
            let all = all.then_some(0..per_page).into_iter().flatten();
            for index in all.chain(some) {
                // SAFETY: the library has mapped the frame as a page of so many descriptors, which
                // are only shared.
                let descriptor =
                    unsafe { descriptors.cast::<Page<E>>().add(index as usize).as_ref() };
                let pfn = number * per_page + index;
                self.check_descriptor(number, pfn, descriptor, &page)
                    .map_err(|what| format!("the descriptor of {pfn:#x}: {what}, {page:x?}"))?;
            }
        }
        Ok(())
    }

    /// Compares the pages that are listed of `pages` and next to them with what should be.
    fn check_listed(&self, pages: &Range<u64>) -> Result<(), String> {
        let all = self.model.all_pages();
        let around = pages.start.saturating_sub(1).max(all.start)..(pages.end + 1).min(all.end);
        let Some(frames) = self.scale().frames(&around) else {
            return Ok(());
        };
        let listed = Listed {
            per_page: self.scale().per_page,
            part_at: |page| self.model.listed_part(page),
        };
        listed.compare(frames, self.vmemmap.pages(&self.table, frames))
    }

    fn check_descriptor(
        &self,
        number: u64,
        pfn: u64,
        descriptor: &Page<E>,
        page: &ModelPage,
    ) -> Result<(), String> {
        let contents = page.contents;
        let is_stub = page.kind == Kind::Stub;
        let address = |pfn: u64| {
            let model = self.parts.machine.model();
            let config = model.config();
            VirtAddr::new(config.vmemmap_base.get() + pfn * config.descriptor_bytes)
        };
        let head = pfn & !((1 << contents.order) - 1);
        let found = E::head_of(address(pfn), descriptor.word());
        if descriptor.order().get() != contents.order || found != address(head) {
            return Err(format!("order {}, head at {found}", descriptor.order()));
        }
        if descriptor.is_tail() != (pfn != head || is_stub) {
            return Err("it is another part".into());
        }
        if E::is_stub(descriptor.word()) != is_stub {
            return Err(format!("it is a stub: {}", !is_stub));
        }
        let described = match is_stub {
            true => Described {
                references: 0,
                node: contents.node,
            },
            false => self.model.described(number, pfn, contents),
        };
        if descriptor.node().number() != u32::from(described.node) {
            return Err(format!("node {}", descriptor.node()));
        }
        let held = self.model.held.get(&pfn).filter(|_| !is_stub);
        let held = held.copied().unwrap_or(0);
        let references = described.references + held;
        let found = descriptor.references().get().unwrap_or(u32::MAX);
        if found != references {
            return Err(format!("{found} references instead of {references}"));
        }
        let written = self.model.written.get(&pfn).filter(|_| !is_stub);
        let (flags, private) = written.map_or((0, 0), |value| (*value, !value));
        let found = (
            descriptor.flags().load(Ordering::Relaxed),
            descriptor.private()[3].load(Ordering::Relaxed),
            descriptor.mappings().load(Ordering::Relaxed),
        );
        match found == (flags, private, 0) {
            true => Ok(()),
            false => Err(format!(
                "the kernel's state {written:?} has become {found:x?}"
            )),
        }
    }

    /// Compares everything.
    fn check_all(&mut self) -> Result<(), String> {
        // With the addresses before and behind the window.
        let border = self.scale().per_table * self.scale().page_bytes();
        let (start, last) = (self.addresses.start().get(), self.addresses.last().get());
        let around = VirtRange::between(
            VirtAddr::new(start.saturating_sub(border)),
            VirtAddr::new(last.saturating_add(border)),
        );
        self.check_range(around.unwrap_or(self.addresses))?;
        self.check_contents(&self.model.all_pages(), false)?;
        self.check_places()?;
        self.check_owners()?;
        self.check_listed(&self.model.all_pages())?;
        R::check_found(self, &self.model.all_pages())?;
        let mut marked: Vec<u64> = match self.scale().frames(&self.model.all_pages()) {
            Some(window) => self.vmemmap.marked(window).map(Pfn::get).collect(),
            None => Vec::new(),
        };
        marked.sort_unstable();
        if !marked.iter().eq(&self.model.marks) {
            let expected = &self.model.marks;
            return Err(format!("marked are {marked:x?}, expected {expected:x?}"));
        }
        self.parts.machine.cpus().recheck(self.addresses);
        self.check_counts()?;
        match &self.oracle {
            Some(_) => self.compare_with_oracle(),
            None => Ok(()),
        }
    }

    /// Each frame is one page's own, or a tail.
    fn check_owners(&self) -> Result<(), String> {
        let mapped = self.model.mapped_in(self.model.all_pages());
        let ours = mapped.filter(|(_, page)| page.is_ours());
        let mut frames: Vec<(u64, bool)> = ours
            .map(|(_, page)| (page.frame, matches!(page.kind, Kind::Own { .. })))
            .collect();
        frames.extend(self.seen_places()?.into_values().map(|frame| (frame, true)));
        frames.sort_unstable();
        let mut pairs = frames.iter().zip(frames.iter().skip(1));
        let twice = pairs.find(|(one, next)| one.0 == next.0 && (one.1 || next.1));
        match twice {
            Some(((frame, _), _)) => Err(format!("frame {frame:#x} is mapped as two things")),
            None => Ok(()),
        }
    }

    /// Audits the machine, and compares the counts with the model's.
    fn check_counts(&mut self) -> Result<(), String> {
        // Those that are not in use may have the same frames.
        let all = self.parts.altmaps.iter().flatten();
        let in_use = all.filter(|both| both.ours.allocator().in_use() > 0);
        let mut allocators: Vec<&dyn InspectFrames> =
            in_use.map(|both| both.ours.allocator() as _).collect();
        allocators.push(self.parts.machine.frames());
        let audit = self
            .vmemmap
            .audit(&self.table, &allocators, &mut self.scratch)
            .map_err(|finding| finding.to_string())?;
        let tables = &self.model.tables;
        let right = (
            self.model.mapped_pages(),
            tables.leaf_tables(),
            tables.upper_tables(),
        );
        match (audit.mapped_pages, audit.leaf_tables, audit.upper_tables) == right {
            true => Ok(()),
            false => Err(format!("{audit:?}, expected pages and tables {right:?}")),
        }
    }

    /// Compares what the oracle has mapped with what the model says, which is what the machine has.
    fn compare_with_oracle(&mut self) -> Result<(), String> {
        let all = || self.parts.altmaps.iter().flatten();
        let theirs = || all().filter_map(|both| Some((both, both.theirs.as_ref()?)));
        if let Some(complaint) = theirs().find_map(|(_, theirs)| theirs.complaints().pop()) {
            return Err(complaint);
        }
        let in_use = theirs().filter(|(both, _)| both.ours.allocator().in_use() > 0);
        let altmaps: Vec<&dyn InspectFrames> = in_use.map(|(_, theirs)| theirs as _).collect();
        let Some(oracle) = &self.oracle else {
            return Ok(());
        };
        oracle.complaints()?;
        let theirs = self.oracle_pages(oracle);
        // After changes of order, frames may have changed places.
        let is_renamed = self.tally.reordered + self.tally.reordered_frozen > 0;
        let mut names = [BTreeMap::new(), BTreeMap::new()];
        for (number, (frame, huge)) in &theirs {
            let page = self.model.page(*number);
            let right = page.is_some_and(|page| {
                let [ours, back] = &mut names;
                let same = *ours.entry(page.frame).or_insert(*frame) == *frame
                    && *back.entry(*frame).or_insert(page.frame) == page.frame;
                let is_device = |frame| self.model.is_device(frame);
                let alike = is_device(page.frame) == is_device(*frame);
                let named = is_renamed && page.is_ours() || page.frame == *frame;
                same && alike && named && page.is_huge() == *huge
            });
            if !right {
                return Err(format!(
                    "the oracle has {frame:#x} at page {number:#x}, huge: {huge}, expected {page:x?}"
                ));
            }
        }
        let places = [self.seen_places()?, self.oracle_places(&oracle.table)];
        let numbers = places.each_ref().map(|places| places.keys());
        let [ours, their_numbers] = numbers;
        let same = is_renamed || places[0] == places[1];
        if !ours.eq(their_numbers) || !same {
            return Err(format!("the oracle has heads in other pages: {places:x?}"));
        }
        let pages = theirs.len() as u64;
        let mapped = self.model.mapped_in(self.model.all_pages()).count() as u64;
        if pages != mapped {
            return Err(format!("the oracle has {pages} pages, expected {mapped}"));
        }
        let audit = oracle.audit(&altmaps, &mut self.scratch)?;
        let costs = self.model.costs();
        let right = (self.model.mapped_pages(), costs.descriptors, costs.marks);
        match (
            audit.mapped_pages,
            audit.descriptor_frames,
            audit.mark_frames,
        ) == right
        {
            true => Ok(()),
            false => Err(format!("the oracle has {audit:?}, expected {right:?}")),
        }
    }

    /// The oracle's pages: the frame that each is mapped to, and whether that is by a huge leaf.
    fn oracle_pages(&self, oracle: &Oracle<'s, E, R>) -> BTreeMap<u64, (u64, bool)> {
        let mut pages = BTreeMap::new();
        let _ = oracle.table.visit(self.addresses, &mut |visit| {
            if let Visit::Leaves { at, run } = visit {
                let first = self.scale().page_at(at);
                for index in 0..run.pages() {
                    // It has one leaf at a time.
                    let frame = run.leaf.block.first().get() + index;
                    pages.insert(first + index, (frame, run.pages() > 1));
                }
            }
            ControlFlow::Continue(())
        });
        pages
    }

    /// Compares every byte of the frames that the library has mapped with those of the oracle; without
    /// an oracle, every descriptor with the model.
    pub(super) fn compare_contents(&self) -> Result<(), String> {
        let Some(oracle) = &self.oracle else {
            return self.check_contents(&self.model.all_pages(), true);
        };
        let pages = self.oracle_pages(oracle);
        for (number, page) in self.model.mapped_in(self.model.all_pages()) {
            if !page.is_ours() {
                continue;
            }
            let frame = Pfn::new(page.frame).ok_or("no such frame")?;
            let theirs = pages.get(&number).and_then(|(frame, _)| Pfn::new(*frame));
            let theirs = theirs.and_then(|frame| oracle.parts.memory.words(frame));
            let ours = self.parts.machine.memory().words(frame);
            if !are_same(ours, theirs) {
                return Err(format!(
                    "the contents of page {number:#x} differ from the oracle's"
                ));
            }
        }
        let places = [self.seen_places()?, self.oracle_places(&oracle.table)];
        for (page, frame) in &places[0] {
            let ours = Pfn::new(*frame).and_then(|frame| self.parts.machine.memory().words(frame));
            let theirs = places[1].get(page).and_then(|frame| Pfn::new(*frame));
            let theirs = theirs.and_then(|frame| oracle.parts.memory.words(frame));
            if !are_same(ours, theirs) {
                return Err(format!(
                    "the heads in page {page:#x} differ from the oracle's"
                ));
            }
        }
        Ok(())
    }

    /// Checks that nothing is left of anything, and that so many marks went last.
    pub(super) fn is_empty(&self, marked: u64) -> Result<(), String> {
        let violations = self.parts.machine.violations();
        if !violations.is_empty() {
            return Err(format!("rules were broken at the end: {violations}"));
        }
        let left = (
            self.parts.machine.frames().outstanding(),
            self.out_of_altmaps(),
        );
        if left != (0, 0) {
            return Err(format!("{left:?} frames are left at the end"));
        }
        if marked != self.model.marks.len() as u64 || self.vmemmap.mark_stats().marked != 0 {
            return Err(format!("{marked} marks went at the end"));
        }
        let root = self
            .parts
            .machine
            .memory()
            .page_bytes(self.parts.machine.root());
        match root {
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(()),
            _ => Err("something is left in the root table".into()),
        }
    }
}

/// Whether there are both pages, with the same words.
fn are_same(ours: Option<&[AtomicU64]>, theirs: Option<&[AtomicU64]>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            let mut both = ours.iter().zip(theirs);
            ours.len() == theirs.len()
                && both.all(|(a, b)| a.load(Ordering::Relaxed) == b.load(Ordering::Relaxed))
        }
        _ => false,
    }
}
