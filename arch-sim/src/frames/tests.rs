//! What the allocator promises, and what it says when its callers do not keep theirs.

use super::*;
use mm_core::addr::Granule;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NODE: NodeId = NodeId::new(0);
const FAR: NodeId = NodeId::new(5);

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

fn range(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(pfn(start), frames).unwrap()
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Node 0 has frames 0x100 to 0x4ff, node 5 has 0x800 to 0x8ff.
fn two_nodes() -> (SimMemory, SimFrames) {
    let ranges = [range(0x100, 0x400), range(0x800, 0x100)];
    let memory = SimMemory::new(Granule::Size4K, &ranges).unwrap();
    let nodes = [(NODE, &ranges[..1]), (FAR, &ranges[1..])];
    let frames = SimFrames::new(&memory, &nodes).unwrap();
    (memory, frames)
}

fn release(frames: &SimFrames, block: Block, references: u64) -> Released {
    // SAFETY: 1 and 2: where a test breaks these, it is to see that reported.
    unsafe { frames.release(block, references) }
}

fn free(frames: &SimFrames, block: OwnedBlock) {
    // SAFETY: 1: as for `release`.
    unsafe { frames.free(block) }
}

fn give_back(frames: &SimFrames, block: Block) {
    match release(frames, block, 1) {
        Released::Last(owned) => free(frames, owned),
        Released::Shared => panic!("{block:?} has another owner"),
    }
}

fn acquire(frames: &SimFrames, first: Pfn, references: u64) -> Result<(), AcquireError> {
    // SAFETY: 1 and 2: as for `release`.
    unsafe { frames.acquire(first, references) }
}

fn forged(block: Block) -> OwnedBlock {
    // SAFETY: none: the broken promise is what is tested, and the allocator survives it.
    unsafe { OwnedBlock::new(block) }
}

fn release_run(frames: &SimFrames, run: PfnRange) {
    // SAFETY: as for `release`.
    unsafe { frames.release_run(run) };
}

fn split(frames: &SimFrames, block: Block) {
    // SAFETY: as for `release`.
    unsafe { frames.split(block) }
}

#[test]
fn an_allocator_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<SimFrames>();
}

#[test]
fn the_lowest_free_frames_are_handed_out_with_one_reference() {
    let (memory, frames) = two_nodes();
    let first = frames.allocate(Order::BASE, NODE).unwrap();
    assert_eq!(first, Block::single(pfn(0x100)));
    assert_eq!(frames.references(first.first()), Some(1));
    let run = frames.allocate_run(5, NODE).unwrap();
    assert_eq!(run, range(0x101, 5));
    let block = frames.allocate(order(3), NODE).unwrap();
    assert_eq!(block.first(), pfn(0x108));
    // The gap before the block comes first.
    assert_eq!(frames.allocate_run(5, NODE), Ok(range(0x106, 2)));
    assert_eq!(frames.outstanding(), 16);
    assert_eq!(frames.allocations(), 9);
    assert!(memory.violations().is_empty());
}

#[test]
fn all_frames_are_handed_out_once_and_come_back() {
    let (memory, frames) = two_nodes();
    let mut runs = Vec::new();
    while let Ok(run) = frames.allocate_run(100, NODE) {
        runs.push(run);
    }
    assert_eq!(runs.iter().map(|run| run.frames()).sum::<u64>(), 0x500);
    assert_eq!(frames.outstanding(), 0x500);
    runs.into_iter().for_each(|run| release_run(&frames, run));
    assert_eq!(frames.outstanding(), 0);
    assert_eq!(frames.peak(), 0x500);
    assert!(frames.allocate(order(8), FAR).is_ok());
    frames.reset_peak();
    assert_eq!(frames.peak(), 0x100);
    assert!(memory.violations().is_empty());
}

#[test]
fn a_node_without_memory_is_served_by_the_nearest() {
    let (_memory, frames) = two_nodes();
    let from = |node| {
        let block = frames.allocate(Order::BASE, NodeId::new(node)).unwrap();
        frames.node_of(block.first())
    };
    assert_eq!(from(0), NODE);
    assert_eq!(from(2), NODE);
    assert_eq!(from(3), FAR);
    assert_eq!(from(900), FAR);
}

