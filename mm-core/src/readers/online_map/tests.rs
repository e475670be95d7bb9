//! The online map against a set of subsections, operation by operation.

use super::*;
use crate::addr::{Granule, VirtAddr};
use crate::model::ModelConfig;
extern crate std;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::vec::Vec;

/// Three spans of 64 GiB, the last of which the model has half of.
const SPAN: u64 = 1 << 24;
const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
    granule: Granule::Size4K,
    descriptor_bytes: 64,
    vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
    frames: 2 * SPAN + SPAN / 2,
    section: Order::new(15).unwrap(),
    subsection: Order::new(9).unwrap(),
    max_order: Order::new(18).unwrap(),
}) {
    Ok(model) => model,
    Err(_) => panic!(),
};

/// Frames that are there as long as they are out.
#[derive(Default)]
struct Memory {
    out: Mutex<BTreeMap<Pfn, usize>>,
}

const PAGE: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

impl Memory {
    fn take(&self) -> Pfn {
        let mut out = self.out.lock().unwrap();
        let frame = out.keys().last().map_or(1000, |last| last.get() + 1);
        let frame = Pfn::new(frame).unwrap();
        // SAFETY: the size is not zero.
        let page = NonNull::new(unsafe { alloc(PAGE) }).unwrap();
        // SAFETY: all of a new page. What was there before is not relied on.
        unsafe { page.write_bytes(0xa5, 4096) };
        out.insert(frame, page.expose_provenance().get());
        frame
    }

    fn free(&self, frame: Pfn) {
        let page = self.out.lock().unwrap().remove(&frame).unwrap();
        // SAFETY: it came from `take` and is freed once.
        unsafe { dealloc(std::ptr::with_exposed_provenance_mut(page), PAGE) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let all: Vec<_> = self.out.lock().unwrap().keys().copied().collect();
        all.into_iter().for_each(|frame| self.free(frame));
    }
}

// SAFETY: 1 to 3: each frame that is out has a page of its own.
unsafe impl DirectMap for Memory {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let page = self.out.lock().unwrap()[&frame];
        NonNull::new(std::ptr::with_exposed_provenance_mut(page)).unwrap()
    }
}

struct Map {
    memory: Memory,
    root: Vec<OnlineEntry>,
    /// The subsections that are online.
    online: BTreeSet<u64>,
}

fn frames(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
}

impl Map {
    fn new() -> Self {
        let root = (0..MODEL.online_entries()).map(|_| OnlineEntry::new());
        Self {
            memory: Memory::default(),
            root: root.collect(),
            online: BTreeSet::new(),
        }
    }

    fn map(&self) -> OnlineMap<'_> {
        OnlineMap::new(&MODEL, &self.root).unwrap()
    }

    fn give_bits(&self, part: &Part<'_>) {
        let bits = self.memory.take();
        // SAFETY: 1: taken just now.
        unsafe { part.give_bits(&self.memory, bits, 4096) };
    }

    fn publish(&mut self, range: PfnRange) {
        for part in self.map().parts(range) {
            if part.needs_bits_to_publish() {
                self.give_bits(&part);
            }
            part.publish(&self.memory);
        }
        self.online.extend(subsections(range));
    }

    fn withdraw(&mut self, range: PfnRange) {
        for part in self.map().parts(range) {
            if part.needs_bits_to_withdraw() {
                self.give_bits(&part);
            }
            part.withdraw(&self.memory);
        }
        for subsection in subsections(range) {
            self.online.remove(&subsection);
        }
    }

    fn free_bits(&self, range: PfnRange) {
        for part in self.map().parts(range) {
            if let Some(bits) = part.take_bits(&self.memory) {
                self.memory.free(bits);
            }
        }
    }

    /// Asks about the first and the last frame of each subsection near an end of one of `ranges`, and
    /// of every 64th.
    fn check(&self) {
        let all = subsections(MODEL.all_frames());
        for subsection in all {
            let is_online = self.online.contains(&subsection);
            for frame in [subsection << 9, (subsection << 9) + 511] {
                let frame = Pfn::new(frame).unwrap();
                let found = self.map().contains(&self.memory, frame);
                assert_eq!(found, is_online, "frame {frame}");
            }
        }
        let out: BTreeSet<_> = self.memory.out.lock().unwrap().keys().copied().collect();
        let map = self.map();
        let spans = core::iter::successors(Some(Pfn::ZERO), |frame| map.span_after(*frame));
        let spans = spans.take(MODEL.online_entries());
        let reached: BTreeSet<_> = spans.filter_map(|frame| map.bits_of(frame)).collect();
        assert_eq!(out, reached);
    }

    fn bits(&self) -> usize {
        self.memory.out.lock().unwrap().len()
    }
}

fn subsections(range: PfnRange) -> core::ops::RangeInclusive<u64> {
    range.start().get() >> 9..=range.last().get() >> 9
}

