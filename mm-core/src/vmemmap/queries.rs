//! From frames to descriptors, and back.

use super::{LiveDescriptors, Vmemmap};
use crate::addr::{Order, Pfn, VirtAddr};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::model::MemoryModel;
use crate::paging::{PageTable, Role, Run};
use crate::readers::ReadersOf;

/// The descriptor of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Described<'v, D> {
    /// The frame has a descriptor of its own.
    Own(&'v D),
    /// It is a tail, and has its descriptor in common with others. What that says:
    Shared {
        /// Its [word](Descriptor::word).
        word: u64,
        /// The order of the compound page.
        order: Order,
    },
}

impl<'v, D: Descriptor> Described<'v, D> {
    pub(super) fn shared(descriptor: &D) -> Self {
        Self::Shared {
            word: descriptor.word(),
            order: descriptor.order(),
        }
    }

    /// The descriptor, if it is the frame's own.
    pub const fn own(self) -> Option<&'v D> {
        match self {
            Self::Own(descriptor) => Some(descriptor),
            Self::Shared { .. } => None,
        }
    }

    /// The [word](Descriptor::word) of the descriptor.
    pub fn word(&self) -> u64 {
        match self {
            Self::Own(descriptor) => descriptor.word(),
            Self::Shared { word, .. } => *word,
        }
    }

    /// The order of the page that the frame is part of.
    pub fn order(&self) -> Order {
        match self {
            Self::Own(descriptor) => descriptor.order(),
            Self::Shared { order, .. } => *order,
        }
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Where the descriptor of `frame` is, or would be; `None` where the vmemmap has no room for
    /// it.
    ///
    /// A kernel on whose page table the memory is online may use the descriptor there, by shared
    /// reference, with the duties of [`live_descriptor`](Self::live_descriptor).
    pub const fn descriptor_address(&self, frame: Pfn) -> Option<VirtAddr> {
        self.model.descriptor_address(frame)
    }

    /// Whose descriptor is at `at`; `None` outside the vmemmap.
    pub const fn frame_of_descriptor(&self, at: VirtAddr) -> Option<Pfn> {
        self.model.frame_of_descriptor(at)
    }

    /// Whether this library has brought `frame` online.
    pub fn is_valid<P: PageTable>(&self, table: &P, frame: Pfn) -> bool {
        self.descriptor_address(frame)
            .and_then(|at| table.lookup(at).mapping())
            .is_some_and(|mapping| mapping.leaf.role != Role::Foreign)
    }

    /// Whether an altmap that is in use reserves `frame`. The frame is no page then, whether its
    /// descriptor is online or not: it holds descriptors, or counts.
    pub fn is_reserved(&self, frame: Pfn) -> bool {
        self.pool_state.altmaps.reserves(frame)
    }

    /// The descriptor of `frame`, through the direct map; `None` where it is not online, and where
    /// it is [reserved](Self::is_reserved).
    ///
    /// Where other frames have the same descriptor, a tail of a compound page, the answer is what
    /// it says. Nobody gets a reference to it: the memory behind it is mapped read-only, or stands
    /// for all tails of a compound page, and a store through another address would be to all of
    /// them. Where heads are [packed](crate::pagemap::Heads::Packed), the answer for the first frame of a page
    /// is its head.
    pub fn descriptor<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<Described<'_, D>> {
        match self.is_reserved(frame) {
            true => None,
            false => self.mapped_descriptor(table, frame),
        }
    }

    /// The descriptor of `frame`, reserved or not.
    pub(super) fn mapped_descriptor<P: PageTable>(
        &self,
        table: &P,
        frame: Pfn,
    ) -> Option<Described<'_, D>> {
        let at = self.descriptor_address(frame)?;
        let mapping = table.lookup(at).mapping()?;
        let holder = mapping.frame_of(at, self.model.granule())?;
        match mapping.leaf.role {
            Role::Foreign => None,
            Role::Descriptors => Some(Described::Own(self.descriptor_in(holder, frame))),
            Role::Tail => {
                let tail = self.descriptor_in(holder, frame);
                let head = match D::Encoding::is_stub(tail.word()) && frame.is_aligned(tail.order())
                {
                    true => self.packed_head(table, frame, tail.order()),
                    false => None,
                };
                Some(head.map_or_else(|| Described::shared(tail), Described::Own))
            }
        }
    }

    /// The descriptor of `frame` in `holder`, a frame that an entry of this library's maps for it.
    pub(super) fn descriptor_in(&self, holder: Pfn, frame: Pfn) -> &D {
        self.nth_in(holder, frame.get())
    }

    /// The descriptor number `index`, counted from the start of a page and going on behind its end at the start, in
    /// `holder`, a frame that an entry of this library's maps for descriptors or packed heads.
    pub(super) fn nth_in(&self, holder: Pfn, index: u64) -> &D {
        let index = index & (self.model.descriptors_per_page() - 1);
        // SAFETY: the entry is this library's, so the frame came from the allocator or an altmap
        // and the direct map reaches it (duty 2 of `new`); it holds a page of descriptors
        // of `D`'s size (checked by `new`), which were written before it was mapped. They
        // stay until memory goes offline, which needs `&mut self`; until then they are only shared.
        unsafe {
            self.direct_map
                .frame_pointer(holder)
                .cast::<D>()
                .add(index as usize)
                .as_ref()
        }
    }

    /// The descriptor of `frame` at its own address in the vmemmap: no walk, one shift and one add.
    /// [`LiveDescriptors`] does the same without this value, so without its lock.
    ///
    /// `None` only where the vmemmap has no room for it. As with [`descriptor`](Self::descriptor)
    /// there is no reference to what many frames may share. Without a walk, that is every tail
    /// whose head is in another vmemmap page. A frame that an altmap reserves has a descriptor too.
    /// It was made as [`Part::Reserved`](crate::descriptor::Part::Reserved), by which a kernel can
    /// tell.
    ///
    /// # Safety
    ///
    /// 1. `frame` is online and stays so for as long as the answer is used.
    /// 2. The CPU translates by the page table that it is online on.
    /// 3. While [`fold`](Self::fold), [`unfold`](Self::unfold), [`reshape`](Self::reshape) or
    ///    [`reorder`](Self::reorder) works on the page of `frame`, or an operation splits a huge leaf or a
    ///    shared table that maps its descriptor, nobody stores to it: the store may be lost.
    /// 4. After a fold of `frame`, or a change of its order, nobody stores by an answer from before: the descriptor may be one that
    ///    many frames share, on a page that is read-only. Where its head was
    ///    [packed](crate::pagemap::Heads::Packed) before a change of order, nobody uses such an answer: it is gone.
    pub unsafe fn live_descriptor<'d>(&self, frame: Pfn) -> Option<Described<'d, D>> {
        // SAFETY: 1 to 4: the caller's.
        unsafe { LiveDescriptors::of_fitting(self.model).descriptor(frame) }
    }

    /// Where the head of `descriptor` is, which lies at `at` in the vmemmap. No walk. Of a
    /// [stub](crate::pagemap::Heads::Packed) it is where the first frame's descriptor is, a stub too;
    /// [`MemoryModel::packed_head`](crate::model::MemoryModel::packed_head) says where the head is.
    pub fn head_of_descriptor(at: VirtAddr, descriptor: &D) -> VirtAddr {
        D::Encoding::head_of(at, descriptor.word())
    }

    /// The head of the compound page that `frame` is part of, or `frame` itself where it is a page
    /// of its own; `None` where it is not online.
    pub fn head_of<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<Pfn> {
        let at = self.descriptor_address(frame)?;
        let descriptor = self.mapped_descriptor(table, frame)?;
        self.frame_of_descriptor(D::Encoding::head_of(at, descriptor.word()))
    }
}

/// The frames of `run`, mapped at `at`, that hold descriptors: each with the first frame that it describes.
#[inline]
pub(super) fn holders(
    model: &MemoryModel,
    at: VirtAddr,
    run: &Run,
) -> impl Iterator<Item = (Pfn, Pfn)> {
    let run = *run;
    let per_block = run.leaf.block.order().frames();
    let per_page = model.descriptors_per_page();
    let described = model.frame_of_descriptor(at);
    (0..run.pages()).filter_map(move |index| {
        let block = run.block(index / per_block)?;
        let holder = block.first().checked_add(index % per_block)?;
        Some((holder, described?.checked_add(index * per_page)?))
    })
}