#[test]
fn a_node_that_is_made_full_is_served_by_another() {
    let (_memory, frames) = two_nodes();
    frames.fill_node(NODE);
    assert_eq!(frames.allocate_run(2, NODE), Ok(range(0x800, 2)));
    frames.fill_node(FAR);
    let (order, node) = (Order::BASE, NODE);
    assert_eq!(
        frames.allocate(order, node),
        Err(OutOfFrames { order, node })
    );
    frames.empty_node(NODE);
    assert_eq!(frames.allocate_run(2, FAR), Ok(range(0x100, 2)));
}

#[test]
fn a_block_too_large_for_a_node_comes_from_another_or_not_at_all() {
    let (_memory, frames) = two_nodes();
    assert_eq!(frames.allocate(order(9), FAR).unwrap().first(), pfn(0x200));
    assert!(frames.allocate(order(10), NODE).is_err());
    assert_eq!(frames.outstanding(), 512);
}

#[test]
fn references_go_up_and_down_by_groups() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(order(4), NODE).unwrap();
    assert_eq!(acquire(&frames, block.first(), 1 << 40), Ok(()));
    assert_eq!(frames.references(block.first()), Some((1 << 40) + 1));
    assert_eq!(release(&frames, block, 1 << 40), Released::Shared);
    let last = release(&frames, block, 1);
    let Released::Last(owned) = last else {
        panic!("the last reference went")
    };
    // Dead, but not free: nobody gets it, nobody gets a reference, and nobody else has to free it.
    assert_eq!(release(&frames, block, 0), Released::Shared);
    assert!(acquire(&frames, block.first(), 1).is_err());
    assert_eq!(frames.outstanding(), 16);
    assert_ne!(frames.allocate(order(4), NODE).unwrap(), block);
    free(&frames, owned);
    assert_eq!(frames.allocate(order(4), NODE), Ok(block));
    assert!(memory.violations().is_empty());
}

#[test]
fn a_reference_to_a_free_frame_is_refused_and_no_violation() {
    let (memory, frames) = two_nodes();
    let frame = pfn(0x100);
    assert_eq!(acquire(&frames, frame, 1), Err(AcquireError { frame }));
    let block = frames.allocate(order(1), NODE).unwrap();
    assert!(acquire(&frames, pfn(0x101), 1).is_err());
    assert!(acquire(&frames, block.first(), u64::MAX).is_err());
    assert!(acquire(&frames, block.first(), 1 << 56).is_err());
    assert_eq!(frames.references(block.first()), Some(1));
    assert!(memory.violations().is_empty());
}

#[test]
fn a_split_block_is_single_frames() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(order(8), NODE).unwrap();
    split(&frames, block);
    for frame in [0x100, 0x101, 0x1ff] {
        assert_eq!(frames.references(pfn(frame)), Some(1));
    }
    assert_eq!(release(&frames, block, 1), Released::Shared);
    assert_eq!(
        memory.violations().take(),
        [Violation::ReleasedNotOut { block }]
    );
    give_back(&frames, Block::single(pfn(0x180)));
    release_run(&frames, range(0x100, 0x80));
    release_run(&frames, range(0x181, 0x7f));
    assert_eq!(frames.outstanding(), 0);
    assert_eq!(frames.allocate(order(8), NODE), Ok(block));
    assert!(memory.violations().is_empty());
}

#[test]
fn a_run_is_released_around_frames_that_are_shared() {
    let (memory, frames) = two_nodes();
    let run = frames.allocate_run(10, NODE).unwrap();
    acquire(&frames, pfn(0x103), 1).unwrap();
    acquire(&frames, pfn(0x109), 2).unwrap();
    release_run(&frames, run);
    assert_eq!(frames.outstanding(), 2);
    assert_eq!(frames.references(pfn(0x103)), Some(1));
    assert_eq!(frames.references(pfn(0x109)), Some(2));
    assert_eq!(frames.allocate_run(10, NODE), Ok(range(0x100, 3)));
    assert!(memory.violations().is_empty());
}

#[test]
fn every_second_frame_gives_back_so_many_references() {
    let (memory, frames) = two_nodes();
    let run = frames.allocate_run(7, NODE).unwrap();
    for frame in [0x100, 0x102, 0x104] {
        acquire(&frames, pfn(frame), 2).unwrap();
    }
    acquire(&frames, pfn(0x106), 3).unwrap();
    let before = frames.calls();
    // SAFETY: 1: three references of each are this test's. 2: nothing is mapped.
    assert_eq!(unsafe { frames.release_each(run, 2, 3) }, 3);
    assert_eq!(frames.calls().since(before).release, 1);
    let references = |frame| frames.references(pfn(frame));
    let left: Vec<_> = (0x100..0x107).map(references).collect();
    assert_eq!(left, [0, 1, 0, 1, 0, 1, 1].map(Some));
    assert_eq!(frames.outstanding(), 4);
    assert!(memory.violations().is_empty());
    // SAFETY: 1: none of these has so many, which the allocator has to notice.
    assert_eq!(unsafe { frames.release_each(run, 2, 3) }, 0);
    assert_eq!(memory.violations().total(), 4);
}

