//! Fold and unfold, for memory that is online. Fold makes the tails of compound pages share frames.
//! Unfold gives each vmemmap page a frame of its own again.
//!
//! ```text
//!                      | head | tail | tail | tail | tail | tail | tail | tail |
//!   unfolded           |  A      B      C      D      E      F      G      H   |   or within a huge leaf
//!   folded, per compound  A      B      B      B      B      B      B      B       C to H freed
//!   folded, per order  |  A      T      T      T      T      T      T      T   |   B to H freed
//! ```
//!
//! A [`DevPagemap`] says how the memory is used *now*. The pagemap that it was brought online with
//! may have said base pages.
//!
//! Both are [changes of order](super::reorder) that keep what is there, with frames of the allocator in
//! place of the reserve's. `survey` looks at what is mapped before, counts, and refuses what cannot be
//! changed.

mod error;
mod frozen;
mod survey;

pub use error::FoldError;
pub(super) use frozen::Units;
pub(super) use frozen::not_online;
pub use frozen::{Change, Changed, FrozenUnits, QuiescentUnits};

use super::Vmemmap;
use super::descriptor_writer::DescriptorWriter;
use super::huge_leaf::has_room_for_leaf;
use super::note::Notes;
use super::reorder::{
    Change as OrderChange, Describe, Leaves, Target, UnitWriter, aligned, rewrite_descriptors,
};
use crate::addr::{PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Reshape, TailEncoding};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Tables, Tails};
use crate::paging::{InUse, PageTable, Replacement};
use crate::readers::ReadersOf;

/// What a fold or an unfold has done.
#[must_use = "not everything may have been done as asked; see the notes"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many compound pages were folded, or unfolded.
    pub changed: u64,
    /// How many were folded, or unfolded, before, or could not be changed.
    pub unchanged: u64,
    /// How many flushes that took.
    pub flushes: u64,
    /// What was done otherwise than asked.
    pub notes: Notes,
}

