//! A backend that is as small as it can be passes the battery: the methods that have no default
//! body over a plain map, and an allocator without counts.
//!
//! Its RAM starts with frame 0, and its vmemmap ends with the address space.

use arch_sim::SimMemory;
use conformance::{Controls, Harness, Outcome, Parts, Seen};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::{Counted, DeviceAltmap, PlainAllocator};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::{Flush, FlushScope, Leaf, MapError, Mapping, PageTable, Role, TableRecords};
use mm_core::vmemmap::AuditSlot;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

/// Another granule than anywhere else, and descriptors that are the same.
const GRANULE: Granule = Granule::Size16K;

fn model() -> MemoryModel {
    let order = |order| Order::new(order).unwrap();
    MemoryModel::new(ModelConfig {
        granule: GRANULE,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(0xffff_ffff_f800_0000),
        // The default `visit` looks at every page there is room for.
        frames: 1 << 21,
        section: order(13),
        subsection: order(9),
        max_order: order(18),
    })
    .unwrap()
}

fn range(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
}

fn device() -> PfnRange {
    range(1 << 20, 3 << 16)
}

/// What CPUs may still have cached: leaves that were cleared and not flushed.
type Stale = Rc<RefCell<Vec<(VirtAddr, Block)>>>;

/// A kernel's own page table, page by page.
struct PerPage {
    leaves: BTreeMap<VirtAddr, Leaf>,
    huge: Option<Order>,
    stale: Stale,
    flushes: Rc<Cell<u64>>,
}

impl PerPage {
    fn bytes(leaf: &Leaf) -> u64 {
        leaf.block.order().bytes(GRANULE).unwrap()
    }
}

// SAFETY: 1: the map holds the leaf at its address. 2: they read the map. 3: nothing translates by
// it. 4: the default `unmap` reports after its flush. 5: `clear_leaf` passes foreign leaves over.
unsafe impl PageTable for PerPage {
    fn granule(&self) -> Granule {
        GRANULE
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.huge
    }

    fn lookup(&self, at: VirtAddr) -> Option<Mapping> {
        let (start, leaf) = self.leaves.range(..=at).next_back()?;
        let inside = at.get() - start.get() < Self::bytes(leaf);
        inside.then_some(Mapping {
            at: *start,
            leaf: *leaf,
        })
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        _node: NodeId,
        _records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        let order = leaf.block.order();
        let bytes = Self::bytes(&leaf);
        let is_known = order == Order::BASE || Some(order) == self.huge;
        if !is_known || !at.is_aligned(bytes) {
            return Err(MapError::Unsupported { at, order });
        }
        let span = VirtRange::new(at, bytes).unwrap();
        if let Some(mapping) = self.lookup(span.last()).or_else(|| self.lookup(at)) {
            return Err(MapError::InUse {
                at: mapping.at.max(at),
            });
        }
        if let Some((at, _)) = self.leaves.range(at..=span.last()).next() {
            return Err(MapError::InUse { at: *at });
        }
        self.leaves.insert(at, leaf);
        Ok(())
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let mapping = self.lookup(at)?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        self.leaves.remove(&mapping.at);
        self.stale
            .borrow_mut()
            .push((mapping.at, mapping.leaf.block));
        flush.add(VirtRange::new(mapping.at, Self::bytes(&mapping.leaf)).unwrap());
        Some(mapping)
    }

    fn flush(&mut self, obligation: Flush) {
        let covered = |at: VirtAddr| match obligation.scope() {
            FlushScope::Nothing => false,
            FlushScope::Everything => true,
            FlushScope::Ranges(ranges) => ranges.iter().flatten().any(|range| range.contains(at)),
        };
        self.stale.borrow_mut().retain(|(at, _)| !covered(*at));
        let something = u64::from(obligation.scope() != FlushScope::Nothing);
        self.flushes.set(self.flushes.get() + something);
    }
}

/// A bump allocator with a set of what came back; complains of frames that come back while they are
/// cached.
struct Plain {
    next: Cell<u64>,
    end: u64,
    free: RefCell<BTreeSet<u64>>,
    left: Cell<Option<u64>>,
    no_blocks: Cell<bool>,
    stale: Stale,
    complaints: Cell<u64>,
}

// SAFETY: 1: the counter only grows, and what came back is single frames, each handed out once
// until it comes back again. 2: it takes frames one by one. 3: all of them are the memory's.
unsafe impl PlainAllocator for Plain {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        if self.left.get() == Some(0) || (self.no_blocks.get() && order != Order::BASE) {
            return None;
        }
        let from_list = match order {
            Order::BASE => self.free.borrow_mut().pop_first(),
            _ => None,
        };
        let first = match from_list {
            Some(first) => first,
            None => {
                let first = self.next.get().next_multiple_of(order.frames());
                if first + order.frames() > self.end {
                    return None;
                }
                let mut free = self.free.borrow_mut();
                free.extend(self.next.get()..first);
                self.next.set(first + order.frames());
                first
            }
        };
        self.left.set(self.left.get().map(|left| left - 1));
        Block::new(Pfn::new(first)?, order)
    }

    unsafe fn free(&self, block: Block) {
        let frames = block.frames();
        let (first, last) = (frames.start().get(), frames.last().get());
        let mut stale = self.stale.borrow().clone().into_iter();
        let is_cached = stale.any(|(_, stale)| stale.frames().overlaps(frames));
        let mut free = self.free.borrow_mut();
        let is_free = free.range(first..=last).next().is_some();
        free.extend(first..=last);
        let wrong = u64::from(is_cached) + u64::from(is_free);
        self.complaints.set(self.complaints.get() + wrong);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}