#[test]
fn ranges_of_a_node_that_touch_make_larger_blocks() {
    let ranges = [range(0x10, 8), range(0x18, 8)];
    let memory = SimMemory::new(Granule::Size4K, &[range(0, 0x100)]).unwrap();
    let frames = SimFrames::new(&memory, &[(NODE, &ranges)]).unwrap();
    let block = frames.allocate(order(4), NODE).unwrap();
    split(&frames, block);
    assert_eq!(frames.references(pfn(0x1f)), Some(1));
    release_run(&frames, block.frames());
    assert_eq!(frames.allocate(order(4), NODE), Ok(block));
    assert!(memory.violations().is_empty());
}

#[test]
fn nodes_that_overlap_or_have_no_memory_are_refused() {
    let memory = SimMemory::new(Granule::Size4K, &[range(0, 0x100)]).unwrap();
    let refused = |nodes: &[(NodeId, &[PfnRange])]| {
        SimFrames::new(&memory, nodes).unwrap_err().kind() == io::ErrorKind::InvalidInput
    };
    assert!(refused(&[(NODE, &[range(0, 0x101)])]));
    assert!(refused(&[(NODE, &[range(0, 8)]), (FAR, &[range(7, 8)])]));
}

#[test]
fn a_double_free_is_reported_and_has_no_effect() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(order(2), NODE).unwrap();
    give_back(&frames, block);
    free(&frames, forged(block));
    assert_eq!(
        memory.violations().take(),
        [Violation::FreedNotOut { block }]
    );
    assert_eq!(frames.outstanding(), 0);
    assert_eq!(frames.allocate_run(4, NODE), Ok(block.frames()));
    assert_eq!(frames.allocate_run(4, NODE), Ok(range(0x104, 4)));
}

#[test]
fn a_block_freed_as_one_page_is_reported() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(order(8), NODE).unwrap();
    let page = Block::single(block.first());
    assert_eq!(release(&frames, page, 1), Released::Shared);
    free(&frames, forged(page));
    assert_eq!(
        memory.violations().take(),
        [
            Violation::ReleasedNotOut { block: page },
            Violation::FreedNotOut { block: page }
        ]
    );
    assert_eq!(frames.references(block.first()), Some(1));
}

#[test]
fn a_free_with_references_left_is_reported() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(Order::BASE, NODE).unwrap();
    free(&frames, forged(block));
    let references = 1;
    assert_eq!(
        memory.violations().take(),
        [Violation::FreedWithReferences { block, references }]
    );
    assert_eq!(frames.outstanding(), 1);
}

#[test]
fn releasing_more_references_than_there_are_is_reported() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(Order::BASE, NODE).unwrap();
    assert_eq!(release(&frames, block, 3), Released::Shared);
    let frame = block.first();
    let (held, released) = (1, 3);
    let expected = Violation::ReleasedTooMany {
        frame,
        held,
        released,
    };
    assert_eq!(memory.violations().take(), [expected]);
    assert_eq!(frames.references(frame), Some(1));
}

#[test]
fn a_run_with_frames_that_are_not_out_is_reported_frame_by_frame() {
    let (memory, frames) = two_nodes();
    frames.allocate_run(2, NODE).unwrap();
    release_run(&frames, range(0xff, 5));
    let block = |number| Block::single(pfn(number));
    assert_eq!(
        memory.violations().take(),
        [
            Violation::NotManaged { frame: pfn(0xff) },
            Violation::ReleasedNotOut {
                block: block(0x102)
            },
            Violation::ReleasedNotOut {
                block: block(0x103)
            },
        ]
    );
    assert_eq!(frames.outstanding(), 0);
}

#[test]
fn splitting_a_shared_block_is_reported() {
    let (memory, frames) = two_nodes();
    let block = frames.allocate(order(1), NODE).unwrap();
    acquire(&frames, block.first(), 1).unwrap();
    split(&frames, block);
    split(&frames, Block::single(pfn(0x102)));
    let shared = |block, references| Violation::SplitShared { block, references };
    assert_eq!(
        memory.violations().take(),
        [shared(block, 2), shared(Block::single(pfn(0x102)), 0)]
    );
    assert_eq!(frames.references(pfn(0x101)), Some(0));
}