#[test]
fn a_span_has_all_memory_at_most() {
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        let model = MemoryModel::new(ModelConfig {
            granule,
            descriptor_bytes: 64,
            vmemmap_base: VirtAddr::new(0),
            frames: Pfn::MAX.get() + 1,
            section: Order::MAX,
            subsection: Order::MAX,
            max_order: Order::new(18).unwrap(),
        })
        .unwrap();
        let root = [const { OnlineEntry::new() }];
        assert_eq!(model.online_entries(), 1);
        let map = OnlineMap::new(&model, &root).unwrap();
        let part = map.parts(model.all_frames()).next().unwrap();
        assert!(!part.needs_bits_to_publish(), "all of a span");
        part.publish(&Memory::default());
        assert!(map.contains(&Memory::default(), Pfn::MAX));
    }
}

#[test]
fn the_root_has_an_entry_for_each_span_and_not_fewer() {
    assert_eq!(MODEL.online_entries(), 3);
    let root = [OnlineEntry::new(), OnlineEntry::new()];
    let refused = OnlineMap::new(&MODEL, &root).err();
    let (needed, given) = (3, 2);
    assert_eq!(refused, Some(RootTooSmall { needed, given }));
}

#[test]
fn entries_say_what_they_were_made_of() {
    for frame in [Pfn::ZERO, Pfn::MAX] {
        for followed in [false, true] {
            for freezes in [0, 1, MOST_FREEZES] {
                for content in [
                    Content::None,
                    Content::All,
                    Content::Bits { frame, followed },
                ] {
                    let state = State { content, freezes };
                    assert_eq!(State::of(state.raw()), state);
                }
            }
        }
    }
    assert_eq!(State::of(0).content, Content::None);
}

#[test]
fn whole_spans_cost_no_frame_and_parts_one() {
    let mut map = Map::new();
    map.check();
    map.publish(frames(0, 2 * SPAN));
    assert_eq!(map.bits(), 0);
    map.check();
    let part = frames(2 * SPAN, 512);
    map.publish(part);
    assert_eq!(map.bits(), 1);
    map.check();
    map.withdraw(part);
    map.check();
    map.free_bits(part);
    assert_eq!(map.bits(), 0);
    // A part of what was whole.
    let part = frames(SPAN - 1024, 2048);
    map.withdraw(part);
    assert_eq!(map.bits(), 2);
    map.check();
    map.publish(part);
    map.check();
    map.withdraw(frames(0, 2 * SPAN));
    map.free_bits(frames(0, 2 * SPAN));
    assert_eq!(map.bits(), 0);
    map.check();
    // Frames that no entry is for.
    let behind = Pfn::new(3 * SPAN).unwrap();
    assert!(!map.map().contains(&map.memory, behind));
}

#[test]
fn parts_come_and_go_in_any_order() {
    let mut map = Map::new();
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % below
    };
    let all = MODEL.all_frames().frames() >> 9;
    for _ in 0..200 {
        let start = random(all);
        let longest = [3, 70, all][random(3) as usize].min(all - start);
        let count = random(longest) + 1;
        let range = frames(start << 9, count << 9);
        match random(2) {
            0 => map.publish(range),
            _ => {
                map.withdraw(range);
                map.free_bits(range);
            }
        }
        map.check();
    }
    map.withdraw(MODEL.all_frames());
    map.free_bits(MODEL.all_frames());
    assert_eq!(map.bits(), 0);
}

#[test]
fn bits_of_frozen_memory_stay_and_can_be_published_without_a_frame() {
    let mut map = Map::new();
    let [one, other] = [frames(512, 512), frames(2048, 1024)];
    map.publish(one);
    map.publish(other);
    let freeze = |map: &Map, range| map.map().parts(range).all(|part| part.add_freeze());
    let end = |map: &Map, range| {
        let parts = map.map().parts(range);
        parts.for_each(|part| part.remove_freeze());
    };
    assert!(freeze(&map, one) && freeze(&map, other), "side by side");
    map.withdraw(one);
    map.withdraw(other);
    map.free_bits(one);
    assert_eq!(map.bits(), 1);
    map.check();
    // One is gone, and the other one may still be thawed.
    end(&map, one);
    map.free_bits(one);
    assert_eq!(map.bits(), 1);
    map.publish(other);
    end(&map, other);
    assert_eq!(map.bits(), 1);
    map.check();
    map.withdraw(other);
    map.free_bits(other);
    assert_eq!(map.bits(), 0);
}

#[test]
fn one_freeze_more_than_can_be_counted_is_refused_and_changes_nothing() {
    let mut map = Map::new();
    let range = frames(512, 512);
    map.publish(range);
    let part = || map.map().parts(range).next().unwrap();
    let counted = (0..).take_while(|_| part().add_freeze()).count() as u64;
    assert_eq!(counted, MOST_FREEZES);
    let memory = &map.memory;
    assert!(map.map().contains(memory, range.start()));
    for _ in 0..counted {
        assert!(part().has_freezes());
        part().remove_freeze();
    }
    assert!(!part().has_freezes());
    map.check();
    map.withdraw(range);
    map.free_bits(range);
    assert_eq!(map.bits(), 0);
}
