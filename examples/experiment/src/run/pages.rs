//! Every vmemmap page of a range, seen by the CPU.

use super::Session;
use super::problem::Problem;
use crate::case::Case;
use crate::{FaultKind, FrameInfo, Probe};
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Descriptor, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::pagemap::Tails;
use mm_core::paging::PageTable;

/// After how many pages one is stored to that should fault.
const STORE_EVERY: u64 = 64;

/// The frames at multiples of `step` in `range`, which starts at one.
pub(super) fn every(range: PfnRange, step: u64) -> impl Iterator<Item = Pfn> {
    (0..range.frames().div_ceil(step))
        .filter_map(move |index| range.start().checked_add(index * step))
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// The address of the descriptor of `frame`, which the vmemmap has room for.
    pub(super) fn address(&self, frame: Pfn) -> Result<VirtAddr, Problem> {
        self.vmemmap
            .descriptor_address(frame)
            .ok_or(Problem::NotOnline { frame })
    }

    /// The address of the word `offset` bytes into the descriptor of `frame`.
    pub(super) fn word_address(&self, frame: Pfn, offset: u64) -> Result<VirtAddr, Problem> {
        self.address(frame)?
            .checked_add(offset)
            .ok_or(Problem::NotOnline { frame })
    }

    /// The order of the page that `frame` is in, by its descriptor. Of a frame that an altmap
    /// reserves the library hands out none; it is found by the tables.
    fn order(&self, frame: Pfn) -> Result<Order, Problem> {
        let none = Problem::NotOnline { frame };
        match self.vmemmap.descriptor(&*self.table, frame) {
            found if !self.vmemmap.is_reserved(frame) => found.map(|d| d.order()).ok_or(none),
            Some(_) => Err(Problem::ShouldRefuse),
            None => {
                let at = self.address(frame)?;
                let seen = self.on.raw_tables.translate(at).ok_or(none)?;
                let page = self.on.direct_map.frame_pointer(seen.frame);
                let offset = (at.get() & (self.on.model.granule().bytes() - 1)) as usize;
                // SAFETY: the frame holds descriptors of this type, which the direct map reaches;
                // the address is that of one of them. They are only shared.
                let descriptor: &FrameInfo<E> = unsafe { page.add(offset).cast().as_ref() };
                Ok(descriptor.order())
            }
        }
    }

    /// The first and the last descriptor of every page can be loaded through the MMU, say what part
    /// of a compound page they are, and lead to the head.
    pub(super) fn all_readable(&self, case: &Case) -> Result<(), Problem> {
        let per_page = self.on.model.descriptors_per_page();
        for first in every(case.range, per_page) {
            for frame in [first, first.saturating_add(per_page - 1)] {
                let at = self.word_address(frame, FrameInfo::<E>::WORD)?;
                let word = self.on.probe.load(at)?;
                let head = frame.align_down(case.order);
                if FrameInfo::<E>::is_tail_word(word) == (frame == head) {
                    return Err(Problem::Part { frame });
                }
                let head_at = E::head_of(self.address(frame)?, word);
                let found = self.vmemmap.frame_of_descriptor(head_at);
                if found != Some(head) {
                    return Err(Problem::Head { frame, found });
                }
            }
        }
        Ok(())
    }

    /// `Vmemmap::head_of`, for some frames of each compound page.
    pub(super) fn heads_are_found(&self, case: &Case) -> Result<(), Problem> {
        let unit = case.order.max(self.on.model.subsection()).frames();
        let per_page = self.on.model.descriptors_per_page();
        let sample = [0, 1, per_page - 1, per_page, unit / 2, unit - 1];
        for block in every(case.range, unit) {
            // Not all of these are there where a block has one vmemmap page.
            let within = sample.iter().filter(|offset| **offset < unit);
            for frame in within.map(|offset| block.saturating_add(*offset)) {
                let found = self.vmemmap.head_of(&*self.table, frame);
                if found != Some(frame.align_down(case.order)) {
                    return Err(Problem::Head { frame, found });
                }
                if self.order(frame)? != case.order {
                    return Err(Problem::NotOnline { frame });
                }
            }
        }
        Ok(())
    }

    /// The vmemmap pages next to the range fault, or are those of a range that is online.
    pub(super) fn neighbours(&self, case: &Case, online: &[Case]) -> Result<(), Problem> {
        let below = case.range.start().get().checked_sub(1).and_then(Pfn::new);
        let above = case.range.last().checked_add(1);
        for frame in [below, above].into_iter().flatten() {
            let Ok(at) = self.address(frame.align_down(Order::BASE)) else {
                continue;
            };
            if online.iter().any(|other| other.range.contains(frame)) {
                self.on.probe.load(at)?;
            } else {
                self.faults(at)?;
            }
        }
        Ok(())
    }

    /// A store to a tail that belongs to all compound pages of an order faults, since it is
    /// read-only; some pages of each compound page.
    pub(super) fn tails_refuse_stores(&self, case: &Case) -> Result<(), Problem> {
        if !self.has_read_only_tails(case) {
            return Ok(());
        }
        let per_page = self.on.model.descriptors_per_page();
        let compound = case.order.frames();
        for head in every(case.range, compound) {
            for offset in [per_page, compound / 2, compound - per_page] {
                let at = self.word_address(head.saturating_add(offset), FrameInfo::<E>::OWNER)?;
                self.refuses_store(at)?;
            }
        }
        Ok(())
    }

    /// Whether tails are mapped read-only.
    pub(super) fn has_read_only_tails(&self, case: &Case) -> bool {
        case.tails == Tails::PerOrder && case.shares_tails(&self.on.model)
    }

    /// A store to the owner's word at `at`, which is mapped, is not allowed, and has no effect.
    pub(super) fn refuses_store(&self, at: VirtAddr) -> Result<(), Problem> {
        let expected = self.on.probe.load(at)?;
        // SAFETY: 1: an owner's word, which may have any value.
        self.faults_by(at, FaultKind::NotAllowed, || unsafe {
            self.on.probe.store(at, !expected)
        })?;
        match self.on.probe.load(at)? {
            found if found == expected => Ok(()),
            found => Err(Problem::Word {
                at,
                found,
                expected,
            }),
        }
    }

    /// A load from every page faults, and the handler has seen each fault; some stores too.
    pub(super) fn all_fault(&self, case: &Case) -> Result<(), Problem> {
        self.each_faults(case, 1)
    }

    /// The same for one page of so many, and the last one.
    pub(super) fn each_faults(&self, case: &Case, of: u64) -> Result<(), Problem> {
        let per_page = self.on.model.descriptors_per_page();
        let last = self.word_address(case.range.last(), FrameInfo::<E>::OWNER)?;
        self.faults(last)?;
        for (index, frame) in (0..).zip(every(case.range, per_page * of)) {
            let at = self.word_address(frame, FrameInfo::<E>::OWNER)?;
            self.faults(at)?;
            if index % STORE_EVERY == 0 {
                // SAFETY: 1: an owner's word, or nothing at all.
                self.faults_by(at, FaultKind::NotMapped, || unsafe {
                    self.on.probe.store(at, 1)
                })?;
            }
        }
        Ok(())
    }

    /// A load from `at` faults.
    pub(super) fn faults(&self, at: VirtAddr) -> Result<(), Problem> {
        self.faults_by(at, FaultKind::NotMapped, || {
            self.on.probe.load(at).map(drop)
        })
    }

    fn faults_by(
        &self,
        at: VirtAddr,
        kind: FaultKind,
        access: impl FnOnce() -> Result<(), crate::Fault>,
    ) -> Result<(), Problem> {
        let before = self.on.probe.faults();
        let Err(fault) = access() else {
            return Err(Problem::NoFault { at });
        };
        let seen = self.on.probe.faults() - before;
        if fault.at == at && fault.kind == kind && seen == 1 {
            Ok(())
        } else {
            Err(Problem::OtherFault { at, fault, seen })
        }
    }
}