#[test]
fn frames_of_somebody_else_are_reported() {
    let (memory, frames) = two_nodes();
    let frame = pfn(0x700);
    let block = Block::single(frame);
    assert!(acquire(&frames, frame, 1).is_err());
    assert_eq!(release(&frames, block, 1), Released::Shared);
    free(&frames, forged(block));
    split(&frames, block);
    frames.node_of(frame);
    let reported = memory.violations().take();
    assert_eq!(reported, vec![Violation::NotManaged { frame }; 5]);
    assert_eq!(frames.references(frame), None);
}

#[test]
fn after_so_many_allocations_all_fail() {
    let (_memory, frames) = two_nodes();
    frames.fail_after(3);
    assert!(frames.allocate(order(2), NODE).is_ok());
    assert_eq!(frames.allocate_run(10, NODE).unwrap().frames(), 2);
    assert!(frames.allocate_run(10, NODE).is_err());
    assert!(frames.allocate(Order::BASE, NODE).is_err());
    frames.no_more_faults();
    assert!(frames.allocate(Order::BASE, NODE).is_ok());
}

#[test]
fn only_the_nth_allocation_fails() {
    let (_memory, frames) = two_nodes();
    frames.fail_nth(2);
    assert!(frames.allocate(order(2), NODE).is_ok());
    assert_eq!(frames.allocate_run(10, NODE).unwrap().frames(), 1);
    assert!(frames.allocate_run(10, NODE).is_err());
    assert_eq!(frames.allocate_run(10, NODE).unwrap().frames(), 10);
    frames.fail_nth(0);
    assert!(frames.allocate(Order::BASE, NODE).is_err());
    assert!(frames.allocate(Order::BASE, NODE).is_ok());
}

#[test]
fn blocks_can_be_made_to_fail_as_in_fragmented_memory() {
    let (_memory, frames) = two_nodes();
    frames.fail_blocks(true);
    assert!(frames.allocate(order(1), NODE).is_err());
    assert!(frames.allocate(Order::BASE, NODE).is_ok());
    assert!(frames.allocate_run(7, NODE).is_ok());
    frames.fail_blocks(false);
    assert!(frames.allocate(order(1), NODE).is_ok());
}

#[test]
fn a_failed_allocation_changes_nothing() {
    let (_memory, frames) = two_nodes();
    frames.fail_after(0);
    assert!(frames.allocate(Order::BASE, NODE).is_err());
    assert!(frames.allocate_run(3, NODE).is_err());
    assert_eq!(
        (frames.outstanding(), frames.allocations(), frames.peak()),
        (0, 0, 0)
    );
}

#[test]
fn hooks_are_told_of_what_comes_and_goes() {
    let (_memory, frames) = two_nodes();
    let (out, back) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = |sum: &Arc<AtomicU64>| {
        let sum = Arc::clone(sum);
        move |frames: PfnRange| {
            sum.fetch_add(frames.frames(), Ordering::Relaxed);
        }
    };
    frames.on_allocate(count(&out));
    frames.on_free(count(&back));
    let block = frames.allocate(order(4), NODE).unwrap();
    let run = frames.allocate_run(5, NODE).unwrap();
    give_back(&frames, block);
    release_run(&frames, run);
    frames.remove_hooks();
    frames.allocate(order(4), NODE).unwrap();
    assert_eq!(out.load(Ordering::Relaxed), 21);
    assert_eq!(back.load(Ordering::Relaxed), 21);
}

#[test]
fn a_tebibyte_node_serves_a_million_allocations_quickly() {
    let ram = range(1 << 20, 1 << 28);
    let memory = SimMemory::new(Granule::Size4K, &[ram]).unwrap();
    let frames = SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap();
    let start = std::time::Instant::now();
    let blocks: Vec<Block> = (0..1 << 20)
        .map(|_| frames.allocate(Order::BASE, NODE).unwrap())
        .collect();
    // Every other frame first, which is the most that free memory can be scattered.
    for parity in [0, 1] {
        let mine = blocks.iter().skip(parity).step_by(2);
        mine.for_each(|block| give_back(&frames, *block));
    }
    assert_eq!(frames.outstanding(), 0);
    // All is one interval again.
    let whole = frames.allocate(order(27), NODE).unwrap();
    assert_eq!(whole.first(), pfn(1 << 27));
    assert!(start.elapsed().as_secs() < 60, "took {:?}", start.elapsed());
}
