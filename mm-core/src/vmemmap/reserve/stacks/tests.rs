//! What is pushed is taken, once, for its node first.

use super::*;
use core::cell::UnsafeCell;
extern crate std;
use std::collections::BTreeSet;
use std::vec::Vec;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; 512]>);

/// Frames from 0 on.
struct Memory(Vec<Page>);

impl Memory {
    fn new(frames: usize) -> Self {
        Self(
            (0..frames)
                .map(|_| Page(UnsafeCell::new([7; 512])))
                .collect(),
        )
    }
}

// SAFETY: 1 to 3: each frame is another page, which is not moved.
unsafe impl DirectMap for Memory {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        NonNull::from(&self.0[frame.get() as usize]).cast()
    }
}

fn run(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
}

fn push(stacks: &mut NodeStacks, memory: &Memory, start: u64, frames: u64, node: u32) {
    // SAFETY: 1: each test pushes a frame of its memory once until it is taken.
    unsafe { stacks.push(run(start, frames), NodeId::new(node), memory) };
}

#[test]
fn a_node_gets_its_own_frames_first_and_then_those_of_others() {
    let memory = Memory::new(32);
    let mut stacks = NodeStacks::new();
    push(&mut stacks, &memory, 0, 4, 1);
    push(&mut stacks, &memory, 8, 2, 2);
    push(&mut stacks, &memory, 4, 4, 1);
    push(&mut stacks, &memory, 16, 3, 3);
    let len = |stacks: &NodeStacks, node| stacks.len(NodeId::new(node), &memory);
    assert_eq!(
        [1, 2, 3, 4].map(|node| len(&stacks, node)),
        [(2, 8), (1, 2), (1, 3), (0, 0)]
    );
    let mut take = |at_most, node| stacks.take(at_most, NodeId::new(node), &memory);
    assert_eq!(take(3, 1), Some(run(4, 3)));
    assert_eq!(take(9, 1), Some(run(7, 1)));
    assert_eq!(take(9, 2), Some(run(8, 2)));
    assert!(take(9, 2).is_some(), "another node's");
    let mut left = BTreeSet::new();
    while let Some(taken) = take(1, 2) {
        assert!(left.insert(taken.start().get()));
    }
    let both: BTreeSet<u64> = (0..4).chain(16..19).collect();
    assert!(left.is_subset(&both) && left.len() >= 3, "{left:?}");
}

#[test]
fn whatever_comes_and_goes_no_frame_is_lost_or_had_twice() {
    let memory = Memory::new(512);
    let mut stacks = NodeStacks::new();
    let mut inside = BTreeSet::new();
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..20_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let node = (state >> 8) as u32 % 4;
        if state.is_multiple_of(2) {
            let start = (state >> 16) % 500;
            let frames = (state >> 40) % 6 + 1;
            let frames = frames.min(512 - start);
            if (start..start + frames).all(|frame| !inside.contains(&frame)) {
                inside.extend(start..start + frames);
                push(&mut stacks, &memory, start, frames, node);
            }
        } else {
            let at_most = (state >> 32) % 4 + 1;
            let taken = stacks.take(at_most, NodeId::new(node), &memory);
            assert_eq!(taken.is_none(), inside.is_empty());
            for frame in taken.into_iter().flatten() {
                assert!(inside.remove(&frame.get()), "{frame} is had twice");
            }
        }
        let all: u64 = (0..4)
            .map(|node| stacks.len(NodeId::new(node), &memory).1)
            .sum();
        assert_eq!(all, inside.len() as u64);
        let mut seen = BTreeSet::new();
        stacks.for_each(&memory, &mut |run| {
            seen.extend(run.into_iter().map(Pfn::get))
        });
        assert_eq!(seen, inside);
    }
}
