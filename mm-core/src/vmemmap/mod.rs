//! The vmemmap: bringing memory online and taking it offline.
//!
//! ```text
//!   DevPagemap ──▶ Plan ──▶ PieceSource ──▶ PageTable ──▶ Region ──▶ offline
//!     (what)      (runs)     (frames)       (entries)    (handle)
//! ```
//!
//! - [`Plan`] says which vmemmap pages get frames of their own, and which share one. It does not
//!   touch memory.
//! - `PieceSource` takes those frames from RAM or from the altmap, and writes the descriptors into
//!   them. The page table asks it for runs of frames. Descriptors are written before their frame is
//!   mapped, so nobody sees a vmemmap page without descriptors.
//! - [`Vmemmap::online`] brings a whole pagemap online, piece by piece, and returns a [`Region`].
//!   [`Vmemmap::populate`] brings one piece online.
//! - [`Vmemmap::offline`] and [`Vmemmap::depopulate`] undo that. Failures are undone by the same
//!   code.
//! - [`Vmemmap::fold`] and [`Vmemmap::unfold`] change whether tails are shared, while memory is
//!   online.
//! - [`Vmemmap::reorder`] makes pages that are online pages of another order, with frames of a
//!   [reserve](Vmemmap::fill_reserve).
//! - Where [readers](crate::readers) on other CPUs may have references, memory is frozen first:
//!   [`Vmemmap::freeze`] to take it offline, [`Vmemmap::freeze_units`] to change it.
//! - [`Workers`] are CPUs that a kernel lends for describing [much memory](Vmemmap::use_workers).
//! - [`LiveDescriptors`] finds descriptors of memory that is online, and needs neither `Vmemmap` nor lock.
//! - [`Vmemmap::mark`] sets a bit for a frame that has no descriptor of its own.
//! - [`Vmemmap::stats`] says what the vmemmap costs on each node. [`Vmemmap::audit`] counts it
//!   again.
//! - [`Vmemmap::describe`] says how all of that is read in a [dump of memory](Description).

mod altmaps;
mod audit;
mod batch;
mod copies;
mod description;
mod descriptor_writer;
mod error;
mod fold;
mod frame_pool;
mod frames_ahead;
mod freeze;
mod frozen_pages;
mod heads;
mod huge_leaf;
mod image;
mod listing;
mod live;
mod marks;
mod node_rows;
mod note;
mod offline;
mod online;
mod own_frames;
mod piece_source;
mod plan;
mod publish;
mod queries;
mod region;
mod registry;
mod releases;
mod reorder;
mod reserve;
mod shared_tail;
mod split;
mod stats;
mod table_records;
mod workers;

pub use audit::{AuditReport, AuditSlot, Finding};
pub use description::{Description, TreeDescription};
pub use error::{DescriptorMismatch, OfflineError, OnlineError};
pub use fold::{Change, Changed, FoldError, Folded, FrozenUnits, QuiescentUnits};
pub use freeze::{Frozen, Quiescent};
pub use heads::{OldHeads, QuiescentHeads};
pub use listing::{ListedPage, Pages};
pub use live::LiveDescriptors;
pub use marks::{MarkError, MarkStats};
pub use note::{Note, Notes};
pub use plan::{Plan, PlannedFrames, PlannedRun};
pub use queries::Described;
pub use region::{Offlined, Region};
pub use reorder::{Committed, ReorderStopped, Reordered};
pub use reserve::Reserve;
pub use stats::NodeStats;
pub use workers::Workers;

use crate::addr::NodeId;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, MapMemory};
use crate::model::MemoryModel;
use crate::readers::{Kernel, NoReaders, Reader, Readers, ReadersOf};
use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use frame_pool::PoolState;
use heads::Places;
use marks::Marks;
use reorder::HeldTails;
use reserve::ReserveState;
use table_records::TableRecordsState;
use workers::LentWorkers;