impl Folded {
    /// Adds what another call has done.
    fn add(&mut self, other: &Self) {
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.flushes += other.flushes;
        self.notes.add(&other.notes);
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Maps the tails of the compound pages in `frames` to shared frames, in the way that `pagemap`
    /// says, and frees the frames that are not needed any more.
    ///
    /// `frames` are whole compound pages of the pagemap's order, within one of its ranges. They are
    /// online, however they were brought online. They are not in the reserved part of an altmap.
    ///
    /// The kernel has made them compound pages before: the tails lose their contents, except for those
    /// that are in the same vmemmap page as the head. The head and these tails keep everything but
    /// their word and order. (Who stores to descriptors meanwhile, or afterwards by a reference from
    /// before, breaks duty 3 or 4 of [`live_descriptor`](Self::live_descriptor).) While this runs,
    /// descriptors of `frames` may be read: a tail reads as before or as after. Compound pages
    /// whose tails are shared already, per compound page or per order, stay as they are, and so do those
    /// whose tails need more references than the allocator can count, which is noted.
    ///
    /// If the pagemap shares tables, leaf tables of `frames` that hold only one tail frame are
    /// merged afterwards.
    ///
    /// This needs a table for each huge leaf that `frames` touch. Where tails are shared per order,
    /// it also needs one frame for the first compound page of an order and node.
    ///
    /// ```
    /// use mm_core::addr::{Granule, PfnRange};
    /// use mm_core::descriptor::{Mask, Page};
    /// use mm_core::frame::{DirectMap, FrameAllocator};
    /// use mm_core::pagemap::{DevPagemap, Geometry};
    /// use mm_core::paging::PageTable;
    /// use mm_core::vmemmap::{FoldError, Vmemmap};
    ///
    /// /// `frames` are used in pages of 2 MiB from now on. Says how many pages share their tails.
    /// fn fold_2m<A: FrameAllocator, M: DirectMap>(
    ///     vmemmap: &mut Vmemmap<Page<Mask>, A, M>,
    ///     table: &mut impl PageTable,
    ///     frames: PfnRange,
    /// ) -> Result<u64, FoldError> {
    ///     let outside = FoldError::Outside { frames };
    ///     let pages = Geometry::from_bytes(2 << 20, Granule::Size4K).ok_or(outside)?;
    ///     let pagemap = DevPagemap::of_range(vmemmap.model(), frames, pages).map_err(|_| outside)?;
    ///     Ok(vmemmap.fold(table, &pagemap, frames)?.changed)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FoldError`], and nothing has changed. [`SplitsPage`](FoldError::SplitsPage) only where there are
    /// readers.
    pub fn fold<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError>
    where
        D: Reshape,
    {
        self.prepare_to_be_found(table, pagemap, frames)?;
        let folded = self.fold_online(table, pagemap, frames);
        self.found_if(folded.is_ok(), table, pagemap, frames);
        folded
    }

    /// [`fold`](Self::fold), whatever readers find.
    fn fold_online<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError>
    where
        D: Reshape,
    {
        let order = pagemap.geometry().order();
        let range = self.check_request(pagemap, frames)?;
        self.check_in_place(table, pagemap, frames)?;
        match pagemap.tails() {
            (Tails::None, fallback) => return Err(FoldError::NothingToShare(fallback)),
            (Tails::PerOrder, _) if !D::Encoding::SAME_FOR_ALL => {
                return Err(FoldError::TailsDiffer);
            }
            _ => {}
        }
        if table.replacement() == Replacement::Refused {
            return Err(FoldError::Refused);
        }
        let survey = self.survey(table, range, order, pagemap.altmap())?;
        let mut folded = Folded {
            unchanged: survey.folded,
            ..Folded::default()
        };
        if survey.unfolded > 0 {
            let target = target_of(pagemap, frames);
            let change = OrderChange {
                target: &target,
                unit: frames,
                range,
                leaf: None,
                describe: Describe::Kept,
            };
            match self.change::<P, true>(table, pagemap, &change, &mut folded.notes) {
                Ok(changed) => {
                    folded.flushes = changed.flushes;
                    folded.changed = survey.unfolded - changed.uncounted;
                    folded.unchanged += changed.uncounted;
                }
                Err(FoldError::Uncounted { .. }) => {
                    folded.unchanged += survey.unfolded;
                    return Ok(folded);
                }
                Err(error) => return Err(error),
            }
        }
        folded.flushes += self.share_folded(table, pagemap, frames);
        Ok(folded)
    }

    /// Merges equal leaf tables of `frames` if the pagemap shares tables. `frames` are folded, on a
    /// page table that can exchange entries in use. Returns how many flushes that took.
    fn share_folded<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> u64 {
        match pagemap.tables_on(table.can_share_tables()).0 {
            // SAFETY: 1: it can exchange them.
            Tables::Shared => unsafe { self.share_tables(table, pagemap, frames) },
            Tables::Private => 0,
        }
    }

    /// Gives each vmemmap page of the compound pages in `frames` a frame of its own again, with the
    /// descriptors that it shows now. Restores a huge leaf of vmemmap where `frames` cover all of
    /// it and the pagemap wants it. `frames` are as for [`fold`](Self::fold).
    ///
    /// The frames are still compound pages afterwards. When the kernel splits one, it calls
    /// [`reshape`](Self::reshape).
    ///
    /// While this runs, contents of descriptors of `frames` are copied, so nobody stores to them: that
    /// is duty 3 of [`live_descriptor`](Self::live_descriptor). They may be read. Compound pages whose tails are not shared stay as they are, except for the
    /// huge leaves: to unfold a larger range once more restores huge leaves that unfolding it part
    /// by part could not restore.
    ///
    /// If there is no block for a huge leaf, single frames are used, and that is noted.
    ///
    /// # Errors
    ///
    /// [`FoldError`], and nothing has changed.
    pub fn unfold<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError>
    where
        D: Reshape,
    {
        self.check_request(pagemap, frames)?;
        self.check_unfrozen(&*table, frames)?;
        self.unfold_online(table, pagemap, frames)
    }

    /// [`unfold`](Self::unfold), also what is frozen.
    fn unfold_online<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError>
    where
        D: Reshape,
    {
        let order = pagemap.geometry().order();
        let range = self.check_request(pagemap, frames)?;
        self.check_in_place(table, pagemap, frames)?;
        if table.replacement() == Replacement::Refused {
            return Err(FoldError::Refused);
        }
        let survey = self.survey(table, range, order, pagemap.altmap())?;
        let mut folded = Folded {
            changed: survey.folded,
            unchanged: survey.unfolded,
            ..Folded::default()
        };
        let leaf = self.leaf_to_come_back(&*table, pagemap);
        let granule = self.model.granule();
        // What takes nothing needs no altmap either.
        if survey.folded == 0
            && !leaf.is_some_and(|leaf| has_room_for_leaf(&*table, range, leaf, granule))
        {
            return Ok(folded);
        }
        self.check_altmap(&*table, pagemap.altmap())?;
        let own = pagemap.with_tails(Tails::None);
        let target = target_of(&own, frames);
        let change = OrderChange {
            target: &target,
            unit: frames,
            range,
            leaf,
            describe: Describe::Unchanged,
        };
        let changed = self.change::<P, true>(table, pagemap, &change, &mut folded.notes);
        folded.flushes = changed?.flushes;
        Ok(folded)
    }

    /// Makes the descriptors of `frames` parts of pages of the pagemap's order: heads and tails, or
    /// base pages. Whatever else the kernel keeps in them stays. `frames` are whole pages of that
    /// order, within one of the pagemap's ranges, and online.
    ///
    /// This is for a kernel that splits unfolded compound pages, or makes compound pages of base
    /// pages without sharing tails.
    ///
    /// # Errors
    ///
    /// [`FoldError`], and nothing has changed. [`OtherTails`](FoldError::OtherTails) where tails
    /// are shared; also where `frames` have the head only, and the tails after them are shared.
    /// [`SplitsPage`](FoldError::SplitsPage) only where there are readers.
    pub fn reshape<P: PageTable>(
        &mut self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        self.prepare_to_be_found(table, pagemap, frames)?;
        let reshaped = self.reshape_online(table, pagemap, frames);
        self.found_if(reshaped.is_ok(), table, pagemap, frames);
        reshaped
    }

    /// [`reshape`](Self::reshape), whatever readers find.
    fn reshape_online<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        let order = pagemap.geometry().order();
        let range = self.check_request(pagemap, frames)?;
        self.check_in_place(table, pagemap, frames)?;
        let survey = self.survey(table, range, order, pagemap.altmap())?;
        let tails = match survey.folded {
            0 => self.tails_after(table, frames),
            _ => self.first_tail(table, range, order),
        };
        if let Some(at) = tails {
            return Err(FoldError::OtherTails { at });
        }
        let own = pagemap.with_tails(Tails::None);
        let writer = UnitWriter {
            writer: &DescriptorWriter::of(pagemap, &self.model, &self.direct_map),
            target: &target_of(&own, frames),
            unit: frames,
            describe: Describe::Kept,
        };
        rewrite_descriptors::<D, M, P>(table, range, &writer, Leaves::All);
        Ok(())
    }

