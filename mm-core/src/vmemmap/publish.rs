//! Tells readers what is online: the online map of the vmemmap, and the frames of its bits.
//!
//! Without [readers](crate::readers) there is no map, and nothing to do. Each method asks for the map
//! first, so that it is compiled to nothing then.
//!
//! ```text
//!   memory comes online    frames of bits are taken ▶ entries are written ▶ bits are set
//!   memory goes offline    frames of bits are taken ▶ bits are cleared ▶ a grace period
//!                          ▶ frames without bits are freed ▶ entries are cleared
//! ```
//!
//! A page is found with all of its frames or with none. So what is published or withdrawn is extended to
//! whole pages.

use super::Vmemmap;
use super::plan::Plan;
use super::stats::NodeCounters;
use crate::addr::{NodeId, Order, Pfn, PfnRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames};
use crate::pagemap::{DevPagemap, Heads};
use crate::paging::{PageTable, Role};
use crate::readers::{Part, ReadersOf};

/// Frames for bits of the spans at both ends of what is withdrawn, taken before anything changes.
pub(super) struct SpareBits([Option<Pfn>; 2]);

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// What of `pagemap` is online as whole pages once `piece` is: none where it is a part of a page of
    /// which more is missing. On `table` it is not online yet.
    pub(super) fn whole_pages_with<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        plan: &Plan,
        piece: PfnRange,
    ) -> Option<PfnRange> {
        self.readers.map()?;
        let first = plan.page_of(piece.start());
        let last = plan.page_of(piece.last());
        let is_online = |page: PfnRange, frames: Option<PfnRange>| {
            frames.is_none_or(|frames| {
                let range = self.model.descriptors(frames);
                range.is_some_and(|range| self.check_online(table, range, pagemap.altmap()).is_ok())
                    && self.describes(table, page, frames, Some(pagemap.heads().0))
            })
        };
        let of_page = |page: PfnRange, frame: Pfn| frame.get() - page.start().get();
        let before = first.split_at(of_page(first, piece.start())).0;
        let after = last.split_at(of_page(last, piece.last()) + 1).1;
        if first == last {
            // Pieces come in order as a rule, so what is missing is behind this one.
            let is_whole = is_online(first, after) && is_online(first, before);
            return is_whole.then_some(around(first, piece));
        }
        let start = match is_online(first, before) {
            true => first.start(),
            false => first.last().checked_add(1)?,
        };
        let end = match is_online(last, after) {
            true => last.last().checked_add(1)?,
            false => last.start(),
        };
        PfnRange::new(start, end.get().checked_sub(start.get())?).ok()
    }

    /// Whether all of `frames`, which are online, are described as parts of `page`, and not of others
    /// that came online in between by another pagemap: and of one whose head is where `heads` says, or all say
    /// that it is in one place. Whole subsections come at once.
    fn describes<P: PageTable>(
        &self,
        table: &P,
        page: PfnRange,
        frames: PfnRange,
        heads: Option<Heads>,
    ) -> bool {
        let mut heads = heads;
        self.subsections(frames).all(|frame| {
            let described = self.described_as(table, frame);
            described
                .is_some_and(|(of, in_one)| of == page && *heads.get_or_insert(in_one) == in_one)
        })
    }

    /// The page of which the descriptor of `frame` says that it is a part.
    pub(super) fn described_page<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<PfnRange> {
        let (page, _) = self.described_as(table, frame)?;
        Some(page)
    }

    /// The page of which the descriptor of `frame` says that it is a part, and where it says that its head is.
    fn described_as<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<(PfnRange, Heads)> {
        let at = self.descriptor_address(frame)?;
        let mapping = table.lookup(at).mapping()?;
        let holder = mapping.frame_of(at, self.model.granule())?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        // What is mapped there, also where that is a stub.
        let descriptor = self.descriptor_in(holder, frame);
        let head = D::Encoding::head_of(at, descriptor.word());
        let first = self.frame_of_descriptor(head)?;
        let page = PfnRange::new(first, descriptor.order().frames()).ok()?;
        let heads = match D::Encoding::is_stub(descriptor.word()) {
            true => Heads::Packed,
            false => Heads::InPlace,
        };
        Some((page, heads))
    }

    /// Takes the frames of bits that it needs to [publish](Self::publish) `frames`. After an error
    /// nothing has changed.
    pub(super) fn prepare_to_publish(
        &mut self,
        frames: PfnRange,
        node: NodeId,
    ) -> Result<(), OutOfFrames> {
        let readers = self.readers;
        let Some(map) = readers.map() else {
            return Ok(());
        };
        for part in map.parts(frames) {
            if part.needs_bits_to_publish() {
                let bits = self.take_own_frame(node, NodeCounters::add_online_map_frame);
                let bits = bits.inspect_err(|_| self.free_bits(frames))?;
                self.use_bits(part, bits);
            }
        }
        Ok(())
    }

    /// Whether an entry needs a frame of bits before `frames` can be published.
    pub(super) fn needs_bits_to_publish(&self, frames: PfnRange) -> bool {
        let map = self.readers.map();
        map.is_some_and(|map| map.parts(frames).any(|part| part.needs_bits_to_publish()))
    }

    /// How many frames of bits it takes at most until all of `frames`, which become pages of `order` or larger
    /// ones, are found, whatever of them is not found now.
    pub(super) fn bits_to_publish_pages(&self, frames: PfnRange, order: Order) -> u64 {
        let Some(map) = self.readers.map() else {
            return 0;
        };
        let parts = map.parts(frames);
        parts
            .filter(|part| part.needs_bits_for_pages(order))
            .count() as u64
    }

    /// Gives the entry of `frames` that [needs](Self::needs_bits_to_publish) it the frame `bits`, which came
    /// from the reserve.
    pub(super) fn give_bits_to(&mut self, frames: PfnRange, bits: Pfn) {
        let readers = self.readers;
        let Some(map) = readers.map() else {
            return;
        };
        self.count_own_frame(bits, NodeCounters::add_online_map_frame);
        let mut parts = map.parts(frames);
        if let Some(part) = parts.find(Part::needs_bits_to_publish) {
            self.use_bits(part, bits);
        }
    }

    /// Gives an entry the frame `bits`, which was taken for that.
    fn use_bits(&self, part: Part<'_>, bits: Pfn) {
        let bytes = self.model.granule().bytes();
        // SAFETY: 1: taken for this, and reached by the direct map (duty 2 of `new`).
        unsafe { part.give_bits(&self.direct_map, bits, bytes) };
    }

    /// Lets readers find `frames`, whole pages that are online.
    pub(super) fn publish(&self, frames: PfnRange) {
        let Some(map) = self.readers.map() else {
            return;
        };
        for part in map.parts(frames) {
            part.publish(&self.direct_map);
        }
    }

    /// Lets readers find those pages of `order` in `frames` that are described as such. Smaller ones than a
    /// subsection come with all of it.
    pub(super) fn publish_pages<P: PageTable>(&self, table: &P, order: Order, frames: PfnRange) {
        if self.readers.map().is_none() {
            return;
        }
        if order < self.model.subsection() {
            return self.publish(frames);
        }
        let mut rest = Some(frames);
        while let Some(left) = rest {
            let (page, behind) = left.take_first(order.frames());
            if self.describes(table, page, page, None) {
                self.publish(page);
            }
            rest = behind;
        }
    }

    /// `frames`, extended to the whole of the pages that are partly in it.
    pub(super) fn whole_pages_around<P: PageTable>(&self, table: &P, frames: PfnRange) -> PfnRange {
        if self.readers.map().is_none() {
            return frames;
        }
        let pages = [frames.start(), frames.last()].map(|frame| self.described_page(table, frame));
        let pages = pages.into_iter().flatten();
        pages.fold(frames, around)
    }

    /// `frames`, extended to the whole of the pages that are partly in it and that readers find. Of a page
    /// that they do not find, others may have brought what is in between online.
    pub(super) fn found_pages_around<P: PageTable>(&self, table: &P, frames: PfnRange) -> PfnRange {
        let Some(map) = self.readers.map() else {
            return frames;
        };
        let ends = [frames.start(), frames.last()].into_iter();
        let found = ends.filter(|frame| map.contains(&self.direct_map, *frame));
        let pages = found.filter_map(|frame| self.described_page(table, frame));
        pages.fold(frames, around)
    }

    /// Checks that readers find all of `frames`, but for what an altmap reserves; otherwise answers with
    /// `frames`, extended to the page of which more is missing. What readers find is whole.
    pub(super) fn check_found<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        reserved: Option<PfnRange>,
    ) -> Result<(), PfnRange> {
        let Some(map) = self.readers.map() else {
            return Ok(());
        };
        let is_found = |frame| map.contains(&self.direct_map, frame);
        let is_reserved = |frame| reserved.is_some_and(|reserved| reserved.contains(frame));
        let mut subsections = self.subsections(frames);
        match subsections.find(|&frame| !is_found(frame) && !is_reserved(frame)) {
            None => Ok(()),
            Some(frame) => {
                let page = self.described_page(table, frame);
                Err(page.map_or(frames, |page| around(page, frames)))
            }
        }
    }

    /// The first frames of the subsections in `frames`.
    fn subsections(&self, frames: PfnRange) -> impl Iterator<Item = Pfn> + use<D, A, M, R> {
        let step = self.model.subsection().frames();
        let count = frames.frames().div_ceil(step);
        (0..count).filter_map(move |index| frames.start().checked_add(index * step))
    }

    /// Takes the frames of bits that it needs to [withdraw](Self::withdraw) `frames`, whole pages.
    pub(super) fn prepare_to_withdraw(
        &mut self,
        frames: PfnRange,
        node: NodeId,
    ) -> Result<SpareBits, OutOfFrames> {
        let mut spare = SpareBits([None; 2]);
        let readers = self.readers;
        let Some(map) = readers.map() else {
            return Ok(spare);
        };
        // Parts of spans are at both ends, and nowhere else.
        let parts = map.parts(frames).filter(Part::needs_bits_to_withdraw);
        for (slot, _) in (0..).zip(parts) {
            let bits = self.take_own_frame(node, NodeCounters::add_online_map_frame);
            let bits = bits.inspect_err(|_| self.free_spare(&mut spare))?;
            if let Some(slot) = spare.0.get_mut(slot) {
                *slot = Some(bits);
            }
        }
        Ok(spare)
    }

    /// Frees what was taken and not used.
    pub(super) fn free_spare(&mut self, spare: &mut SpareBits) {
        if self.readers.map().is_none() {
            return;
        }
        for bits in spare.0.iter_mut().filter_map(Option::take) {
            // SAFETY: 1: taken by `prepare_to_withdraw`, and used by no entry.
            unsafe { self.free_own_frame(bits, NodeCounters::remove_online_map_frame) };
        }
    }

    /// Withdraws `frames`, whole pages: readers that begin after a grace period do not find them.
    pub(super) fn withdraw(&mut self, frames: PfnRange, spare: SpareBits) {
        let Some(map) = self.readers.map() else {
            return;
        };
        let mut spare = spare.0.into_iter().flatten();
        for part in map.parts(frames) {
            if part.needs_bits_to_withdraw()
                && let Some(bits) = spare.next()
            {
                self.use_bits(part, bits);
            }
            part.withdraw(&self.direct_map);
        }
    }

    /// Frees the frames of bits around `frames` that say nothing. A grace period has passed since they
    /// were withdrawn, or readers have never followed them.
    pub(super) fn free_bits(&mut self, frames: PfnRange) {
        let readers = self.readers;
        let Some(map) = readers.map() else {
            return;
        };
        for part in map.parts(frames) {
            if let Some(bits) = part.take_bits(&self.direct_map) {
                // SAFETY: 1: taken for the entry, which has given it up, and nobody follows it.
                unsafe { self.free_own_frame(bits, NodeCounters::remove_online_map_frame) };
            }
        }
    }
}

/// The frames from the first to the last of both.
pub(super) fn around(one: PfnRange, other: PfnRange) -> PfnRange {
    let start = one.start().min(other.start());
    let last = one.last().max(other.last());
    PfnRange::new(start, last.get() - start.get() + 1).unwrap_or(one)
}
