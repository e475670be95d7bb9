//! Takes memory offline that others may have references to: frozen first, or refused.
//!
//! ```text
//!   freeze            every count is frozen, bits are withdrawn       under the vmemmap's lock
//!     ▼
//!   Frozen            wait for a grace period                         without any lock
//!     ▼                                              dropped: thawed, on any CPU, without a lock
//!   Quiescent
//!     ▼
//!   commit            entries are cleared, frames freed               under the vmemmap's lock
//! ```

use super::Vmemmap;
use super::error::OfflineError;
use super::frozen_pages::{begin_freeze, end_freeze, freeze_pages, thaw_pages};
use super::offline::piece_error;
use super::plan::Plan;
use super::region::Offlined;
use crate::addr::PfnRange;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::PageTable;
use crate::readers::{CountReferences, GracePeriod, Kernel, Reader, Readers};
use core::fmt;
use core::mem;

/// Memory that is frozen to go offline: nobody takes references to its pages, and nobody finds them.
///
/// A reader may still be about to look at it, so a grace period has to pass: [`wait`](Self::wait).
/// Dropping it thaws the memory: it is as it was before. That needs no lock and no memory, and any CPU
/// may do it. Forgotten ([`core::mem::forget`]), the memory stays online, frozen and unseen for good.
#[must_use = "dropping it thaws the memory; wait, and give it to `Vmemmap::commit`"]
pub struct Frozen<'r, 'p, D: CountReferences, K: Kernel> {
    reader: Reader<'r, D, K>,
    pagemap: DevPagemap<'p>,
    frames: PfnRange,
    references: u32,
}

impl<D: CountReferences, K: Kernel> fmt::Debug for Frozen<'_, '_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl<'r, 'p, D: CountReferences, K: Kernel> Frozen<'r, 'p, D, K> {
    /// The frames.
    pub const fn frames(&self) -> PfnRange {
        self.frames
    }

    /// Waits until all who were reading are done, by the kernel's [`GracePeriod`]. Call it without the
    /// lock of the vmemmap.
    pub fn wait(self) -> Quiescent<'r, 'p, D, K> {
        self.reader.readers().kernel().grace().wait();
        Quiescent(self)
    }

    /// The same, where the caller has waited: by a call-back, say.
    ///
    /// # Safety
    ///
    /// 1. A grace period has passed since the memory was frozen.
    pub unsafe fn after_grace_period(self) -> Quiescent<'r, 'p, D, K> {
        Quiescent(self)
    }

    /// What of the frames is no page: an altmap's frames.
    fn reserved(&self) -> Option<PfnRange> {
        self.pagemap.altmap().map(Altmap::reserved)
    }
}

impl<D: CountReferences, K: Kernel> Drop for Frozen<'_, '_, D, K> {
    fn drop(&mut self) {
        let readers = self.reader.readers();
        let map = readers.online_map();
        // Before the pages are thawed: a reader that has looked at the bits before they were withdrawn may
        // take a reference as soon as they are, and has to find its page then.
        for part in map.parts(self.frames) {
            part.publish(readers.kernel().direct_map());
        }
        thaw_pages(&self.reader, self.frames, self.reserved(), self.references);
        end_freeze(map, self.frames);
    }
}

/// Frozen memory that no reader is looking at any more.
#[must_use = "dropping it thaws the memory; give it to `Vmemmap::commit`"]
#[derive(Debug)]
pub struct Quiescent<'r, 'p, D: CountReferences, K: Kernel>(Frozen<'r, 'p, D, K>);

impl<D: CountReferences, K: Kernel> Quiescent<'_, '_, D, K> {
    /// The frames.
    pub const fn frames(&self) -> PfnRange {
        self.0.frames
    }
}

