//! What is mapped, and what the descriptors say.

use super::Bench;
use crate::harness::{Controls, Harness, Seen};
use crate::outcome::{Stop, Verdict, ensure_at, equal_at, fail, skip};
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::paging::PageTable;

/// What a kernel may keep in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) flags: u64,
    pub(crate) references: u32,
    pub(crate) mappings: u32,
    pub(crate) private: u64,
}

impl State {
    /// Of a descriptor of memory that nobody uses yet.
    pub(crate) const fn new(is_tail: bool) -> Self {
        Self {
            flags: 0,
            references: if is_tail { 0 } else { 1 },
            mappings: 0,
            private: 0,
        }
    }

    /// Something to recognise a descriptor by.
    pub(crate) const fn of(frame: Pfn) -> Self {
        Self {
            flags: frame.get() << 1 | 1,
            references: frame.get() as u32 & 0x3fff_ffff | 0x4000_0000,
            mappings: frame.get() as u32 ^ 0x0505_0505,
            private: !frame.get(),
        }
    }
}

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    /// What the independent reader sees at the descriptor of `frame`.
    pub(crate) fn seen(&self, frame: Pfn) -> Result<Option<Seen>, Stop> {
        let at = self.address(frame)?;
        match self.controls.translate(self.table, at) {
            Some(seen) => Ok(seen),
            None => skip("the harness has no independent reader of translations"),
        }
    }

    pub(crate) fn address(&self, frame: Pfn) -> Result<VirtAddr, Stop> {
        match self.model.descriptor_address(frame) {
            Some(at) => Ok(at),
            None => fail("the vmemmap has room for the device's memory"),
        }
    }

    /// Checks that nothing translates for any page of `frames`.
    pub(crate) fn absent(&self, frames: PfnRange) -> Verdict {
        for page in 0..self.pages(frames) {
            let frame = self.frame_of_page(frames, page);
            let at = self.address(frame)?;
            ensure_at(
                self.table.lookup(at).mapping().is_none(),
                "the page table finds nothing",
                at,
            )?;
            ensure_at(
                !self.vmemmap.is_valid(&*self.table, frame),
                "memory that is not online is not valid",
                at,
            )?;
            if let Some(seen) = self.controls.translate(self.table, at) {
                ensure_at(seen.is_none(), "nothing is mapped", at)?;
            }
        }
        Ok(())
    }

    /// The frame that holds the descriptor of `frame`: what the independent reader says, where
    /// there is one, and the same as the page table says.
    pub(crate) fn holder(&self, frame: Pfn) -> Result<Pfn, Stop> {
        let at = self.address(frame)?;
        let found = self.table.lookup(at).mapping();
        let Some(found) = found.and_then(|found| found.frame_of(at, self.model.granule())) else {
            ensure_at(false, "the page table finds the descriptors", at)?;
            return fail("the page table finds the descriptors");
        };
        if let Some(seen) = self.controls.translate(self.table, at) {
            let seen = seen.map_or(u64::MAX, |seen| seen.frame.get());
            equal_at(found.get(), seen, "both readers find the same frame", at)?;
        }
        Ok(found)
    }

    /// The descriptor of `frame`, in the frame that [holds](Self::holder) it.
    pub(crate) fn descriptor(&self, frame: Pfn) -> Result<&Page<E>, Stop> {
        let holder = self.holder(frame)?;
        let index = frame.get() & (self.model.descriptors_per_page() - 1);
        let page = self.direct_map.frame_pointer(holder).cast::<Page<E>>();
        // SAFETY: the frame is mapped by the library as a page of descriptors, which fit it
        // exactly; descriptors are only shared.
        Ok(unsafe { page.add(index as usize).as_ref() })
    }

    /// Checks the descriptors of `frames`, memory in pages of `order`: those of a vmemmap page's
    /// first and last frame.
    pub(crate) fn described(&self, frames: PfnRange, order: Order) -> Verdict {
        let last_in_page = self.model.descriptors_per_page() - 1;
        for page in 0..self.pages(frames) {
            let first = self.frame_of_page(frames, page);
            for frame in [first, first.saturating_add(last_in_page)] {
                self.is_described(frame, order)?;
            }
        }
        Ok(())
    }

    /// Checks every descriptor of `frames`, memory of `node` in pages of `order` that nobody has
    /// used yet.
    pub(crate) fn described_as_new(&self, frames: PfnRange, order: Order) -> Verdict {
        for index in 0..frames.frames() {
            let frame = frames.start().saturating_add(index);
            self.is_described(frame, order)?;
            let new = State::new(!frame.is_aligned(order));
            let at = self.address(frame)?;
            ensure_at(self.state(frame)? == new, "a new descriptor is blank", at)?;
            let node = self.descriptor(frame)?.node().number();
            equal_at(self.node.number().into(), node.into(), "node", at)?;
        }
        Ok(())
    }

    /// Checks what the descriptor of `frame`, in a page of `order`, says of that.
    pub(crate) fn is_described(&self, frame: Pfn, order: Order) -> Verdict {
        let at = self.address(frame)?;
        let page = self.descriptor(frame)?;
        equal_at(order.get().into(), page.order().get().into(), "order", at)?;
        let head = self.address(frame.align_down(order))?;
        let found = E::head_of(at, page.word());
        equal_at(head.get(), found.get(), "address of the head", at)?;
        let is_tail = u64::from(at != head);
        equal_at(is_tail, page.is_tail().into(), "tail", at)?;
        let head_of = self.vmemmap.head_of(&*self.table, frame);
        let head_of = head_of.map_or(u64::MAX, Pfn::get);
        equal_at(frame.align_down(order).get(), head_of, "head_of", at)
    }

    /// What the kernel keeps in the descriptor of `frame`.
    pub(crate) fn state(&self, frame: Pfn) -> Result<State, Stop> {
        let page = self.descriptor(frame)?;
        Ok(State {
            flags: page.flags().load(Ordering::Relaxed),
            references: page.references().get().unwrap_or(u32::MAX),
            mappings: page.mappings().load(Ordering::Relaxed),
            private: page.private()[3].load(Ordering::Relaxed),
        })
    }

    /// Keeps `state` in the descriptor of `frame`.
    pub(crate) fn keep(&self, frame: Pfn, state: State) -> Verdict {
        let page = self.descriptor(frame)?;
        page.flags().store(state.flags, Ordering::Relaxed);
        // SAFETY: 1 and 2: nobody but this check counts references, so whatever it says is so.
        unsafe { page.references().unfreeze(state.references) };
        page.mappings().store(state.mappings, Ordering::Relaxed);
        page.private()[3].store(state.private, Ordering::Relaxed);
        Ok(())
    }

    /// A number that stands for what each vmemmap page of `frames` is mapped to, by both readers,
    /// and for what its first and last descriptor say. What becomes of tables and of the size of
    /// leaves is not in it.
    pub(crate) fn fingerprint(&self, frames: PfnRange) -> Result<u64, Stop> {
        let last_in_page = self.model.descriptors_per_page() - 1;
        let mut fingerprint = Fingerprint(0);
        for page in 0..self.pages(frames) {
            let first = self.frame_of_page(frames, page);
            let at = self.address(first)?;
            let found = self.table.lookup(at).mapping();
            let frame = found.and_then(|found| found.frame_of(at, self.model.granule()));
            fingerprint.add(frame.map_or(u64::MAX, Pfn::get));
            let Some(found) = found else { continue };
            fingerprint.add(found.leaf.writable.into());
            fingerprint.add(found.leaf.role as u64);
            if let Some(seen) = self.controls.translate(self.table, at) {
                fingerprint.add(seen.map_or(u64::MAX, |seen| seen.frame.get()));
                fingerprint.add(seen.is_some_and(|seen| seen.writable).into());
            }
            if !self.vmemmap.is_valid(self.table, first) {
                continue;
            }
            for frame in [first, first.saturating_add(last_in_page)] {
                let page = self.descriptor(frame)?;
                fingerprint.add(page.word());
                fingerprint.add(page.order().get().into());
                fingerprint.add(self.state(frame)?.flags);
            }
        }
        Ok(fingerprint.0)
    }
}

/// A hash, of numbers in order.
struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}