struct Tools<'p> {
    plain: &'p Plain,
    flushes: Rc<Cell<u64>>,
}

impl Controls<PerPage> for Tools<'_> {
    fn translate(&self, table: &PerPage, at: VirtAddr) -> Option<Option<Seen>> {
        // By the map, with nothing of the trait's.
        let found = table
            .leaves
            .range(..=at)
            .next_back()
            .and_then(|(start, leaf)| {
                let page = (at.get() - start.get()) / GRANULE.bytes();
                let frame = leaf.block.first().checked_add(page)?;
                leaf.block.frames().contains(frame).then_some(Seen {
                    frame,
                    writable: leaf.writable,
                    executable: false,
                })
            });
        Some(found)
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        self.plain.left.set(n);
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.plain.no_blocks.set(fail);
        true
    }

    fn map_foreign(&self, table: &mut PerPage, at: VirtAddr, leaf: Leaf) -> bool {
        let free = table.lookup(at).is_none();
        if free {
            table.leaves.insert(at, leaf);
        }
        free
    }

    fn unmap_foreign(&self, table: &mut PerPage, at: VirtAddr) {
        table.leaves.remove(&at);
    }

    fn flushes(&self, _table: &PerPage) -> Option<u64> {
        Some(self.flushes.get())
    }

    fn violations(&self) -> u64 {
        self.plain.complaints.get()
    }
}

struct Small<'p> {
    table: PerPage,
    frames: Counted<'p, &'p Plain>,
    memory: &'p SimMemory,
    altmap: &'p DeviceAltmap<&'p SimMemory>,
    tools: Tools<'p>,
    scratch: Vec<AuditSlot>,
}

impl<'p> Harness for Small<'p> {
    type Table = PerPage;
    type Frames = Counted<'p, &'p Plain>;
    type DirectMap = SimMemory;
    type Controls = Tools<'p>;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: model(),
            table: &mut self.table,
            frames: &self.frames,
            direct_map: self.memory,
            controls: &self.tools,
            device: device(),
            node: NodeId::default(),
            altmap: Some(self.altmap),
            scratch: &mut self.scratch,
            ends_are_free: true,
        }
    }
}

/// The battery's outcomes, and how often was flushed.
fn battery(huge: Option<Order>) -> (Vec<(&'static str, Outcome)>, u64) {
    let ram = range(0, 1 << 14);
    let (stale, flushes) = (Stale::default(), Rc::new(Cell::new(0)));
    let plain = Plain {
        next: Cell::new(ram.start().get()),
        end: ram.last().get() + 1,
        free: RefCell::default(),
        left: Cell::new(None),
        no_blocks: Cell::new(false),
        stale: Rc::clone(&stale),
        complaints: Cell::new(0),
    };
    let mut counts: Vec<_> = (0..ram.frames()).map(|_| AtomicU64::new(0)).collect();
    let reserved = device().take_first(model().subsection().frames()).0;
    let memory = SimMemory::new(GRANULE, &[ram, reserved]).unwrap();
    // SAFETY: 1 to 3: the memory has these frames, for this altmap and one vmemmap alone.
    let altmap = unsafe { DeviceAltmap::new(&model(), &memory, reserved, NodeId::default()) };
    let altmap = altmap.unwrap();
    let mut harness = Small {
        table: PerPage {
            leaves: BTreeMap::new(),
            huge,
            stale,
            flushes: Rc::clone(&flushes),
        },
        frames: Counted::new(&plain, ram, &mut counts).unwrap(),
        memory: &memory,
        altmap: &altmap,
        tools: Tools {
            plain: &plain,
            flushes: Rc::clone(&flushes),
        },
        scratch: vec![AuditSlot::default(); 1 << 14],
    };
    let mut outcomes = Vec::new();
    conformance::run(&mut harness, &mut |name, outcome| {
        outcomes.push((name, outcome))
    });
    (outcomes, flushes.get())
}

/// Checks that all passed but those that were skipped for one of `reasons`, each of which applies.
fn assert_passed(outcomes: &[(&str, Outcome)], reasons: &[&'static str]) {
    let bad = outcomes.iter().filter(|(_, outcome)| match outcome {
        Outcome::Passed => false,
        Outcome::Skipped(why) => !reasons.contains(why),
        Outcome::Failed(_) => true,
    });
    let bad: Vec<String> = bad
        .map(|(name, outcome)| format!("{name}: {outcome}"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for reason in reasons {
        let applies = |(_, outcome): &(_, _)| *outcome == Outcome::Skipped(reason);
        assert!(outcomes.iter().any(applies), "{reason}");
    }
}

/// What the default methods do not do.
const NOT_BY_DEFAULT: [&str; 8] = [
    "the page table cannot exchange entries in use",
    "the page table cannot link a table from several places",
    "the page table has no tables of the library's",
    "the harness does not watch the root's entries",
    "the harness cannot keep anything in an entry that is not present",
    "there is memory on one node only",
    "the harness knows no address that is not translated",
    "the harness cannot access what is mapped as a CPU",
];

#[test]
fn per_page_primitives_and_an_allocator_without_counts_suffice() {
    let (outcomes, flushes) = battery(Order::new(5));
    let reasons = [
        &NOT_BY_DEFAULT[..],
        &["the harness cannot link tables of others"],
    ];
    assert_passed(&outcomes, &reasons.concat());
    assert!(flushes > 0);
}

#[test]
fn what_a_page_table_without_huge_leaves_cannot_do_is_skipped() {
    let (outcomes, _) = battery(None);
    let reasons = [&NOT_BY_DEFAULT[..], &["the page table has no huge leaves"]].concat();
    assert_passed(&outcomes, &reasons);
}
