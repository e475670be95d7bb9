//! From frames to descriptors, and back.

use super::Vmemmap;
use crate::addr::{Pfn, VirtAddr};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{PageTable, Role};

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// Where the descriptor of `frame` is, or would be; `None` where the vmemmap has no room for
    /// it.
    ///
    /// A kernel on whose page table the memory is online may use the descriptor there, by shared
    /// reference.
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
            .and_then(|at| table.lookup(at))
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
    /// Most tails of a compound page are one descriptor, seen under many frame numbers.
    pub fn descriptor<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<&D> {
        match self.is_reserved(frame) {
            true => None,
            false => self.mapped_descriptor(table, frame),
        }
    }

    /// The descriptor of `frame`, reserved or not.
    fn mapped_descriptor<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<&D> {
        let at = self.descriptor_address(frame)?;
        let mapping = table.lookup(at)?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        let holder = mapping.frame_of(at, self.model.granule())?;
        let index = frame.get() & (self.model.descriptors_per_page() - 1);
        // SAFETY: the entry is this library's, so the frame came from the allocator or an altmap
        // and the direct map reaches it (duty 2 of `new`); it holds a page of descriptors
        // of `D`'s size (checked by `new`), which were written before it was mapped. They
        // stay until memory goes offline, which needs `&mut self`; until then they are only shared.
        Some(unsafe {
            self.direct_map
                .frame_pointer(holder)
                .cast::<D>()
                .add(index as usize)
                .as_ref()
        })
    }

    /// The descriptor of `frame` at its own address in the vmemmap: no walk, one shift and one add.
    ///
    /// `None` only where the vmemmap has no room for it. A frame that an altmap reserves has a
    /// descriptor too. It was made as [`Part::Reserved`](crate::descriptor::Part::Reserved), by
    /// which a kernel can tell.
    ///
    /// # Safety
    ///
    /// 1. `frame` is online and stays so for as long as the reference is used.
    /// 2. The CPU translates by the page table that it is online on.
    pub unsafe fn live_descriptor<'d>(&self, frame: Pfn) -> Option<&'d D> {
        let at = self.descriptor_address(frame)?;
        let pointer = core::ptr::with_exposed_provenance::<D>(usize::try_from(at.get()).ok()?);
        // SAFETY: by 1 and 2 there is a descriptor at its address, written before it was mapped,
        // until the memory goes offline; descriptors are only shared.
        unsafe { pointer.as_ref() }
    }

    /// Where the head of `descriptor` is, which lies at `at` in the vmemmap. No walk.
    pub fn head_of_descriptor(at: VirtAddr, descriptor: &D) -> VirtAddr {
        D::Encoding::head_of(at, descriptor.word())
    }

    /// The head of the compound page that `frame` is part of, or `frame` itself where it is a page
    /// of its own; `None` where it is not online.
    pub fn head_of<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<Pfn> {
        let at = self.descriptor_address(frame)?;
        let descriptor = self.mapped_descriptor(table, frame)?;
        self.frame_of_descriptor(Self::head_of_descriptor(at, descriptor))
    }
}
