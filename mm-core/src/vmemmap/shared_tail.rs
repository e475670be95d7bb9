//! Tail frames: finds or makes the one that all compound pages of an order and node share.

use super::descriptor_writer::DescriptorWriter;
use super::error::OnlineError;
use super::frame_pool::FramePool;
use super::note::Notes;
use crate::addr::Pfn;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{Role, Run};

/// A tail frame, with references for entries that are about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) frame: Pfn,
    /// How many references, at least 1.
    pub(super) references: u64,
}

impl Tail {
    /// The entries that own the references.
    pub(super) const fn entries(self) -> Run {
        Run::repeat(self.frame, self.references, Role::Tail)
    }
}

/// The tail frame that all compound pages of the order and node of `writer` share, with
/// `references` more than before, at least 1. `head` is one of these compound pages.
///
/// A new one is made if there is none. It comes from RAM, never from an altmap, since it outlives
/// the device. Where there is no memory to register it, it serves this call only, and where its
/// references cannot be counted, one entry only. A note says so.
pub(super) fn shared_tail<D: Descriptor, A: FrameAllocator, M: DirectMap>(
    pool: &mut FramePool<'_, A, M>,
    writer: &DescriptorWriter<'_, M>,
    head: Pfn,
    references: u64,
    notes: &mut Notes,
) -> Result<Tail, OnlineError> {
    let key = writer.tail_key();
    if let Some(frame) = pool.registered_tail(key) {
        // SAFETY: 1: the frame is a tail frame of this library's, which is registered as long as it has
        // references. 2: the entries that are about to be made own these.
        if unsafe { pool.acquire(frame, references) } {
            return Ok(Tail { frame, references });
        }
    }
    let frame = pool.allocate_ram(key.node)?;
    notes.frames_from(key.node, pool.node_of(frame), 1);
    // SAFETY: 1: allocated just now. 2: `Vmemmap::new` has compared the sizes.
    unsafe { writer.write_tails::<D>(frame, head) };
    // SAFETY: 1: as above, and written.
    let tail = unsafe { new_tail(pool, frame, references, notes) };
    if tail.references == references && !pool.register_tail(key, frame) {
        // Nobody will find it. It is the tail frame of this one compound page, or range.
        notes.tail_not_registered();
    }
    Ok(tail)
}

/// Makes `frame` a tail frame with `references`, at least 1. If the allocator cannot count so many, it has one,
/// and a note says so.
///
/// # Safety
///
/// 1. `frame` was allocated from the pool with one reference just now, nobody has seen it, and its tails are
///    written.
pub(super) unsafe fn new_tail<A: FrameAllocator, M: DirectMap>(
    pool: &mut FramePool<'_, A, M>,
    frame: Pfn,
    references: u64,
    notes: &mut Notes,
) -> Tail {
    pool.add_tail(frame);
    // SAFETY: 1: the frame came from the pool just now. 2: the entries that are about to be made own
    // these and the one that it came with.
    if references > 1 && !unsafe { pool.acquire(frame, references - 1) } {
        notes.tail_not_counted();
        return Tail {
            frame,
            references: 1,
        };
    }
    Tail { frame, references }
}
