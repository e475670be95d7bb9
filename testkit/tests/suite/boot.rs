//! A kernel that starts: descriptors of RAM before there is an allocator, then the buddy allocator of
//! `buddy_system_allocator`, with all references.

use arch_sim::SimMemory;
use buddy_system_allocator::LockedFrameAllocator;
use hosted::{Machine, MachineConfig, RadixBackend};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{
    BootFrames, Counted, EarlyFrames, EarlyRange, FrameAllocator, InspectFrames, PlainAllocator,
    ReferenceCounts, SharedCounts, WordCounts,
};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::vmemmap::{AuditSlot, Vmemmap};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use testkit::engine::{EngineParts, WithEngine};
use testkit::testbed::Sizes;

const NODE: NodeId = NodeId::new(0);

/// The kernel's allocator.
#[derive(Default)]
struct Buddy(LockedFrameAllocator<40>);

impl Buddy {
    /// Takes over frames.
    fn add(&self, range: EarlyRange) {
        let (frames, is_taken) = match range {
            EarlyRange::Taken(frames) => (frames, true),
            EarlyRange::Free(frames) => (frames, false),
        };
        let mut buddy = self.0.lock();
        let start = frames.start().get() as usize;
        buddy.add_frame(start, start + frames.frames() as usize);
        // It takes back only what it has handed out.
        for frame in frames.into_iter().filter(|_| is_taken) {
            let frame = frame.get() as usize;
            assert_eq!(buddy.alloc_at(frame, 1), Some(frame));
        }
    }

    /// Takes all frames, one by one.
    fn drain(&self) -> BTreeSet<u64> {
        let mut frames = BTreeSet::new();
        while let Some(frame) = self.0.lock().alloc(1) {
            assert!(frames.insert(frame as u64), "frame {frame} is there twice");
        }
        frames
    }
}

// SAFETY: 1: what it hands out is in no list until it comes back. 2: it joins frames by itself. 3: the
// simulated memory has all of them.
unsafe impl PlainAllocator for Buddy {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let first = self.0.lock().alloc(order.frames() as usize)?;
        Block::new(Pfn::new(first as u64)?, order)
    }

    unsafe fn free(&self, block: Block) {
        let frames = block.order().frames() as usize;
        self.0.lock().dealloc(block.first().get() as usize, frames);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NODE
    }
}

/// The RAM of a firmware's map, whose ends are odd.
fn firmware_map(model: &MemoryModel) -> [PfnRange; 3] {
    let subsection = model.subsection().frames();
    let range = |start, frames| PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
    [
        range(1, subsection / 2),
        range(subsection + 3, 3 * subsection),
        range(9 * subsection, 8 * subsection - 1),
    ]
}

fn frames_of(ranges: &[PfnRange]) -> BTreeSet<u64> {
    let frames = ranges.iter().flat_map(|range| *range);
    frames.map(Pfn::get).collect()
}

type Boot<'m> = BootFrames<'m, &'m SimMemory, Buddy>;

