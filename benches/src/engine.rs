//! This library's way.

use crate::{Arena, Pattern, Runs, addresses};
use arch_x86_64::{FourLevel, FourLevelTable};
use mm_core::addr::{NodeId, Pfn};
use mm_core::frame::DirectMap;
use mm_core::paging::{
    FlushScope, Groups, Mmu, NoRecords, OneRoot, PageTable, RadixTable, Run, RunSink,
};

/// No CPU uses the tables.
pub struct NoCpu;

// SAFETY: 1 and 2: there is no CPU to translate or to walk.
unsafe impl Mmu<FourLevel> for NoCpu {
    fn flush(&self, _scope: FlushScope<'_>) {}

    fn publish(&self) {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
    }
}

/// A 4-level table of the engine.
pub struct Engine<'a> {
    table: FourLevelTable<&'a Arena, &'a Arena, NoCpu>,
    arena: &'a Arena,
    root: Pfn,
}

impl<'a> Engine<'a> {
    /// An empty tree in `arena`.
    pub fn new(arena: &'a Arena) -> Self {
        let root = arena.take().expect("a frame for the root");
        // SAFETY: the frame was taken just now and is one page.
        unsafe { arena.frame_pointer(root).write_bytes(0, 4096) };
        // SAFETY: 1: an empty root. 2: the arena reaches all its frames. 3: one thread. 4: there is
        // no CPU. 5: 1 of `OneRoot::new`: there is no other root. 6: there is one allocator.
        let table = unsafe {
            RadixTable::<FourLevel, _, _, _>::new(root, OneRoot::new(), arena, arena, NoCpu)
        };
        Self { table, arena, root }
    }

    /// Writes all entries.
    #[inline(never)]
    pub fn map(&mut self, pattern: Pattern) {
        let mut runs = Runs::new(pattern);
        // SAFETY: 1: the frames are numbers. 2: nobody uses the addresses.
        let mapped = unsafe {
            self.table
                .map_runs(addresses(), NodeId::default(), &mut runs, &NoRecords)
        };
        mapped.expect("the arena has enough frames");
    }

    /// Clears all entries; answers how many, and in how many reports.
    #[inline(never)]
    pub fn unmap(&mut self) -> (u64, u64) {
        let mut seen = Seen::default();
        // SAFETY: 1: nobody uses the addresses. 2: `map` mapped all of them.
        unsafe {
            self.table
                .unmap(core::iter::once(addresses()), &mut seen, &NoRecords);
        }
        core::hint::black_box(seen.frames);
        (seen.entries, seen.reports)
    }
}

/// What was reported.
#[derive(Default)]
struct Seen {
    entries: u64,
    reports: u64,
    frames: u64,
}

impl RunSink for Seen {
    fn run(&mut self, run: Run) {
        self.entries += run.count;
        self.reports += 1;
        self.frames ^= run.leaf.block.first().get();
    }

    fn groups(&mut self, groups: Groups) {
        self.entries += groups.leaves();
        self.reports += 1;
        self.frames ^= groups.frames.start().get();
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.arena.give(self.root);
    }
}