/// The array of descriptors of a kernel. It brings parts of the array online and takes them
/// offline.
///
/// There is one value for each vmemmap. The kernel owns it and holds its lock for it, hence `&mut`.
/// The page table is passed to each operation, since other code uses it too.
///
/// `D` is the descriptor, `A` the allocator of RAM, `M` the direct map, and `R` the
/// [readers](crate::readers) on other CPUs, if there are any.
///
/// ```
/// use mm_core::descriptor::{Mask, Page};
/// use mm_core::frame::{DirectMap, FrameAllocator};
/// use mm_core::pagemap::DevPagemap;
/// use mm_core::paging::PageTable;
/// use mm_core::vmemmap::{OnlineError, Vmemmap};
///
/// /// Brings memory online, looks at it, and takes it offline again. Says how many frames that took.
/// fn frames_for<A: FrameAllocator, M: DirectMap>(
///     vmemmap: &mut Vmemmap<Page<Mask>, A, M>,
///     table: &mut impl PageTable,
///     pagemap: &DevPagemap<'_>,
/// ) -> Result<u64, OnlineError> {
///     let before = vmemmap.stats().ram_frames();
///     let region = vmemmap.online(table, pagemap)?;
///     let taken = vmemmap.stats().ram_frames() - before;
///     // The region is this vmemmap's, so that is no error.
///     let _ = vmemmap.offline(table, region);
///     Ok(taken)
/// }
/// ```
///
/// Dropping the value leaves memory online: CPUs use it, and the entries own the frames. Another
/// value can [adopt](Self::adopt) it. Only what is in no entry is lost: marks, the figures of
/// [`stats`](Self::stats), which frames belong to an altmap, which tails and tables are shared, and
/// the frames that hold all of that.
#[derive(Debug)]
pub struct Vmemmap<D, A, M, R = NoReaders> {
    model: MemoryModel,
    frames: A,
    direct_map: M,
    readers: R,
    pool_state: PoolState,
    table_records: TableRecordsState,
    marks: Marks,
    reserve: ReserveState,
    per_order: HeldTails,
    places: Places,
    workers: Option<LentWorkers<D, M>>,
    descriptor: PhantomData<fn() -> D>,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// The vmemmap of `model`, with frames from `frames`. Nothing of it is online.
    ///
    /// # Errors
    ///
    /// [`DescriptorMismatch`] where the size or alignment of `D` does not fit the model. `frames`
    /// and `direct_map` are then forgotten, not dropped: the function is `const`, for a `static`.
    ///
    /// # Safety
    ///
    /// 1. The addresses from the model's base on, for as many frames as it has room, are used for
    ///    descriptors by this value alone, in every page table that is passed to it. So are those of
    ///    [packed heads](MemoryModel::heads), if any are. What others have mapped there stays mapped.
    /// 2. `direct_map` reaches every frame that `frames` and the altmaps of pagemaps hand out, in pages
    ///    of the model's granule.
    /// 3. The same page table is passed to every operation, by one value or by several one after
    ///    the other, or tables that share the part below the root.
    /// 4. In those addresses nobody but this value sets the bits by which the page table tells this
    ///    library's entries, and nobody has: no other `Vmemmap` has anything online there. If one
    ///    had, use [`adopt`](Self::adopt).
    pub const unsafe fn new(
        model: MemoryModel,
        frames: A,
        direct_map: M,
    ) -> Result<Self, DescriptorMismatch> {
        // SAFETY: 1: the caller's. 2: the caller's duty 4.
        unsafe { Self::with_parts(model, frames, direct_map, NoReaders, Places::Unmapped) }
    }

    /// A vmemmap that goes on where another value was dropped: what that had online is online.
    ///
    /// [`stats`](Self::stats) count from now on, so [`audit`](Self::audit) compares figures of a
    /// vmemmap without history only. Memory with an altmap goes offline by a pagemap with the same
    /// altmap.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Safety
    ///
    /// 1. Duties 1 to 3 of [`new`](Self::new), and of 4 that nobody else sets those bits.
    /// 2. What is online was brought online by a value with the same `D` and model, whose
    ///    allocator and direct map were these, or others over the same memory, with the counts that
    ///    it has. That value is not used any more.
    /// 3. Memory whose descriptors are in frames of an altmap is taken offline, folded or unfolded
    ///    by pagemaps with that altmap only: this value does not know it, and cannot refuse others.
    /// 4. That value had no [`Readers`].
    pub const unsafe fn adopt(
        model: MemoryModel,
        frames: A,
        direct_map: M,
    ) -> Result<Self, DescriptorMismatch> {
        // SAFETY: 1: the caller's duty 1; what other values have online is this one's from now on, by the
        // caller's duty 2. 2: it looks.
        unsafe { Self::with_parts(model, frames, direct_map, NoReaders, Places::MayBeMapped) }
    }
}

