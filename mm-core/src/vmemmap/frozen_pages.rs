//! Freezing and thawing the pages of a range, head by head, and finding out what is frozen.
//!
//! Memory is frozen from the moment that its entries of the online map [count](begin_freeze) the freeze to
//! the moment when they do not [any more](end_freeze). In between, its counts tell page by page. Bits of
//! the online map do not: memory is found before its pages are thawed, and while units change.

use super::queries::holders;
use super::{Described, Vmemmap};
use crate::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{PageTable, Role, Run, Visit};
use crate::readers::{CountReferences, Kernel, OnlineMap, Part, Reader, ReadersOf};
use core::ops::ControlFlow;

/// Counts a freeze of `frames` in the entries of the online map. Where there is no room for one more, none
/// is counted, and the frames of that entry are the error.
pub(super) fn begin_freeze(map: &OnlineMap<'_>, frames: PfnRange) -> Result<(), PfnRange> {
    for (counted, part) in map.parts(frames).enumerate() {
        if !part.add_freeze() {
            let before = map.parts(frames).take(counted);
            before.for_each(|part| part.remove_freeze());
            return Err(part.frames());
        }
    }
    Ok(())
}

/// Ends a freeze of `frames`: all of its pages are thawed, or become other ones under the vmemmap's lock.
pub(super) fn end_freeze(map: &OnlineMap<'_>, frames: PfnRange) {
    map.parts(frames).for_each(|part| part.remove_freeze());
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The first frame of the first page that is at least partly in `frames` and frozen. Nobody else
    /// freezes one before `self` is used again.
    pub(super) fn first_frozen<P: PageTable>(&self, table: &P, frames: PfnRange) -> Option<Pfn> {
        let map = self.readers.map()?;
        let mut parts = map.parts(frames).filter(Part::has_freezes);
        parts.find_map(|part| self.first_frozen_in(table, part.frames()))
    }

    /// The same, whatever the entries count.
    #[cold]
    #[inline(never)]
    fn first_frozen_in<P: PageTable>(&self, table: &P, frames: PfnRange) -> Option<Pfn> {
        let page = self.described_page(table, frames.start());
        let head = page.map_or(frames.start(), PfnRange::start);
        if let Some(Described::Own(descriptor)) = self.mapped_descriptor(table, head)
            && descriptor.is_frozen()
        {
            return Some(head);
        }
        if let Some(packed) = self.find_packed(table, frames, &D::is_frozen) {
            return Some(packed);
        }
        let order = self.model.vmemmap_page_order();
        let [first, last] = [frames.start(), frames.last()].map(|frame| {
            PfnRange::new(frame.align_down(order), order.frames())
                .ok()
                .and_then(|page| self.model.descriptors(page))
        });
        let range = VirtRange::between(first?.start(), last?.last())?;
        let mut found = None;
        let _ = table.visit(range, &mut |visit| {
            // Heads have memory of their own.
            if let Visit::Leaves { at, run } = visit
                && run.leaf.role == Role::Descriptors
            {
                found = self.first_frozen_of(at, &run, frames);
            }
            match found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        found
    }

    /// The first of `frames` whose descriptor `run` maps at `at` or behind, and is frozen.
    fn first_frozen_of(&self, at: VirtAddr, run: &Run, frames: PfnRange) -> Option<Pfn> {
        let per_page = self.model.descriptors_per_page();
        holders(&self.model, at, run).find_map(|(holder, first)| {
            let described = PfnRange::new(first, per_page).ok()?;
            let mut described = described.intersection(frames)?.into_iter();
            described.find(|frame| self.descriptor_in(holder, *frame).is_frozen())
        })
    }
}

/// Freezes each page of `frames`, whole pages that are online, except for what is `reserved`, if it has
/// `references` references. If one has others nothing is frozen, and its first frame is the error.
pub(super) fn freeze_pages<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    references: u32,
) -> Result<(), Pfn> {
    let freeze = |head: &D| head.try_freeze(references);
    let Some(busy) = for_each_page(reader, frames, reserved, freeze) else {
        return Ok(());
    };
    let before = busy.get() - frames.start().get();
    if let Some(frozen) = frames.split_at(before).0 {
        thaw_pages(reader, frozen, reserved, references);
    }
    Err(busy)
}

/// Gives each page of `frames`, which are frozen except for what is `reserved`, `references` references.
pub(super) fn thaw_pages<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    references: u32,
) {
    for_each_page(reader, frames, reserved, |head| {
        // SAFETY: 1: the caller has frozen them. 2: it says how many there are.
        unsafe { head.unfreeze(references) };
        true
    });
}

/// Shows the head of each page of `frames`, whole pages that are online, except for what is
/// `reserved`, until that says false. Returns the first frame of the page where it did.
fn for_each_page<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    mut visit: impl FnMut(&D) -> bool,
) -> Option<Pfn> {
    let mut rest = Some(frames);
    while let Some(pages) = rest {
        let first = pages.start();
        if let Some(reserved) = reserved.filter(|reserved| reserved.contains(first)) {
            let end = reserved.last().get() - first.get() + 1;
            rest = pages.split_at(end).1;
            continue;
        }
        // SAFETY: 1: the caller has the memory online, and nobody takes it offline meanwhile.
        let head = unsafe { reader.head_of_page(first) };
        let order = head.order();
        if !visit(&head) {
            return Some(first);
        }
        rest = pages.split_at(order.frames()).1;
    }
    None
}