    /// Takes what it needs so that readers find `frames` when they are pages of another order, and checks
    /// that no page is partly in them: its other part would have a head that is no longer there. After an
    /// error nothing has changed.
    fn prepare_to_be_found<P: PageTable>(
        &mut self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), FoldError> {
        if self.readers.map().is_none() {
            return Ok(());
        }
        self.check_whole(table, pagemap, frames)?;
        self.check_in_place(table, pagemap, frames)?;
        self.check_unfrozen(table, frames)?;
        self.prepare_to_publish(frames, pagemap.node())
            .map_err(FoldError::OutOfFrames)
    }

    /// Checks that no page that is at least partly in `frames` is frozen.
    pub(super) fn check_unfrozen<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
    ) -> Result<(), FoldError> {
        match self.first_frozen(table, frames) {
            Some(first) => Err(FoldError::Frozen { first }),
            None => Ok(()),
        }
    }

    /// Checks that `frames` are a valid request, online, and whole pages.
    fn check_whole<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), FoldError> {
        let range = self.check_request(pagemap, frames)?;
        self.check_online(table, range, pagemap.altmap())
            .map_err(not_online)?;
        match self.whole_pages_around(table, frames) {
            pages if pages != frames => Err(FoldError::SplitsPage { pages }),
            _ => Ok(()),
        }
    }

    /// Readers find the pages of `frames` if they have `changed`, also where these were parts of pages of
    /// which more was missing. What was prepared and is not needed goes back.
    fn found_if<P: PageTable>(
        &mut self,
        changed: bool,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) {
        if changed {
            self.publish_pages(table, pagemap.geometry().order(), frames);
        }
        self.free_bits(frames);
    }

    /// The addresses of the descriptors of `frames`, if the request is valid.
    fn check_request(
        &self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<VirtRange, FoldError> {
        if *pagemap.model() != self.model {
            return Err(FoldError::OtherModel);
        }
        let order = pagemap
            .geometry()
            .order()
            .max(self.model.vmemmap_page_order());
        if !frames.is_aligned(order) {
            return Err(FoldError::Misaligned { frames, order });
        }
        let outside = FoldError::Outside { frames };
        pagemap.range_of(frames).ok_or(outside)?;
        match pagemap.altmap().map(Altmap::reserved) {
            Some(reserved) if reserved.overlaps(frames) => {
                return Err(FoldError::Reserved { reserved });
            }
            _ => {}
        }
        self.model.descriptors(frames).ok_or(outside)
    }
}

/// What `frames` become. Tables are merged afterwards, also those of pages that are folded already.
fn target_of<'p>(pagemap: &'p DevPagemap<'p>, frames: PfnRange) -> Target<'p> {
    let order = pagemap.geometry().order();
    let ends = [frames.start(), frames.last()].map(|frame| aligned(frame, order));
    Target::new(pagemap, frames, ends, false)
}
