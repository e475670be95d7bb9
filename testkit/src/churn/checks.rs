//! Looking at what is there, and comparing it with what should be.

use super::model::{Cell, Key};
use super::{Churn, FOREIGN_FRAME};
use crate::listed::Listed;
use crate::mapped_together::maps_together;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::{Altmap, DirectMap, InspectFrames};
use mm_core::paging::PageTable;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::Ordering;

impl<E: TailEncoding> Churn<'_, E> {
    /// Checks all that costs next to nothing: what is out, what the counters say, and that no rule
    /// was broken.
    pub(super) fn check_counts(&mut self) -> Result<(), String> {
        self.model.refresh();
        let expected = self.model.costs();
        let out = self.world.machine.frames().outstanding();
        let in_altmaps: u64 = self.altmaps.iter().map(|one| one.in_use()).sum();
        if in_altmaps != expected.of_altmaps {
            return Err(format!(
                "{in_altmaps} frames of altmaps are out, not {expected:?}"
            ));
        }
        let ram = expected.descriptors - expected.of_altmaps
            + expected.tables
            + expected.marks
            + expected.online_map
            + expected.reserve;
        if out != ram {
            let stats = self.vmemmap.stats();
            return Err(format!(
                "{out} frames of RAM are out, not {ram}: {expected:?}; the stats say {stats}"
            ));
        }
        let stats = self.vmemmap.stats();
        let found = super::model::Costs {
            descriptors: stats.descriptor_frames,
            tails: stats.tail_frames,
            of_altmaps: stats.altmap_frames,
            tables: stats.table_frames,
            marks: stats.mark_frames,
            online_map: stats.online_map_frames,
            reserve: stats.reserve_frames,
            reused: stats.reused_entries,
        };
        if found != expected {
            return Err(format!("the stats say {found:?}, not {expected:?}"));
        }
        let marked = self.vmemmap.mark_stats().marked;
        if marked != self.model.marks.len() as u64 {
            return Err(format!(
                "{marked} frames are marked, not {}",
                self.model.marks.len()
            ));
        }
        match self.world.machine.violations().total() {
            0 => Ok(()),
            _ => Err(format!(
                "rules were broken: {}",
                self.world.machine.violations()
            )),
        }
    }

    /// Compares `page` with what should be there, by code that is not the page table's. Answers with
    /// its frame.
    pub(super) fn check_page(&mut self, page: u64) -> Result<Option<Pfn>, String> {
        let at = self.world.layout.address(page);
        let cell = self.model.cell(page);
        let seen = self.table.leaf(at);
        let wrong = |what: &str| Err(format!("page {page} at {at}, {cell:?}: {what}, {seen:?}"));
        let Some(found) = seen else {
            return match cell {
                Cell::Free => Ok(None),
                _ => wrong("nothing is mapped"),
            };
        };
        let frame = found.frame_at(at, self.world.machine.model().granule().shift());
        let mut note = self.model.notes.get(&page).copied().unwrap_or(0);
        if let Some(place) = self.model.place_at(page) {
            let order = cell.order().unwrap_or(0);
            if let Err(what) = self.check_packed_head(place, order, note) {
                return wrong(&what);
            }
            // Stubs have none.
            note = 0;
        }
        let (order, writable) = match cell {
            Cell::Free => return wrong("something is mapped"),
            Cell::Foreign if frame.get() == FOREIGN_FRAME + page => return Ok(None),
            Cell::Foreign => return wrong("the foreign leaf has changed"),
            Cell::Own { order, .. } => (order, true),
            Cell::Tail { order, key } => {
                if *self.tail_frames.entry(key).or_insert(frame) != frame {
                    return wrong("there is another tail frame for it");
                }
                (order, matches!(key, Key::Compound(..)))
            }
        };
        if found.writable != writable || found.executable {
            return wrong("it has other rights");
        }
        match self.check_descriptors(page, frame, order, note) {
            Ok(()) => Ok(Some(frame)),
            Err(what) => wrong(&what),
        }
    }

    /// Checks the first and the last descriptor of a page.
    fn check_descriptors(&self, page: u64, frame: Pfn, order: u8, note: u64) -> Result<(), String> {
        let layout = &self.world.layout;
        let order = Order::new(order).ok_or("no such order")?;
        let bytes = layout.model.descriptor_bytes();
        let first = self
            .world
            .machine
            .memory()
            .frame_pointer(frame)
            .cast::<Page<E>>();
        for index in [0, layout.model.descriptors_per_page() - 1] {
            let described = layout.frame_of(page).saturating_add(index);
            let head = described.align_down(order);
            // SAFETY: the library has mapped the frame as a page of that many descriptors, which are
            // only shared.
            let descriptor = unsafe { first.add(index as usize).as_ref() };
            let at = VirtAddr::new(layout.address(page).get() + index * bytes);
            let found = E::head_of(at, descriptor.word());
            if descriptor.order() != order || Some(found) != layout.model.descriptor_address(head) {
                return Err(format!(
                    "the descriptor of {described} has order {} and its head at {found}",
                    descriptor.order()
                ));
            }
            let is_stub = E::is_stub(descriptor.word());
            let packed = matches!(
                self.model.cell(page),
                Cell::Tail {
                    key: Key::Stubs(..),
                    ..
                }
            );
            if is_stub != packed {
                return Err(format!(
                    "the descriptor of {described} is a stub, or is none"
                ));
            }
            if descriptor.is_tail() != (described != head || packed) {
                return Err(format!("the descriptor of {described} is another part"));
            }
            let flags = descriptor.flags().load(Ordering::Relaxed);
            if index == 0 && flags != note {
                return Err(format!("the kernel's {note:#x} has become {flags:#x}"));
            }
        }
        Ok(())
    }

    /// Checks the head at `place`, of a page of `order`.
    fn check_packed_head(&self, place: VirtAddr, order: u8, note: u64) -> Result<(), String> {
        let granule = self.world.layout.model.granule();
        let Some(found) = self.table.leaf(place) else {
            return Err(format!("there is no head at {place}"));
        };
        if !found.writable || found.executable {
            return Err(format!("the head at {place} has other rights"));
        }
        let holder = found.frame_at(place, granule.shift());
        let bytes = self.world.layout.model.descriptor_bytes();
        let index = (place.get() & (granule.bytes() - 1)) / bytes;
        let page = self.world.machine.memory().frame_pointer(holder);
        // SAFETY: the library has mapped the frame as a page of that many descriptors, which are only shared.
        let head = unsafe { page.cast::<Page<E>>().add(index as usize).as_ref() };
        let flags = head.flags().load(Ordering::Relaxed);
        let seen = (head.order().get(), head.is_tail(), flags);
        match seen == (order, false, note) && head.word() != E::vacant_word() {
            true => Ok(()),
            false => Err(format!(
                "the head at {place} is {seen:?}, not {order} {note:#x}"
            )),
        }
    }

    /// Compares the pages of `frames` that are listed with those that should be.
    pub(super) fn check_listed(&self, frames: PfnRange) -> Result<(), String> {
        let layout = &self.world.layout;
        let per_page = layout.model.descriptors_per_page();
        let first = layout.frame_of(0).get() / per_page;
        let in_use = self.altmaps.iter().filter(|one| one.in_use() > 0);
        let listed = Listed {
            per_page,
            part_at: |number: u64| {
                let page = number.checked_sub(first)?;
                let is_reserved = page < layout.device_pages() && {
                    let frame = layout.frame_of(page);
                    in_use.clone().any(|one| one.reserved().contains(frame))
                };
                self.model.listed_part(page).filter(|_| !is_reserved)
            },
        };
        listed.compare(frames, self.vmemmap.pages(&self.table, frames))
    }

    /// The same for the frames on both sides of the start of `page`.
    pub(super) fn check_listed_around(&self, page: u64) -> Result<(), String> {
        let first = self.world.layout.frame_of(page);
        let frames = match page {
            0 => PfnRange::single(first),
            _ => PfnRange::new(Pfn::new(first.get() - 1).unwrap_or(first), 2)
                .map_err(|error| error.to_string())?,
        };
        self.check_listed(frames)
    }

    /// Compares everything.
    pub(super) fn check_all(&mut self) -> Result<(), String> {
        let mut own = FxHashSet::default();
        let mut tails: FxHashMap<Key, Pfn> = FxHashMap::default();
        self.tail_frames.clear();
        for page in 0..self.world.layout.pages() {
            self.check_found(page)?;
            let Some(frame) = self.check_page(page)? else {
                continue;
            };
            let is_new = match self.model.cell(page) {
                Cell::Tail { key, .. } => tails.insert(key, frame).is_none_or(|one| one == frame),
                _ => own.insert(frame),
            };
            if !is_new {
                return Err(format!("page {page}: frame {frame} is another one's"));
            }
        }
        let of_tails: FxHashSet<Pfn> = tails.values().copied().collect();
        if of_tails.len() != tails.len() || !of_tails.is_disjoint(&own) {
            return Err("a tail frame is used twice".into());
        }
        // From somewhere else each time.
        let pages = self.world.layout.pages();
        let first = self.tally.operations * 7 % pages;
        self.check_listed(self.world.layout.frames(first, pages - first)?)?;
        let marked = self.vmemmap.marked(self.world.layout.window()?);
        let mut marked: Vec<u64> = marked.map(Pfn::get).collect();
        marked.sort_unstable();
        if !marked.iter().eq(&self.model.marks) {
            return Err(format!(
                "marked are {marked:x?}, not {:x?}",
                self.model.marks
            ));
        }
        let mut allocators: Vec<&dyn InspectFrames> = vec![self.world.machine.frames()];
        allocators.extend(self.altmaps.iter().map(|one| one as &dyn InspectFrames));
        let audit = self
            .vmemmap
            .audit(&self.table, &allocators, &mut self.scratch);
        audit.map(drop).map_err(|finding| finding.to_string())
    }

    /// Whether a huge leaf maps `page`.
    pub(super) fn is_huge(&self, page: u64) -> bool {
        let at = self.world.layout.address(page);
        let granule = self.world.layout.model.granule();
        match self.world.machine.translate(at) {
            Some(leaf) => leaf.order(granule) != Order::BASE,
            None => {
                let leaf = self.table.lookup(at).mapping();
                leaf.is_some_and(|found| found.leaf.block.order() != Order::BASE)
            }
        }
    }

    /// Whether a huge leaf or a shared table maps `page`.
    pub(super) fn is_one(&self, page: u64) -> bool {
        let bytes = self.world.layout.model.granule().bytes();
        let page = VirtRange::new(self.world.layout.address(page), bytes);
        page.is_ok_and(|page| maps_together(&self.table, page))
    }
}
