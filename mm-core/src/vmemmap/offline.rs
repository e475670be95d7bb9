//! Takes memory offline. Undoing a failed operation uses the same code.

use super::Vmemmap;
use super::error::{OfflineError, OnlineError};
use super::frame_pool::FramePool;
use super::memory_of;
use super::plan::Plan;
use super::region::{Offlined, Region};
use super::releases::Releases;
use super::split::{Straddler, Straddlers};
use super::table_records::RecordsInUse;
use crate::addr::{PfnRange, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{PageTable, Role, Visit};
use crate::readers::ReadersOf;
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Takes all of `region` offline. Its entries are cleared and flushed, and then its frames go
    /// back to where they came from. Parts that are offline already are skipped. Marks of its
    /// frames are removed and counted.
    ///
    /// Its descriptors are not in use any more: that is duty 1 of
    /// [`live_descriptor`](Self::live_descriptor). Memory that has come online in a gap of
    /// the region since then goes offline too. It stays online if its descriptors are in frames of
    /// an altmap that is not the region's.
    ///
    /// Without [readers](crate::readers) it needs memory in one case only: a huge leaf or a shared table
    /// reaches across an end of one of the ranges. That happens where memory came online, was
    /// folded or was unfolded across that end. The part outside of the region then needs a table of
    /// its own. If there is no frame for it, all that the huge leaf or shared table maps stays
    /// online. With readers, a span of the online map of which all is online, and not all of it goes,
    /// needs a frame for its bits. Without one that range and those behind it stay online. Readers are
    /// waited for once for each part that is unmapped by itself.
    ///
    /// The reserved part of an altmap goes offline like all else. Its frames may hold descriptors of
    /// memory outside the region nevertheless, and cannot be used otherwise before that is offline:
    /// [`DeviceAltmap::in_use`](crate::frame::DeviceAltmap::in_use) tells.
    ///
    /// [`Offlined::kept`] says how many frames stay online. [`depopulate`](Self::depopulate) takes
    /// them offline later.
    ///
    /// # Errors
    ///
    /// [`OfflineError::OtherModel`] where the region is another vmemmap's. It stays online there,
    /// and goes offline by pieces. With readers, [`OfflineError::Frozen`] where some of it is frozen: all of
    /// it stays online, and [`region`](Self::region) is it again. There is no other error.
    pub fn offline<P: PageTable>(
        &mut self,
        table: &mut P,
        region: Region<'_>,
    ) -> Result<Offlined, OfflineError> {
        let pagemap = region.pagemap;
        if *pagemap.model() != self.model {
            return Err(OfflineError::OtherModel);
        }
        for &range in pagemap.ranges() {
            self.check_thawed(&*table, range)?;
        }
        Ok(self.take_offline(table, &pagemap))
    }

    /// Takes all of `pagemap` offline that is online.
    #[inline(never)]
    fn take_offline<P: PageTable>(&mut self, table: &mut P, pagemap: &DevPagemap<'_>) -> Offlined {
        let altmap = pagemap.altmap();
        let ranges = pagemap.ranges();
        let mut is_split = true;
        for &range in ranges {
            is_split &= self.split_at_ends(table, pagemap, range);
        }
        if is_split && !self.pool_state.altmaps.any_other(altmap) {
            return self.retire(table, pagemap, ranges);
        }
        let mut offlined = Offlined::default();
        for &range in ranges {
            let apart = self.without_straddled_ends(&*table, range, altmap);
            let apart_frames = apart.map_or(0, PfnRange::frames);
            offlined.kept += range.frames().saturating_sub(apart_frames);
            if let Some(apart) = apart {
                offlined += self.unmap_own(table, pagemap, apart);
            }
        }
        offlined
    }

    /// Takes `pieces` offline, which can be unmapped as they are: withdraws them from readers, waits for
    /// a grace period, and unmaps them. What cannot be withdrawn for want of a frame is kept.
    fn retire<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        pieces: &[PfnRange],
    ) -> Offlined {
        let mut withdrawn = 0;
        for &piece in pieces {
            let pages = self.found_pages_around(&*table, piece);
            let Ok(spare) = self.prepare_to_withdraw(pages, pagemap.node()) else {
                break;
            };
            self.withdraw(pages, spare);
            withdrawn += 1;
        }
        self.readers.wait();
        let (goes, stays) = pieces.split_at_checked(withdrawn).unwrap_or_default();
        Offlined {
            kept: stays.iter().map(|piece| piece.frames()).sum(),
            ..self.remove(table, pagemap, goes)
        }
    }

    /// Unmaps `pieces`, which no reader finds any more, with all that is kept of them.
    pub(super) fn remove<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        pieces: &[PfnRange],
    ) -> Offlined {
        let mut offlined = Offlined::default();
        for &piece in pieces {
            let pages = self.whole_pages_around(&*table, piece);
            self.free_bits(pages);
            offlined.marked += self.forget_marks(piece);
        }
        self.unmap_pieces(table, pagemap.altmap(), pieces.iter().copied());
        offlined
    }

    /// Unmaps the descriptors of `frames`, except those that are in frames of another altmap than the
    /// pagemap's.
    fn unmap_own<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Offlined {
        let altmap = pagemap.altmap();
        let mut offlined = Offlined::default();
        let mut rest = Some(frames);
        while let Some(part) = rest {
            let (goes, later) = self.split_at_other_altmap(&*table, part, altmap);
            let apart = [goes, later].into_iter().flatten().map(PfnRange::frames);
            offlined.kept += part.frames().saturating_sub(apart.sum());
            if let Some(goes) = goes {
                offlined += self.retire(table, pagemap, &[goes]);
            }
            rest = later;
        }
        offlined
    }

    /// Two parts of `frames`: those before some whose descriptors, or packed heads, are in frames of
    /// another altmap than `altmap`, and those after these.
    fn split_at_other_altmap<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        altmap: Option<&dyn Altmap>,
    ) -> (Option<PfnRange>, Option<PfnRange>) {
        let start = frames.start().get();
        let (before, behind) = match self.head_in_other_altmap(table, frames, altmap) {
            Some((page, _)) => {
                let (before, from) = frames.split_at(page.start().get().saturating_sub(start));
                let behind = from.and_then(|from| from.split_at(page.frames()).1);
                (before, behind)
            }
            None => (Some(frames), None),
        };
        let Some(before) = before else {
            return (None, behind);
        };
        match self.split_at_other_frames(table, before, altmap) {
            (goes, Some(later)) => (goes, frames.split_at(later.start().get() - start).1),
            (goes, None) => (goes, behind),
        }
    }

    /// The same for descriptors in the vmemmap.
    fn split_at_other_frames<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        altmap: Option<&dyn Altmap>,
    ) -> (Option<PfnRange>, Option<PfnRange>) {
        let Some(range) = self.model.descriptors(frames) else {
            return (None, None);
        };
        let mut other = None;
        let _ = table.visit(range, &mut |visit| match visit {
            Visit::Leaves { at, run } | Visit::SharedTable { at, run, .. } => {
                let leaves = self.pool_state.altmaps.leaves_in_other(&run, altmap);
                other = leaves.map(|leaves| (at, leaves, run.leaf.block.order().frames()));
                match other {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            }
            Visit::Table { .. } => ControlFlow::Continue(()),
        });
        let Some((at, leaves, pages)) = other else {
            return (Some(frames), None);
        };
        let bytes = |leaves: u64| {
            let pages = leaves.saturating_mul(pages);
            pages.saturating_mul(self.model.granule().bytes())
        };
        let in_frames =
            |at: u64| at.saturating_sub(range.start().get()) / self.model.descriptor_bytes();
        let first = at.get().saturating_add(bytes(leaves.start));
        // By the last byte, since there may be no address after it.
        let last = at.get().saturating_add(bytes(leaves.end).saturating_sub(1));
        (
            frames.split_at(in_frames(first)).0,
            frames.split_at(in_frames(last).saturating_add(1)).1,
        )
    }

    /// The region of `pagemap`, all of which is online: memory that came online by pieces, or that
    /// another value had [online](Self::adopt).
    ///
    /// # Errors
    ///
    /// [`OfflineError`] where some of it is not online, or has its descriptors in frames of another
    /// altmap than the pagemap's.
    pub fn region<'p, P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'p>,
    ) -> Result<Region<'p>, OfflineError> {
        if *pagemap.model() != self.model {
            return Err(OfflineError::OtherModel);
        }
        for &piece in pagemap.ranges() {
            let range = self.model.descriptors(piece);
            let range = range.ok_or(OfflineError::PieceOutside { piece })?;
            self.check_online(table, range, pagemap.altmap())?;
        }
        Ok(self.region_of(table, pagemap))
    }

    /// Takes one piece of `pagemap` offline. A piece is whole subsections within one range of the
    /// pagemap, all of them online.
    ///
    /// Its descriptors are not in use any more: that is duty 1 of
    /// [`live_descriptor`](Self::live_descriptor). Pieces go offline in any order, those of the
    /// reserved part of an altmap too.
    ///
    /// This needs memory only where a huge leaf or a shared table maps the piece and more, and with
    /// [readers](crate::readers) where all of the span around it is online. The rest of a leaf or table is
    /// then mapped by a table of its own, if the page table can [exchange entries in
    /// use](crate::paging::InUse::replacement). Its translations do not change at any moment.
    ///
    /// # Errors
    ///
    /// [`OfflineError`], and nothing has changed.
    pub fn depopulate<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<Offlined, OfflineError> {
        if *pagemap.model() != self.model {
            return Err(OfflineError::OtherModel);
        }
        Plan::new(pagemap, piece, None).map_err(|error| piece_error(error, piece))?;
        let outside = OfflineError::PieceOutside { piece };
        let range = self.model.descriptors(piece).ok_or(outside)?;
        let straddlers = self.check_online(table, range, pagemap.altmap())?;
        self.check_thawed(&*table, piece)?;
        let pages = self.found_pages_around(&*table, piece);
        let mut spare = self
            .prepare_to_withdraw(pages, pagemap.node())
            .map_err(OfflineError::OutOfFrames)?;
        self.split_straddlers(table, pagemap, range, straddlers)
            .inspect_err(|_| self.free_spare(&mut spare))?;
        self.withdraw(pages, spare);
        self.readers.wait();
        Ok(self.remove(table, pagemap, &[piece]))
    }

    /// Checks that no page that is at least partly in `frames` is frozen.
    pub(super) fn check_thawed<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
    ) -> Result<(), OfflineError> {
        match self.first_frozen(table, frames) {
            Some(first) => Err(OfflineError::Frozen { first }),
            None => Ok(()),
        }
    }

    /// Checks that this library has mapped every page of `range` with frames of RAM or of `altmap`.
    /// Returns what reaches across the ends of the range.
    pub(super) fn check_online<P: PageTable>(
        &self,
        table: &P,
        range: VirtRange,
        altmap: Option<&dyn Altmap>,
    ) -> Result<Straddlers, OfflineError> {
        let page = self.model.granule().bytes();
        let mut next = Some(range.start());
        let mut straddlers = Straddlers::default();
        let mut other = None;
        let _ = table.visit(range, &mut |visit| {
            let Some((at, run, straddler)) = Straddler::of(visit) else {
                return ControlFlow::Continue(());
            };
            if run.leaf.role == Role::Foreign || next.is_none_or(|next| at > next) {
                return ControlFlow::Break(());
            }
            other = self.pool_state.altmaps.other_altmap_of(&run, altmap);
            let Ok(span) = VirtRange::new(at, run.pages().saturating_mul(page)) else {
                return ControlFlow::Break(());
            };
            if other.is_some() {
                return ControlFlow::Break(());
            }
            straddlers.meet(straddler, span, range);
            next = span.last().checked_add(1);
            ControlFlow::Continue(())
        });
        match (other, next) {
            (Some(reserved), _) => Err(OfflineError::OtherAltmap { reserved }),
            (None, Some(at)) if at <= range.last() => Err(OfflineError::NotOnline { at }),
            _ => match self.other_altmap_of_heads(table, range, altmap) {
                Some(reserved) => Err(OfflineError::OtherAltmap { reserved }),
                None => Ok(straddlers),
            },
        }
    }

    /// What an altmap other than `own` reserves, if packed heads of pages that begin where `range` describes are in
    /// frames of it.
    fn other_altmap_of_heads<P: PageTable>(
        &self,
        table: &P,
        range: VirtRange,
        own: Option<&dyn Altmap>,
    ) -> Option<PfnRange> {
        let [first, last] =
            [range.start(), range.last()].map(|at| self.model.frame_of_descriptor(at));
        let (first, last) = (first?, last?);
        let frames = PfnRange::new(first, last.get().checked_sub(first.get())? + 1).ok()?;
        let (_, reserved) = self.head_in_other_altmap(table, frames, own)?;
        Some(reserved)
    }

    /// Unmaps the descriptors of `pieces` and releases their frames.
    pub(super) fn unmap_pieces<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        pieces: impl Iterator<Item = PfnRange> + Clone,
    ) {
        let model = self.model;
        let all = pieces.clone();
        let ranges = pieces.filter_map(move |piece| model.descriptors(piece));
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let records = RecordsInUse::new(memory, &mut self.table_records);
        let mut pool = FramePool::new(memory, altmap, &mut self.pool_state);
        let most = self.model.granule().entries_per_table() as u64;
        // SAFETY: 1: the frames of the ranges came from this pool. 2: the page table reports them after the
        // flush (duty 4 of `PageTable`).
        let mut released = unsafe { Releases::new(&mut pool, most) };
        // SAFETY: 1: the descriptors are not in use: after a failure nobody has seen them, `&mut self`
        // ends all that `descriptor` handed out, and duty 1 of `live_descriptor` all others. 2: the
        // ranges are whole pages of the vmemmap, and the records its own.
        unsafe { table.unmap(ranges, &mut released, &records) };
        released.finish();
        self.remove_heads(table, altmap, all);
    }
}

/// Why `piece` is no piece of a pagemap.
pub(super) fn piece_error(error: OnlineError, piece: PfnRange) -> OfflineError {
    match error {
        OnlineError::PieceMisaligned { piece, subsection } => {
            OfflineError::PieceMisaligned { piece, subsection }
        }
        _ => OfflineError::PieceOutside { piece },
    }
}
