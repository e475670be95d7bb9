//! Who sees what is written to one frame: every address that shares it, and no other.

use super::Session;
use super::pages::every;
use super::problem::Problem;
use crate::case::Case;
use crate::{FrameInfo, Probe};
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::Pfn;
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;
use mm_core::paging::PageTable;

/// Written through the direct map, and seen through the vmemmap.
const BY_DIRECT_MAP: u64 = 0x5eed_0000_0000_0001;

/// Written through the vmemmap, and seen through the direct map.
const BY_VMEMMAP: u64 = 0x5eed_0000_0000_0002;

/// Whether the vmemmap pages of `a` and `b` have one frame: by arithmetic alone.
fn shared(case: &Case, model: &MemoryModel, a: Pfn, b: Pfn) -> bool {
    let page = model.vmemmap_page_order();
    let (page_a, page_b) = (a.align_down(page), b.align_down(page));
    if page_a == page_b {
        return true;
    }
    let (head_a, head_b) = (a.align_down(case.order), b.align_down(case.order));
    let same_tail = case.tails == Tails::PerOrder || head_a == head_b;
    case.shares_tails(model) && same_tail && page_a != head_a && page_b != head_b
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// For some frames of the first, a middle and the last compound page of the range (or
    /// subsection, of base pages): writes to the descriptor and looks at every vmemmap page of
    /// the range and of what is online besides.
    pub(super) fn written_is_seen(&self, case: &Case, online: &[Case]) -> Result<(), Problem> {
        let unit = case.order.max(self.on.model.subsection());
        let units = case.range.frames() / unit.frames();
        let per_page = self.on.model.descriptors_per_page();
        for block in [0, units / 2, units.saturating_sub(1)] {
            let offsets = [0, 5, per_page + 5, unit.frames() - 1];
            // Not all of these are there where a block has one vmemmap page.
            for offset in offsets.into_iter().filter(|at| *at < unit.frames()) {
                let frame = case
                    .range
                    .start()
                    .saturating_add(block * unit.frames() + offset);
                self.written_to(frame, case, online)?;
            }
        }
        Ok(())
    }

    fn written_to(&self, frame: Pfn, case: &Case, online: &[Case]) -> Result<(), Problem> {
        let owner = self.owner_by_direct_map(frame)?;
        owner.store(BY_DIRECT_MAP, Ordering::SeqCst);

        let per_page = self.on.model.descriptors_per_page();
        let in_page = frame.get() & (per_page - 1);
        let mut last_shared = frame;
        for page in every(case.range, per_page) {
            let other = page.saturating_add(in_page);
            let expected = if shared(case, &self.on.model, frame, other) {
                last_shared = other;
                BY_DIRECT_MAP
            } else {
                0
            };
            self.owner_is(other, expected)?;
        }
        for other in online.iter().filter(|other| other.range != case.range) {
            for page in every(other.range, per_page) {
                self.owner_is(page.saturating_add(in_page), 0)?;
            }
        }

        let at = self.word_address(last_shared, FrameInfo::<E>::OWNER)?;
        let page = frame.align_down(self.on.model.vmemmap_page_order());
        if self.has_read_only_tails(case) && page != frame.align_down(case.order) {
            self.refuses_store(at)?;
            owner.store(0, Ordering::SeqCst);
            return self.owner_is(last_shared, 0);
        }
        // SAFETY: 1: the owner's word, which may have any value.
        unsafe { self.on.probe.store(at, BY_VMEMMAP) }?;
        let found = owner.swap(0, Ordering::SeqCst);
        if found != BY_VMEMMAP {
            let expected = BY_VMEMMAP;
            return Err(Problem::Word {
                at,
                found,
                expected,
            });
        }
        self.owner_is(last_shared, 0)
    }

    /// The owner's word of `frame` through the direct map, also where others share it: the library
    /// itself hands nobody a reference to that.
    fn owner_by_direct_map(&self, frame: Pfn) -> Result<&AtomicU64, Problem> {
        let granule = self.on.model.granule();
        let at = self.word_address(frame, FrameInfo::<E>::OWNER)?;
        let mapping = self.table.lookup(at).mapping();
        let holder = mapping.and_then(|mapping| mapping.frame_of(at, granule));
        let page = self
            .on
            .direct_map
            .frame_pointer(holder.ok_or(Problem::NotOnline { frame })?);
        let offset = (at.get() & (granule.bytes() - 1)) as usize;
        // SAFETY: the library maps the frame as a page of descriptors, and the word is within one,
        // aligned to its size. It is an atomic, and stays online while this runs.
        Ok(unsafe { page.add(offset).cast::<AtomicU64>().as_ref() })
    }

    /// The owner's word of `frame`, as the CPU sees it, is `expected`.
    pub(super) fn owner_is(&self, frame: Pfn, expected: u64) -> Result<(), Problem> {
        let at = self.word_address(frame, FrameInfo::<E>::OWNER)?;
        let found = self.on.probe.load(at)?;
        if found == expected {
            return Ok(());
        }
        Err(Problem::Word {
            at,
            found,
            expected,
        })
    }
}
