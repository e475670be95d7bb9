//! RAM that a check takes for itself.

use super::Bench;
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, fail};
use mm_core::addr::{Block, Order, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::{DirectMap, FrameAllocator, Released};

/// How many runs of frames are allocated to be poisoned.
const RUNS: usize = 64;

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    /// A frame of RAM.
    pub(crate) fn take_frame(&self) -> Result<Block, Stop> {
        let frame = self.frames.allocate(Order::BASE, self.node);
        self.expect(frame, "there is a frame")
    }

    /// A block of RAM of `order`, if there is one.
    pub(crate) fn take_block(&self, order: Order) -> Option<Block> {
        self.frames.allocate(order, self.node).ok()
    }

    /// Gives back what the check has allocated, and nothing maps any more.
    pub(crate) fn give_back(&self, block: Block) -> Verdict {
        // SAFETY: 1 and 2: allocated by the check, with the one reference that is given back.
        match unsafe { self.frames.release(block, 1) } {
            // SAFETY: 1: it released the block just now.
            Released::Last(owned) => unsafe { self.frames.free(owned) },
            Released::Shared => return fail("nobody else has a reference"),
        }
        Ok(())
    }

    /// Allocates `frame`, which is free, as other code would, if the allocator hands it out soon.
    /// Poisons it. What else the allocator hands out is given back.
    pub(crate) fn reuse_frame(&self, frame: Pfn) -> Result<Option<Block>, Stop> {
        let mut reused = None;
        let mut others = [None; 8];
        for slot in &mut others {
            let block = self.take_frame()?;
            if block.first() == frame {
                self.poison(frame);
                reused = Some(block);
                break;
            }
            *slot = Some(block);
        }
        for block in others.into_iter().flatten() {
            self.give_back(block)?;
        }
        Ok(reused)
    }

    /// Poisons frames that are free afterwards. So the next frames that are handed out have
    /// something in them.
    pub(crate) fn poison_free_frames(&self) -> Verdict {
        let mut taken = [None; RUNS];
        for slot in &mut taken {
            match self.frames.allocate_run(8, self.node) {
                Ok(run) => *slot = Some(run),
                Err(error) => return self.fail_by("there are frames", error),
            }
        }
        for run in taken.into_iter().flatten() {
            for index in 0..run.frames() {
                self.poison(run.start().saturating_add(index));
            }
            // SAFETY: 1 and 2: allocated above, one reference each, and mapped nowhere.
            let _ = unsafe { self.frames.release_run(run) };
        }
        Ok(())
    }

    /// Fills `frame`, which the check has allocated, with a pattern.
    fn poison(&self, frame: Pfn) {
        let page = self.direct_map.frame_pointer(frame);
        // SAFETY: the frame is the check's, and the direct map reaches it.
        unsafe { page.write_bytes(0xa5, self.model.granule().bytes() as usize) };
    }
}
