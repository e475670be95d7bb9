//! Where packed heads are mapped, compared with the model and with the oracle.

use super::interpreter::Interpreter;
use super::model::{Head, place};
use super::readers::ScriptReaders;
use arch_sim::FlatTable;
use hosted::inspect::SeenEntry;
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::paging::{PageTable, Visit};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// The addresses of the places of all pages of the window, by order.
    fn ranges_of_places(&self) -> impl Iterator<Item = VirtRange> {
        let scale = self.scale();
        let window = scale.frames(&self.model.all_pages());
        let orders = scale.packed_orders().filter(|_| self.packs);
        orders.filter_map(move |order| {
            let ends = [window?.start(), window?.last()].map(|frame| {
                let at = place(&scale, frame.get() >> order << order, order)?;
                Some(VirtAddr::new(
                    at.get() / scale.page_bytes() * scale.page_bytes(),
                ))
            });
            let last = VirtAddr::new(ends[1]?.get() + scale.page_bytes() - 1);
            VirtRange::between(ends[0]?, last)
        })
    }

    /// The first and the last of the pages of places that are mapped.
    pub(super) fn some_places(&self) -> [Option<VirtRange>; 2] {
        let ends = [self.model.places().next(), self.model.places().next_back()];
        ends.map(|page| self.range_of(&(page?..page? + 1)))
    }

    /// The frames of all pages of places that are mapped, by number.
    pub(super) fn seen_places(&self) -> Result<BTreeMap<u64, u64>, String> {
        let scale = self.scale();
        let mut seen = BTreeMap::new();
        let mut wrong = None;
        for range in self.ranges_of_places() {
            self.table.scan(range, &mut |entry| {
                let SeenEntry::Leaf(leaf) = entry else {
                    return;
                };
                if !leaf.owned || !leaf.writable || leaf.executable || leaf.order > Order::BASE {
                    wrong.get_or_insert(leaf);
                }
                seen.insert(scale.page_at(leaf.at), leaf.frame.get());
            });
        }
        match wrong {
            Some(leaf) => Err(format!("a page of heads is mapped so: {leaf:x?}")),
            None => Ok(seen),
        }
    }

    /// The descriptor at `place`, in a page of places with this frame.
    fn head_in(&self, frame: u64, place: VirtAddr) -> Result<&Page<E>, String> {
        let frame = Pfn::new(frame).ok_or("no such frame")?;
        let index = place.get() % self.scale().page_bytes() / self.scale().descriptor_bytes();
        let page = self.parts.machine.memory().frame_pointer(frame);
        // SAFETY: the library has mapped the frame as a page of that many descriptors, which are only shared.
        Ok(unsafe { page.cast::<Page<E>>().add(index as usize).as_ref() })
    }

    /// Compares the heads of pages that begin in `pages` with what they should be.
    pub(super) fn check_heads(&self, pages: &Range<u64>) -> Result<(), String> {
        let mut known = None;
        for (number, head) in self.model.heads_in(pages.clone()) {
            let first = number * self.scale().per_page;
            let place = place(&self.scale(), first, head.order).ok_or("no place for a head")?;
            let page = self.scale().page_at(place);
            let frame = match known.filter(|(other, _)| *other == page) {
                Some((_, frame)) => frame,
                None => {
                    let seen = self.seen(&(page..page + 1));
                    let frame = seen.first().copied().flatten();
                    frame.ok_or(format!("nothing is mapped for the head of {first:#x}"))?
                }
            };
            known = Some((page, frame));
            self.check_head(first, head, self.head_in(frame, place)?)?;
        }
        Ok(())
    }

    fn check_head(&self, first: u64, head: Head, found: &Page<E>) -> Result<(), String> {
        let held = self.model.held.get(&first).copied().unwrap_or(0);
        let written = self.model.written.get(&first);
        let (flags, private) = written.map_or((0, 0), |value| (*value, !value));
        let right = (
            head.order,
            E::head_word(),
            u32::from(head.described.node),
            head.described.references + held,
            (flags, private, 0),
        );
        let seen = (
            found.order().get(),
            found.word(),
            found.node().number(),
            found.references().get().unwrap_or(u32::MAX),
            (
                found.flags().load(Ordering::Relaxed),
                found.private()[3].load(Ordering::Relaxed),
                found.mappings().load(Ordering::Relaxed),
            ),
        );
        match seen == right {
            true => Ok(()),
            false => Err(format!(
                "the head of {first:#x} is {seen:x?}, expected {right:x?}"
            )),
        }
    }

    /// Compares all that is mapped for heads with what should be, places without heads too.
    pub(super) fn check_places(&self) -> Result<(), String> {
        if !self.packs {
            return Ok(());
        }
        let seen = self.seen_places()?;
        if !seen.keys().copied().eq(self.model.places()) {
            let expected: Vec<_> = self.model.places().collect();
            return Err(format!(
                "heads are in pages {seen:x?}, expected {expected:x?}"
            ));
        }
        self.check_heads(&self.model.all_pages())?;
        let mut used = BTreeMap::new();
        for (number, head) in self.model.heads_in(self.model.all_pages()) {
            let first = number * self.scale().per_page;
            used.insert(place(&self.scale(), first, head.order), first);
        }
        for (page, frame) in seen {
            let start = self.scale().address(page);
            for index in 0..self.scale().per_page {
                let at = VirtAddr::new(start.get() + index * self.scale().descriptor_bytes());
                let is_vacant = self.head_in(frame, at)?.word() == E::vacant_word();
                let head = used.get(&Some(at));
                if is_vacant != head.is_none() {
                    return Err(format!(
                        "the place at {at} has none: {is_vacant}, {head:x?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The frames that the oracle has mapped for heads, by number.
    pub(super) fn oracle_places(&self, table: &FlatTable) -> BTreeMap<u64, u64> {
        let mut seen = BTreeMap::new();
        for range in self.ranges_of_places() {
            let _ = table.visit(range, &mut |visit| {
                if let Visit::Leaves { at, run } = visit {
                    seen.insert(self.scale().page_at(at), run.leaf.block.first().get());
                }
                ControlFlow::Continue(())
            });
        }
        seen
    }
}