impl<'r, D: Descriptor, A: FrameAllocator, M: DirectMap, K: Kernel>
    Vmemmap<D, A, M, Readers<'r, K>>
{
    /// The vmemmap of the model of `readers`, which ask about it on every CPU. Nothing of it is
    /// online. See [`readers`](crate::readers).
    ///
    /// # Errors
    ///
    /// As for [`new`](Vmemmap::new).
    ///
    /// # Safety
    ///
    /// 1. Duties 1 to 4 of [`new`](Vmemmap::new).
    /// 2. The root of `readers` is no other vmemmap's, and all of its entries are
    ///    [new](crate::readers::OnlineEntry::new).
    pub const unsafe fn with_readers(
        readers: Readers<'r, K>,
        frames: A,
        direct_map: M,
    ) -> Result<Self, DescriptorMismatch> {
        let model = *readers.model();
        // SAFETY: 1: the caller's. 2: the caller's, of duty 4 of `new`.
        unsafe { Self::with_parts(model, frames, direct_map, readers, Places::Unmapped) }
    }

    /// A vmemmap that goes on where another value with the same root of readers was dropped: what that
    /// had online is online, also for readers. Otherwise as [`adopt`](Vmemmap::adopt).
    ///
    /// # Errors
    ///
    /// As for [`new`](Vmemmap::new).
    ///
    /// # Safety
    ///
    /// 1. Duties 1 to 3 of [`adopt`](Vmemmap::adopt).
    /// 2. The root of `readers` is that value's, as it has left it, and so is the kernel: who got a
    ///    [`Reader`] of that value is waited for.
    pub const unsafe fn adopt_with_readers(
        readers: Readers<'r, K>,
        frames: A,
        direct_map: M,
    ) -> Result<Self, DescriptorMismatch> {
        let model = *readers.model();
        // SAFETY: 1: the caller's duties; what other values have online is this one's from now on. 2: it looks.
        unsafe { Self::with_parts(model, frames, direct_map, readers, Places::MayBeMapped) }
    }

    /// The handle by which every CPU may ask about frames; it is `Copy`, `Send` and `Sync`.
    ///
    /// # Safety
    ///
    /// 1. Every CPU that uses it, or what came of it, translates by the page table that is passed to
    ///    the operations of this vmemmap, or by one that shares the part below the root.
    /// 2. While [`fold`](Self::fold), [`unfold`](Self::unfold), [`reshape`](Self::reshape) or
    ///    [`reorder`](Self::reorder) works on frames, no CPU asks for a reference to one of them, and nobody
    ///    has one as a [`PageReference`](crate::readers::PageReference). Where that may be, change them by
    ///    [`change_beside_readers`](Self::change_beside_readers) or
    ///    [`reorder_beside_readers`](Self::reorder_beside_readers).
    /// 3. Nobody has one to memory that goes offline by [`offline`](Self::offline) or
    ///    [`depopulate`](Self::depopulate), or it is not used any more. Where others may have some, take
    ///    it offline by [`try_offline`](Self::try_offline).
    /// 4. A descriptor that was found by [`Reading::page_of`](crate::readers::Reading::page_of) is only
    ///    read, unless there is a reference to its page, or the memory is not folded, unfolded, reshaped or
    ///    reordered meanwhile, in whatever way. Otherwise the store may be lost, or to a page that is read-only.
    pub const unsafe fn reader(&self) -> Reader<'r, D, K> {
        // SAFETY: 1 to 4: the caller's.
        unsafe { Reader::new(self.readers) }
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// # Safety
    ///
    /// 1. The duties of [`new`](Vmemmap::new), and where there are readers, of
    ///    [`with_readers`](Vmemmap::with_readers).
    /// 2. `places` says that there may be [packed heads](MemoryModel::heads) where another value may have left
    ///    some.
    const unsafe fn with_parts(
        model: MemoryModel,
        frames: A,
        direct_map: M,
        readers: R,
        places: Places,
    ) -> Result<Self, DescriptorMismatch> {
        if let Err(mismatch) = fits::<D>(&model) {
            // Generic values cannot be dropped in a `const` function.
            core::mem::forget((frames, direct_map, readers));
            return Err(mismatch);
        }
        Ok(Self {
            model,
            frames,
            direct_map,
            readers,
            pool_state: PoolState::new(),
            table_records: TableRecordsState::new(),
            marks: Marks::new(),
            reserve: ReserveState::new(),
            per_order: HeldTails::new(),
            places,
            workers: None,
            descriptor: PhantomData,
        })
    }

    /// The memory model.
    pub const fn model(&self) -> &MemoryModel {
        &self.model
    }

    /// RAM, for what has to be remembered.
    const fn memory(&self) -> MapMemory<'_, A, M> {
        memory_of(&self.model, &self.frames, &self.direct_map)
    }
}

/// Whether `D` is the descriptor that `model` was made for.
const fn fits<D>(model: &MemoryModel) -> Result<(), DescriptorMismatch> {
    let bytes = size_of::<D>();
    if bytes as u64 == model.descriptor_bytes() && align_of::<D>() <= bytes {
        return Ok(());
    }
    Err(DescriptorMismatch {
        model: model.descriptor_bytes(),
        descriptor: bytes,
    })
}

/// RAM of a vmemmap, for what it has to remember. The parts are passed one by one where others of
/// the vmemmap are in use.
const fn memory_of<'v, A: FrameAllocator, M: DirectMap>(
    model: &MemoryModel,
    frames: &'v A,
    direct_map: &'v M,
) -> MapMemory<'v, A, M> {
    // SAFETY: 1: duty 2 of `Vmemmap::new`. 2: these are the vmemmap's own.
    unsafe { MapMemory::new(frames, direct_map, model.granule(), NodeId::new(0)) }
}