impl<'r, D: CountReferences, A: FrameAllocator, M: DirectMap, K: Kernel>
    Vmemmap<D, A, M, Readers<'r, K>>
{
    /// Freezes `frames` of `pagemap` to take them offline. They are whole subsections and whole pages
    /// within one of its ranges, and each page has `references` references, all of them the caller's.
    ///
    /// It neither waits nor changes an entry. Between this and [`commit`](Self::commit) the vmemmap may
    /// be used for everything else, and other memory may be frozen too. What is frozen is refused to other
    /// operations. What an altmap reserves is no page, and is not counted.
    ///
    /// # Errors
    ///
    /// [`OfflineError::Busy`] where a page has other references, [`OfflineError::Frozen`] where one is
    /// frozen already, [`OfflineError::TooManyFrozen`], and the other [`OfflineError`]s of
    /// [`depopulate`](Self::depopulate). Nothing has changed then.
    ///
    /// # Safety
    ///
    /// 1. The duties of [`reader`](Self::reader), for what is returned.
    /// 2. The `references` of each page are the caller's. It neither uses them nor gives them back, as
    ///    [`PageReference`](crate::readers::PageReference) or otherwise, until the memory is thawed, and
    ///    never if it goes offline.
    pub unsafe fn freeze<'p, P: PageTable>(
        &mut self,
        table: &P,
        pagemap: &DevPagemap<'p>,
        frames: PfnRange,
        references: u32,
    ) -> Result<Frozen<'r, 'p, D, K>, OfflineError> {
        if *pagemap.model() != self.model {
            return Err(OfflineError::OtherModel);
        }
        Plan::new(pagemap, frames, None).map_err(|error| piece_error(error, frames))?;
        let outside = OfflineError::PieceOutside { piece: frames };
        let range = self.model.descriptors(frames).ok_or(outside)?;
        self.check_online(table, range, pagemap.altmap())?;
        let pages = self.whole_pages_around(table, frames);
        if pages != frames {
            return Err(OfflineError::SplitsPage { pages });
        }
        self.check_thawed(table, frames)?;
        let reserved = pagemap.altmap().map(Altmap::reserved);
        self.check_found(table, frames, reserved)
            .map_err(|pages| OfflineError::SplitsPage { pages })?;
        let mut spare = self
            .prepare_to_withdraw(frames, pagemap.node())
            .map_err(OfflineError::OutOfFrames)?;
        if let Err(frames) = begin_freeze(self.readers.online_map(), frames) {
            self.free_spare(&mut spare);
            return Err(OfflineError::TooManyFrozen { frames });
        }
        // SAFETY: 1 to 4: the caller's duty 1.
        let reader = unsafe { self.reader() };
        if let Err(first) = freeze_pages(&reader, frames, reserved, references) {
            self.free_spare(&mut spare);
            end_freeze(self.readers.online_map(), frames);
            return Err(OfflineError::Busy { first });
        }
        self.withdraw(frames, spare);
        Ok(Frozen {
            reader,
            pagemap: *pagemap,
            frames,
            references,
        })
    }

    /// Takes frozen memory offline.
    ///
    /// # Errors
    ///
    /// [`OfflineError::OtherVmemmap`], and what [`depopulate`](Self::depopulate) says where a huge leaf
    /// or a shared table has to be split. The memory is thawed then.
    pub fn commit<P: PageTable>(
        &mut self,
        table: &mut P,
        quiescent: Quiescent<'r, '_, D, K>,
    ) -> Result<Offlined, OfflineError> {
        let Frozen {
            ref reader,
            ref pagemap,
            frames,
            ..
        } = quiescent.0;
        if !self.readers.has_root_of(reader.readers()) {
            return Err(OfflineError::OtherVmemmap);
        }
        let outside = OfflineError::PieceOutside { piece: frames };
        let range = self.model.descriptors(frames).ok_or(outside)?;
        let straddlers = self.check_online(&*table, range, pagemap.altmap())?;
        self.split_straddlers(table, pagemap, range, straddlers)?;
        let pagemap = *pagemap;
        mem::forget(quiescent);
        end_freeze(self.readers.online_map(), frames);
        Ok(self.remove(table, &pagemap, &[frames]))
    }

    /// Takes `frames` of `pagemap` offline if each of their pages has `references` references, all of
    /// them the caller's: [`freeze`](Self::freeze), a grace period, [`commit`](Self::commit). It waits
    /// with the lock of the vmemmap held.
    ///
    /// # Errors
    ///
    /// Those of both. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// 1. Duties 1 and 2 of [`freeze`](Self::freeze).
    pub unsafe fn try_offline<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: u32,
    ) -> Result<Offlined, OfflineError> {
        // SAFETY: 1 and 2: the caller's.
        let frozen = unsafe { self.freeze(&*table, pagemap, frames, references) }?;
        self.commit(table, frozen.wait())
    }
}
