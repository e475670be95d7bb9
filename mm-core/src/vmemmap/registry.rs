//! The tail frames that all compound pages of an order share: one for each order and node, and one of stubs.
//!
//! The registry holds no reference. A tail frame lives as long as entries point at it. When its
//! last reference is released, it is removed from the registry.

use crate::addr::{NodeId, Order, Pfn};
use crate::frame::{DirectMap, FrameAllocator, MapMemory, OrderedMap, OutOfFrames};
use crate::pagemap::Heads;

/// How many tail frames are known without a frame for that.
const INLINE: usize = 16;

/// What a shared tail frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailKey {
    pub(super) order: Order,
    pub(super) node: NodeId,
    /// Where the heads are: if not in place, it has stubs.
    pub(super) heads: Heads,
}

// The bit of stubs is not an order's.
const _: () = assert!(Order::MAX.get() < 1 << 7);

impl TailKey {
    fn number(self) -> u64 {
        let stubs = u64::from(self.heads == Heads::Packed) << 7;
        u64::from(self.node.number()) << 8 | stubs | u64::from(self.order.get())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct TailRegistry {
    /// Their numbers.
    frames: OrderedMap<u64, INLINE>,
    /// What each of them is for, by its frame.
    keys: OrderedMap<u64, INLINE>,
}

impl TailRegistry {
    pub(super) const fn new() -> Self {
        Self {
            frames: OrderedMap::new(),
            keys: OrderedMap::new(),
        }
    }

    /// The tail frame for `key`.
    pub(super) fn find<A: FrameAllocator, M: DirectMap>(
        &self,
        key: TailKey,
        memory: MapMemory<'_, A, M>,
    ) -> Option<Pfn> {
        self.frames.get(key.number(), &memory).and_then(Pfn::new)
    }

    /// Registers `frame` for `key`, in place of the frame that was registered for it.
    pub(super) fn insert<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: TailKey,
        frame: Pfn,
        memory: MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        let memory = memory.on(key.node);
        self.keys.insert(frame.get(), key.number(), &memory)?;
        match self.frames.insert(key.number(), frame.get(), &memory) {
            Ok(before) => {
                if let Some(before) = before.filter(|before| *before != frame.get()) {
                    self.keys.remove(before, &memory);
                }
                Ok(())
            }
            Err(error) => {
                self.keys.remove(frame.get(), &memory);
                Err(error)
            }
        }
    }

    /// How many frames it takes at most to register `more` frames.
    pub(super) fn frames_for<A: FrameAllocator, M: DirectMap>(
        &self,
        more: u64,
        memory: MapMemory<'_, A, M>,
    ) -> u64 {
        self.frames.frames_for(more, &memory) + self.keys.frames_for(more, &memory)
    }

    /// Removes `frame`, if it is registered.
    pub(super) fn forget<A: FrameAllocator, M: DirectMap>(
        &mut self,
        frame: Pfn,
        memory: MapMemory<'_, A, M>,
    ) {
        if let Some(key) = self.keys.remove(frame.get(), &memory)
            && self.frames.get(key, &memory) == Some(frame.get())
        {
            self.frames.remove(key, &memory);
        }
    }

    /// Shows each frame that the registry is in.
    pub(super) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: MapMemory<'_, A, M>,
        visit: &mut dyn FnMut(Pfn),
    ) {
        self.frames.for_each_frame(&memory, visit);
        self.keys.for_each_frame(&memory, visit);
    }
}
