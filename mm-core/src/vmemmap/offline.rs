//! Takes memory offline. Undoing a failed operation uses the same code.

use super::Vmemmap;
use super::error::{OfflineError, OnlineError};
use super::frame_pool::FramePool;
use super::memory_of;
use super::note::Notes;
use super::plan::Plan;
use super::region::{Offlined, Region};
use super::split::{Straddler, Straddlers};
use super::table_records::RecordsInUse;
use crate::addr::{PfnRange, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{PageTable, Role, Visit};
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// Takes all of `region` offline. Its entries are cleared and flushed, and then its frames go
    /// back to where they came from. Parts that are offline already are skipped. Marks of its
    /// frames are removed and counted.
    ///
    /// No descriptor of the region may be in use any more: see the duties of
    /// [`live_descriptor`](Self::live_descriptor). Memory that has come online in a gap of
    /// the region since then goes offline too. It stays online if its descriptors are in frames of
    /// an altmap that is not the region's.
    ///
    /// It needs memory in one case only: a huge leaf or a shared table
    /// reaches across an end of one of the ranges. That happens where memory came online, was
    /// folded or was unfolded across that end. The part outside of the region then needs a table of
    /// its own. If there is no frame for it, all that the huge leaf or shared table maps stays
    /// online.
    ///
    /// The reserved part of an altmap stays online as long as its frames hold descriptors of memory
    /// outside the region.
    ///
    /// [`Offlined::kept`] says how many frames stay online. [`depopulate`](Self::depopulate) takes
    /// them offline later.
    ///
    /// # Errors
    ///
    /// [`OfflineError::OtherModel`] where the region is another vmemmap's. It stays online there,
    /// and goes offline by pieces. There is no other error.
    pub fn offline<P: PageTable>(
        &mut self,
        table: &mut P,
        region: Region<'_>,
    ) -> Result<Offlined, OfflineError> {
        let pagemap = region.pagemap;
        if *pagemap.model() != self.model {
            return Err(OfflineError::OtherModel);
        }
        Ok(self.take_offline(table, &pagemap))
    }

    /// Takes all of `pagemap` offline that is online.
    #[inline(never)]
    fn take_offline<P: PageTable>(&mut self, table: &mut P, pagemap: &DevPagemap<'_>) -> Offlined {
        let altmap = pagemap.altmap();
        let ranges = pagemap.ranges().iter().copied();
        let mut is_split = true;
        for range in ranges.clone() {
            is_split &= self.split_at_ends(table, pagemap, range);
        }
        if is_split && !self.pool_state.altmaps.any_other(altmap) {
            let stays = self.unmap_pieces(table, altmap, ranges.clone());
            return ranges.map(|range| self.offlined(range, stays)).sum();
        }
        let reserved = altmap.map(Altmap::reserved);
        let mut offlined = Offlined::default();
        let mut last = None;
        for range in ranges {
            let apart = self.without_straddled_ends(&*table, range, altmap);
            let apart_frames = apart.map_or(0, PfnRange::frames);
            offlined.kept += range.frames().saturating_sub(apart_frames);
            let Some(apart) = apart else { continue };
            last = last.or(reserved.and_then(|reserved| apart.intersection(reserved)));
            if let Some(others) = without_reserved(apart, reserved) {
                offlined += self.unmap_own(table, altmap, others);
            }
        }
        if let Some(last) = last {
            offlined += self.unmap_own(table, altmap, last);
        }
        offlined
    }

    /// Unmaps the descriptors of `frames`, except those that are in frames of another altmap than
    /// `altmap`.
    fn unmap_own<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        frames: PfnRange,
    ) -> Offlined {
        let mut offlined = Offlined::default();
        let mut rest = Some(frames);
        while let Some(part) = rest {
            let (goes, later) = self.split_at_other_altmap(&*table, part, altmap);
            if let Some(goes) = goes {
                let stays = self.unmap_pieces(table, altmap, core::iter::once(goes));
                offlined += self.offlined(goes, stays);
            }
            rest = later;
        }
        offlined
    }

    /// What it means that `piece` went offline, except for the part that `stays`. Removes the
    /// marks.
    fn offlined(&mut self, piece: PfnRange, stays: Option<PfnRange>) -> Offlined {
        let goes = without_reserved(piece, stays);
        let frames = goes.map_or(0, PfnRange::frames);
        Offlined {
            marked: goes.map_or(0, |goes| self.forget_marks(goes)),
            kept: piece.frames().saturating_sub(frames),
        }
    }

    /// Two parts of `frames`: those before the first ones whose descriptors are in frames of
    /// another altmap than `altmap`, and those after these.
    fn split_at_other_altmap<P: PageTable>(
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
        let huge_leaf = self.huge_leaf_of(table, pagemap);
        let mut region = Region {
            pagemap: *pagemap,
            tables: pagemap.tables_on(table.can_share_tables()).0,
            notes: Notes::known_ahead(pagemap, huge_leaf, table.can_share_tables()),
        };
        self.note_whole_blocks(table, pagemap, &mut region.notes);
        Ok(region)
    }

    /// Takes one piece of `pagemap` offline. A piece is whole subsections within one range of the
    /// pagemap, all of them online.
    ///
    /// No descriptor of the piece may be in use any more. Pieces go offline in any order, except
    /// for the reserved part of an altmap: it goes last, from its end on. It stays online
    /// ([`Offlined::kept`]) as long as its frames hold descriptors of memory outside the pagemap.
    ///
    /// This needs memory only where a huge leaf or a shared table maps the piece and more. The rest
    /// is then mapped by a table of its own, if the page table can [exchange entries in
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
        let outside = OfflineError::PieceOutside { piece };
        match Plan::new(pagemap, piece, None) {
            Ok(_) => {}
            Err(OnlineError::PieceMisaligned { piece, subsection }) => {
                return Err(OfflineError::PieceMisaligned { piece, subsection });
            }
            Err(_) => return Err(outside),
        }
        let range = self.model.descriptors(piece).ok_or(outside)?;
        let straddlers = self.check_online(table, range, pagemap.altmap())?;
        self.check_reserved_last(table, pagemap, piece)?;
        self.split_straddlers(table, pagemap, range, straddlers)?;
        let stays = self.unmap_pieces(table, pagemap.altmap(), core::iter::once(piece));
        Ok(self.offlined(piece, stays))
    }

    /// If `piece` has some of the reserved part of an altmap: checks that no other memory that
    /// needs the reserved part is online.
    fn check_reserved_last<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<(), OfflineError> {
        let reserved = pagemap.altmap().map(Altmap::reserved);
        if !reserved.is_some_and(|reserved| reserved.overlaps(piece)) {
            return Ok(());
        }
        // The first range starts with the reserved part, so what lies before the piece is reserved too.
        let after = |range: PfnRange| match range.contains_range(piece) {
            true => {
                range
                    .split_at(piece.last().get() - range.start().get() + 1)
                    .1
            }
            false => Some(range),
        };
        let others = pagemap.ranges().iter().copied().filter_map(after);
        match others.into_iter().find(|part| self.is_online(table, *part)) {
            Some(online) => Err(OfflineError::ReservedLast { online }),
            None => Ok(()),
        }
    }

    /// Whether this library has mapped a descriptor of `frames`.
    fn is_online<P: PageTable>(&self, table: &P, frames: PfnRange) -> bool {
        let Some(range) = self.model.descriptors(frames) else {
            return false;
        };
        table
            .visit(range, &mut |visit| match visit {
                Visit::Leaves { run, .. } if run.leaf.role == Role::Foreign => {
                    ControlFlow::Continue(())
                }
                Visit::Leaves { .. } | Visit::SharedTable { .. } => ControlFlow::Break(()),
                Visit::Table { .. } => ControlFlow::Continue(()),
            })
            .is_break()
    }

    /// Checks that this library has mapped every page of `range` with frames of RAM or of `altmap`.
    /// Returns what reaches across the ends of the range.
    fn check_online<P: PageTable>(
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
            _ => Ok(straddlers),
        }
    }

    /// Unmaps the descriptors of `pieces` and releases their frames. The reserved part of an altmap
    /// goes last, since it holds the counts of the altmap's frames. If any of these frames is still
    /// in use then, the reserved part stays online and is returned.
    pub(super) fn unmap_pieces<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        pieces: impl Iterator<Item = PfnRange> + Clone,
    ) -> Option<PfnRange> {
        let model = self.model;
        let Some(altmap) = altmap else {
            let ranges = pieces.filter_map(move |piece| model.descriptors(piece));
            self.unmap_ranges(table, None, ranges);
            return None;
        };
        let reserved = altmap.reserved();
        let others = pieces
            .clone()
            .filter_map(move |piece| without_reserved(piece, Some(reserved)))
            .filter_map(move |part| model.descriptors(part));
        self.unmap_ranges(table, Some(altmap), others);
        if altmap.serves_others() {
            return Some(reserved);
        }
        let last = pieces
            .filter_map(move |piece| piece.intersection(reserved))
            .filter_map(move |part| model.descriptors(part));
        self.unmap_ranges(table, Some(altmap), last);
        self.pool_state.altmaps.remove_unused(altmap);
        None
    }

    /// Unmaps `ranges` of the vmemmap and releases their frames.
    fn unmap_ranges<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        ranges: impl Iterator<Item = VirtRange> + Clone,
    ) {
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let records = RecordsInUse::new(memory, &mut self.table_records);
        let mut pool = FramePool::new(memory, altmap, &mut self.pool_state);
        // SAFETY: 1: the descriptors are not in use: after a failure nobody has seen them, and
        // `&mut self` ends all that were handed out. 2: the ranges are whole pages that
        // were mapped by `map_runs`.
        unsafe {
            table.unmap(
                ranges,
                &mut |run| {
                    // SAFETY: 1: the frames of the ranges came from this pool. 2: the page table
                    // reports them after the flush (duty 4 of `PageTable`).
                    pool.release_run(run)
                },
                &records,
            );
        }
    }
}

/// `frames` without the reserved part of an altmap. That is the start of a range, so `frames` reach
/// beyond it on one side only.
fn without_reserved(frames: PfnRange, reserved: Option<PfnRange>) -> Option<PfnRange> {
    match reserved {
        Some(reserved) if reserved.overlaps(frames) => {
            let behind = reserved.last().get().saturating_sub(frames.start().get());
            frames.split_at(behind.saturating_add(1)).1
        }
        _ => Some(frames),
    }
}
