//! The vmemmap: bringing memory online and taking it offline.
//!
//! ```text
//!   DevPagemap ──▶ Plan ──▶ supply ──▶ PageTable ──▶ Region ──▶ offline
//!     (what)      (runs)   (frames)    (entries)    (handle)  (runs back)
//! ```
//!
//! - [`Plan`] says, without touching memory, which vmemmap pages get frames of their own and which
//!   repeat one.
//! - The supply takes those frames from RAM or from the altmap, writes the descriptors into them,
//!   and hands them to the page table as the runs that it asks for. A frame is described before it
//!   is mapped, so nobody ever sees a descriptor that is not there yet.
//! - [`Vmemmap::online`] does a whole pagemap, piece by piece, and answers with a [`Region`];
//!   [`Vmemmap::populate`] does one piece.
//! - [`Vmemmap::offline`] and [`Vmemmap::depopulate`] undo that, and so does every failure: one way
//!   back, for all.
//! - [`Vmemmap::fold`] and [`Vmemmap::unfold`] change, while memory is online, whether its tails
//!   are shared.
//! - [`Vmemmap::mark`] keeps a bit for a frame that has no descriptor of its own.
//! - [`Vmemmap::stats`] says what it costs, node by node; [`Vmemmap::audit`] recounts.

mod altmaps;
mod audit;
mod descriptor_writer;
mod error;
mod fold;
mod frame_pool;
mod marks;
mod note;
mod offline;
mod online;
mod piece_source;
mod plan;
mod queries;
mod region;
mod registry;
mod shared_tail;
mod split;
mod stats;

pub use audit::{AuditReport, AuditSlot, Finding};
pub use error::{DescriptorMismatch, OfflineError, OnlineError};
pub use fold::{FoldError, Folded};
pub use marks::{MarkError, MarkStats};
pub use note::{Note, Notes};
pub use plan::{Plan, PlannedFrames, PlannedRun};
pub use region::{Offlined, Region};
pub use stats::{NodeStats, Stats};

use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::model::MemoryModel;
use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use frame_pool::PoolState;
use marks::Marks;

/// The array of descriptors of a kernel, and what brings parts of it into being.
///
/// One value for each vmemmap, owned by the kernel, under the kernel's lock for it (hence `&mut`).
/// The page table is handed to each operation, since others use it too.
///
/// `D` is the descriptor, `A` the allocator of RAM, `M` the direct map.
///
/// Dropping it leaves what is online as it is: CPUs use it, and the entries own the frames. A new
/// value for the same page table finds it there and can take it [offline](Self::depopulate). Only
/// what no entry knows is lost: marks with their frames, the figures of [`stats`](Self::stats), and
/// which frames are an altmap's. Memory with an altmap has to go offline by a pagemap with that
/// altmap; the old value would have refused another, the new one cannot.
#[derive(Debug)]
pub struct Vmemmap<D, A, M> {
    model: MemoryModel,
    frames: A,
    direct_map: M,
    pool_state: PoolState,
    marks: Marks,
    descriptor: PhantomData<fn() -> D>,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// The vmemmap of `model`, with frames from `frames`.
    ///
    /// # Errors
    ///
    /// [`DescriptorMismatch`] where `D` is not of the size that the model says.
    ///
    /// # Safety
    ///
    /// 1. The addresses from the model's base on, for as many frames as it has room, are used for
    ///    descriptors by this value alone, in every page table that is handed to it; what others
    ///    have mapped there stays mapped.
    /// 2. `direct_map` reaches every frame that `frames` and the altmaps of pagemaps hand out.
    /// 3. The same page table, or tables that share the part below the root, is handed to every
    ///    operation.
    pub unsafe fn new(
        model: MemoryModel,
        frames: A,
        direct_map: M,
    ) -> Result<Self, DescriptorMismatch> {
        let mismatch = DescriptorMismatch {
            model: model.descriptor_bytes(),
            descriptor: size_of::<D>(),
        };
        let bytes = usize::try_from(model.descriptor_bytes()).map_err(|_| mismatch)?;
        if size_of::<D>() != bytes || align_of::<D>() > bytes {
            return Err(mismatch);
        }
        Ok(Self {
            model,
            frames,
            direct_map,
            pool_state: PoolState::new(),
            marks: Marks::new(),
            descriptor: PhantomData,
        })
    }

    /// The memory model.
    pub const fn model(&self) -> &MemoryModel {
        &self.model
    }
}
