//! CPUs that a kernel lends for describing much memory.
//!
//! ```text
//!   frames of a run ──▶ described, part by part ──▶ entries that link them
//!                        on several CPUs
//! ```
//!
//! Frames are taken first, as many as one call of the allocator gives. Their descriptors are written on all CPUs that
//! help, and only then are they mapped. So nobody sees a frame without descriptors, and nothing that can fail
//! happens on another CPU: who fails gives frames back that were described for nothing.

use super::Vmemmap;
use super::batch::Batch;
use super::descriptor_writer::DescriptorWriter;
use crate::descriptor::Descriptor;
use crate::frame::DirectMap;
use crate::readers::ReadersOf;
use core::fmt;
use core::marker::PhantomData;

/// From how many bytes of descriptors on others are asked to help.
// As measured: below, waking somebody takes as long as the stores.
const SHARE_FROM: u64 = 1 << 20;

/// How many bytes a part is. Several for each CPU, so that one that begins late holds nobody up.
const PART: u64 = 128 << 10;

/// CPUs that help to describe memory that comes online.
///
/// # For callers
///
/// [`Vmemmap::use_workers`] has a vmemmap use them.
///
/// # For implementers
///
/// A part stores 128 KiB or a page to frames that nobody else sees, by the kernel's
/// [`DirectMap`](crate::frame::DirectMap), which it calls. It takes no lock, allocates nothing, waits for nobody
/// and does not panic. So it may be executed in an interrupt. The CPU that calls `run` holds the vmemmap's lock,
/// so a CPU that waits for that lock cannot help unless it does so while it waits. Who has no CPU to spare calls
/// all parts itself.
///
/// ```
/// use mm_core::vmemmap::Workers;
///
/// /// As without workers.
/// struct Alone;
///
/// // SAFETY: 1: the loop calls each once. 2 and 3: it is the same CPU.
/// unsafe impl Workers for Alone {
///     fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
///         (0..parts).for_each(part);
///     }
/// }
/// ```
///
/// # Safety
///
/// 1. `run` has `part` called once with each number below `parts`: with none of them twice, since two CPUs
///    would store to the same memory, and with none not at all, since its frames are mapped as they are.
/// 2. When it returns, or unwinds, all of these calls have returned, and what they have stored is visible to
///    the CPU that has called it.
/// 3. What that CPU stored before is visible to each of them.
pub unsafe trait Workers: Sync {
    /// Has `part` called with each number below `parts`, in any order, on any CPUs.
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync));
}

/// Workers, and how descriptors of the type `D` are written by them.
// Only where workers are lent is it known that the direct map can be used on several CPUs. Everything else is
// compiled for direct maps of any kind.
pub(super) struct LentWorkers<D, M> {
    workers: &'static dyn Workers,
    share: Share<M>,
    descriptor: PhantomData<fn() -> D>,
}

type Share<M> = unsafe fn(&dyn Workers, &DescriptorWriter<'_, M>, Batch);

impl<D, M> Clone for LentWorkers<D, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D, M> Copy for LentWorkers<D, M> {}

impl<D, M> fmt::Debug for LentWorkers<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentWorkers").finish_non_exhaustive()
    }
}

impl<D: Descriptor, M: DirectMap> LentWorkers<D, M> {
    /// Whether they are of use for `batch`.
    pub(super) fn help_with(&self, writer: &DescriptorWriter<'_, M>, batch: &Batch) -> bool {
        let page = writer.model.granule().bytes();
        batch.frames.frames().saturating_mul(page) >= SHARE_FROM
    }

    /// Writes the descriptors of `batch`.
    ///
    /// # Safety
    ///
    /// 1 to 3. As for [`DescriptorWriter::write`].
    pub(super) unsafe fn write(&self, writer: &DescriptorWriter<'_, M>, batch: Batch) {
        // SAFETY: 1 to 3: the caller's.
        unsafe { (self.share)(self.workers, writer, batch) };
    }
}

/// Writes the descriptors of `batch` by `workers`.
///
/// # Safety
///
/// 1 to 3. As for [`DescriptorWriter::write`].
#[inline(never)]
unsafe fn share<D: Descriptor, M: DirectMap + Sync>(
    workers: &dyn Workers,
    writer: &DescriptorWriter<'_, M>,
    batch: Batch,
) {
    let frames = PART / writer.model.granule().bytes();
    let frames = frames.max(1).next_multiple_of(batch.frames_each());
    let parts = batch.frames.frames().div_ceil(frames) as usize;
    workers.run(parts, &|index| {
        let skipped = (index as u64).saturating_mul(frames);
        if let Some(part) = batch.part(writer, skipped, frames) {
            // SAFETY: 1 to 3: the caller's for all of the batch; no other call has frames of this part, by
            // duty 1 of `Workers`.
            unsafe { writer.write::<D>(part) };
        }
    });
}

impl<D: Descriptor, A, M: DirectMap + Sync, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Has `workers` help from now on where much memory comes online, or nobody any more. At first nobody
    /// does.
    ///
    /// They are asked within [`online`](Self::online) and [`populate`](Self::populate), where there is a MiB of
    /// descriptors or more to write at once: with large [pieces](crate::pagemap::DevPagemap::with_piece) more
    /// often than with small ones.
    pub const fn use_workers(&mut self, workers: Option<&'static dyn Workers>) {
        self.workers = match workers {
            None => None,
            Some(workers) => Some(LentWorkers {
                workers,
                share: share::<D, M>,
                descriptor: PhantomData,
            }),
        };
    }
}
