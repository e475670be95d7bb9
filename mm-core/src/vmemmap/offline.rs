//! Taking memory offline, and undoing what failed half-way: the same way back for both.

use super::Vmemmap;
use super::error::{OfflineError, OnlineError};
use super::plan::Plan;
use super::pool::Pool;
use super::region::{Offlined, Region};
use crate::addr::{PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{MapError, PageTable, Role, Visit};
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// Takes all of `region` offline: its entries are cleared, CPUs forget them, and then its
    /// frames go back to where they came from. Parts that were taken offline before are passed
    /// over. Marks of its frames go with it, and are counted.
    ///
    /// No descriptor of the region may be in use any more. Cannot fail, and needs no memory.
    pub fn offline<P: PageTable>(&mut self, table: &mut P, region: Region<'_>) -> Offlined {
        let pagemap = region.pagemap;
        let ranges = pagemap.ranges().iter().copied();
        self.unmap_pieces(table, pagemap.altmap(), ranges.clone());
        Offlined {
            marked: ranges.map(|range| self.forget_marks(range)).sum(),
        }
    }

    /// Takes one piece of `pagemap` offline: whole subsections within one of its ranges, all of
    /// them online.
    ///
    /// No descriptor of the piece may be in use any more. Pieces go in any order, but the reserved
    /// part of an altmap goes last, from its end on. Needs memory only where the piece is a
    /// part of what a shared table maps, which then needs a table of its own for the rest.
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
        self.check_online(table, range)?;
        self.check_reserved_last(table, pagemap, piece)?;
        let mut pool = Pool {
            ram: &self.frames,
            altmap: pagemap.altmap(),
            registry: &mut self.registry,
        };
        table
            .unshare_tables(range, pagemap.node(), &mut pool)
            .map_err(|error| match error {
                MapError::OutOfFrames(error) => OfflineError::OutOfFrames(error),
                _ => OfflineError::NotOnline { at: range.start() },
            })?;
        self.unmap_pieces(table, pagemap.altmap(), core::iter::once(piece));
        Ok(Offlined {
            marked: self.forget_marks(piece),
        })
    }

    /// Checks that nothing is online but `piece` that the reserved part of an altmap is needed for,
    /// if `piece` has some of that.
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
        // What lies before the piece is reserved as well, since that is where the first range
        // starts.
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

    /// Checks that this library has mapped every page of `range`, by leaves that lie within it.
    fn check_online<P: PageTable>(&self, table: &P, range: VirtRange) -> Result<(), OfflineError> {
        let page = self.model.granule().bytes();
        let mut next = Some(range.start());
        let mut refused = None;
        let _ = table.visit(range, &mut |visit| {
            let (at, run) = match visit {
                Visit::Leaves { at, run } => (at, run),
                // Reported whole, and can be split.
                Visit::SharedTable { at, run, .. } if at <= next.unwrap_or(at) => {
                    let bytes = run.pages().saturating_mul(page);
                    next = at.checked_add(bytes);
                    return ControlFlow::Continue(());
                }
                Visit::SharedTable { .. } => return ControlFlow::Break(()),
                Visit::Table { .. } => return ControlFlow::Continue(()),
            };
            if run.leaf.role == Role::Foreign || at > next.unwrap_or(at) {
                return ControlFlow::Break(());
            }
            let leaves = VirtRange::new(at, run.pages().saturating_mul(page));
            let within = |leaves: VirtRange| at >= range.start() && leaves.last() <= range.last();
            match leaves {
                Ok(leaves) if within(leaves) => next = leaves.last().checked_add(1),
                _ => {
                    refused = Some(OfflineError::SplitsHugeLeaf { at });
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        let reached_end = next.is_none_or(|next: VirtAddr| next > range.last());
        match (refused, next) {
            (Some(error), _) => Err(error),
            (None, Some(at)) if !reached_end => Err(OfflineError::NotOnline { at }),
            _ => Ok(()),
        }
    }

    /// Unmaps the descriptors of `pieces` and gives their frames back; what an altmap reserves goes
    /// last, since the counts of its frames are there.
    pub(super) fn unmap_pieces<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        pieces: impl Iterator<Item = PfnRange> + Clone,
    ) {
        let model = self.model;
        let Some(reserved) = altmap.map(Altmap::reserved) else {
            let ranges = pieces.filter_map(move |piece| model.descriptors(piece));
            return self.unmap_ranges(table, altmap, ranges);
        };
        // The reserved part is the start of a range, so a piece goes beyond it on one side only.
        let end = reserved.start().get() + reserved.frames();
        let others = pieces
            .clone()
            .filter_map(move |piece| match piece.overlaps(reserved) {
                true => piece.split_at(end.saturating_sub(piece.start().get())).1,
                false => Some(piece),
            })
            .filter_map(move |part| model.descriptors(part));
        self.unmap_ranges(table, altmap, others);
        let last = pieces
            .filter_map(move |piece| piece.intersection(reserved))
            .filter_map(move |part| model.descriptors(part));
        self.unmap_ranges(table, altmap, last);
    }

    /// Unmaps `ranges` of the vmemmap and gives their frames back.
    fn unmap_ranges<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        ranges: impl Iterator<Item = VirtRange> + Clone,
    ) {
        let mut pool = Pool {
            ram: &self.frames,
            altmap,
            registry: &mut self.registry,
        };
        // SAFETY: 1: the descriptors are not in use: after a failure nobody has seen them, and
        // `&mut self` ends all that were handed out. 2: the ranges are whole pages that
        // were mapped by `map_runs`.
        unsafe {
            table.unmap(ranges, &mut |run| {
                // SAFETY: 1: the frames of the ranges came from this pool. 2: the page table
                // reports them after the flush (duty 4 of `PageTable`).
                pool.release_run(run)
            });
        }
    }
}