/// Boots with counts that `count` makes, adds a device and folds, and takes all of it offline again.
fn boots_and_hands_over<B: RadixBackend + WithEngine, C: ReferenceCounts>(counts: C) {
    let model = B::MODEL;
    let ram = firmware_map(&model);
    let whole: Vec<PfnRange> = model.whole_subsections(ram).collect();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let device = sizes.blocks(order, 64, 4);
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![device, ram[0], ram[1], ram[2]],
        backed: ram.to_vec(),
        ..MachineConfig::default()
    })
    .unwrap();
    let memory = machine.memory();
    // SAFETY: 1 and 2: nobody else uses these frames of the memory.
    let early = unsafe { EarlyFrames::new(&ram, NODE, memory) };
    // SAFETY: 1: a buddy allocator takes what it gets. 2: it is empty.
    let boot: Boot<'_> = unsafe { BootFrames::new(early, Buddy::default()) };
    let frames = &Counted::new(boot, counts);
    let mmu = B::mmu(machine.cpus());
    let parts = EngineParts {
        root: machine.root(),
        other_roots: None,
        frames,
        memory,
        mmu: &mmu,
    };
    // SAFETY: 1: of the table's, 1: the root is empty. 2: one memory. 3: one table. 4: all CPUs. 5: there is one
    // root.
    let mut table = unsafe { B::engine(parts) };
    // SAFETY: 1 and 4: nobody else uses the addresses. 2: one memory. 3: one table.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(model, frames, memory) };
    let mut vmemmap = vmemmap.unwrap();

    // Before there is an allocator: descriptors of all RAM.
    let regions: Vec<_> = whole
        .iter()
        .map(|range| {
            let pagemap = DevPagemap::of_range(&model, *range, Geometry::BASE_PAGES).unwrap();
            vmemmap.online(&mut table, &pagemap).unwrap()
        })
        .collect();
    for frame in ram.iter().flat_map(|range| *range) {
        assert_eq!(vmemmap.head_of(&table, frame), Some(frame));
    }
    let in_use = frames.outstanding();

    // The allocator gets what is left, and nothing else changes.
    let boot = frames.allocator();
    for range in boot.hand_over() {
        boot.full().add(range);
    }
    let is_free = |range: &EarlyRange| matches!(range, EarlyRange::Free(_));
    assert_eq!(boot.hand_over().filter(is_free).count(), 0);
    assert_eq!(frames.outstanding(), in_use);
    let mut scratch = vec![AuditSlot::default(); 1 << 14];
    vmemmap.audit(&table, &[frames], &mut scratch).unwrap();

    // A device is added, with frames of the allocator's.
    let pagemap = DevPagemap::of_range(&model, device, Geometry::compound(order)).unwrap();
    let pagemap = pagemap.with_tails(Tails::PerOrder);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    assert_eq!(
        vmemmap.head_of(&table, device.last()),
        Some(device.last().align_down(order))
    );
    vmemmap.audit(&table, &[frames], &mut scratch).unwrap();
    vmemmap.offline(&mut table, region).unwrap();
    assert_eq!(frames.outstanding(), in_use);

    // What came from the early frames goes back to the allocator.
    for region in regions {
        vmemmap.offline(&mut table, region).unwrap();
    }
    assert_eq!(frames.outstanding(), Some(0));
    assert_eq!(boot.full().drain(), frames_of(&ram));
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

fn frames_and_references_go_to_the_buddy_allocator<B: RadixBackend + WithEngine>() {
    let last = firmware_map(&B::MODEL)[2].last();
    let all = PfnRange::new(Pfn::ZERO, last.get() + 1).unwrap();
    let mut words: Vec<_> = (0..all.frames()).map(|_| AtomicU32::new(0)).collect();
    boots_and_hands_over::<B, _>(WordCounts::new(all, &mut words).unwrap());
    boots_and_hands_over::<B, _>(SharedCounts::new(&mut [0; 8]));
}

fn what_comes_back_before_goes_out_again<B: RadixBackend + WithEngine>() {
    let model = B::MODEL;
    let ram = firmware_map(&model);
    let memory = &SimMemory::new(model.granule(), &ram).unwrap();
    // SAFETY: 1 and 2: nobody else uses the memory.
    let early = unsafe { EarlyFrames::new(&ram, NODE, memory) };
    // SAFETY: 1: a buddy allocator takes what it gets. 2: it is empty.
    let boot: Boot<'_> = unsafe { BootFrames::new(early, Buddy::default()) };
    let frames = Counted::new(boot, SharedCounts::new(&mut []));
    let block = frames.allocate(model.subsection(), NODE).unwrap();
    let run = frames.allocate_run(10, NODE).unwrap();
    // SAFETY: 1 and 2: the block's one reference, and one of each frame, are this test's.
    unsafe {
        frames.release_run(run);
        frames.split(block);
        frames.release_run(block.frames());
    }
    assert_eq!(frames.outstanding(), Some(0));
    let again = frames.allocate_run(1, NODE).unwrap();
    assert!(block.frames().contains_range(again));
    let boot = frames.allocator();
    boot.hand_over().for_each(|range| boot.full().add(range));
    // SAFETY: 2: the reference is this test's.
    unsafe { frames.release_run(again) };
    assert_eq!(boot.full().drain(), frames_of(&ram));
}

testkit::on_radix_backends!(
    frames_and_references_go_to_the_buddy_allocator,
    what_comes_back_before_goes_out_again,
);
