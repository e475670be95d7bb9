//! Who writes and clears entries, all in the memory of one [`Arena`].
//!
//! Whatever a contender is, what it does is the same: 262144 leaves of 4 KiB in tables that it takes from
//! the arena, and all of them cleared with the frame of each read, since whoever unmaps a page has to give
//! its frame back.

mod aarch64;
mod generic;
mod multiarch;
mod offset_table;
mod shared_arena;
mod store_loop;

use benches::{Arena, ENTRIES, Engine, Pattern, Stopwatch, address};
use figures::{Case, Contender};
use mm_core::addr::{Granule, Pfn};
use mm_core::frame::DirectMap;
use std::time::Duration;

/// Which frames the entries of a case point at.
pub(crate) const fn pattern(case: Case) -> Pattern {
    match case {
        Case::A => Pattern::Distinct,
        Case::B => Pattern::Compound { shift: 12 },
        Case::C => Pattern::Compound { shift: 3 },
    }
}

/// What one contender took once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) map: Duration,
    pub(crate) unmap: Duration,
}

/// Whether the entries are looked at after they were written, and after they were cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Yes,
    No,
}

/// Has `contender` write and clear all entries.
pub(crate) fn round(contender: Contender, arena: &Arena, pattern: Pattern, look: Look) -> Round {
    let free = arena.free_frames();
    let view = View {
        arena,
        pattern,
        look,
    };
    let round = match contender {
        Contender::MmCore => {
            let root = arena_root(arena);
            let mut engine = Engine::new(arena);
            view.round(
                root,
                &mut engine,
                |engine| engine.map(pattern),
                |engine| engine.unmap().0,
            )
        }
        Contender::StoreLoop => {
            let root = arena_root(arena);
            let mut table = store_loop::Tables::new(arena);
            view.round(
                root,
                &mut table,
                |table| table.map(pattern),
                |table| table.unmap(),
            )
        }
        Contender::X86_64 => {
            let root = arena_root(arena);
            let mut table = offset_table::OffsetTable::new(arena);
            let round = view.round(
                root,
                &mut table,
                |table| table.map(pattern),
                |table| table.unmap(),
            );
            table.free_tables();
            round
        }
        Contender::Multiarch => {
            let shared = shared_arena::Shared::new(arena);
            let root = arena_root(arena);
            let mut table = multiarch::Multiarch::new(&shared);
            view.round(
                root,
                &mut table,
                |table| table.map(pattern),
                |table| table.unmap(),
            )
        }
        Contender::Generic => {
            let shared = shared_arena::Shared::new(arena);
            let root = arena_root(arena);
            let mut table = generic::Generic::new(&shared);
            view.round(
                root,
                &mut table,
                |table| table.map(pattern),
                |table| table.unmap(),
            )
        }
        Contender::Aarch64Paging => {
            let root = arena_root(arena);
            let mut table = aarch64::Aarch64::new(arena);
            view.round(
                root,
                &mut table,
                |table| table.map(pattern),
                |table| table.unmap(),
            )
        }
    };
    assert_eq!(arena.free_frames(), free, "{contender} keeps tables");
    round
}

/// The frame that is handed out next: each contender takes its root first.
fn arena_root(arena: &Arena) -> Pfn {
    let root = arena.take().expect("a frame for the root");
    arena.give(root);
    root
}

/// The tables, read without those who wrote them.
struct View<'a> {
    arena: &'a Arena,
    pattern: Pattern,
    look: Look,
}

impl View<'_> {
    fn round<T>(
        &self,
        root: Pfn,
        table: &mut T,
        map: impl FnOnce(&mut T),
        unmap: impl FnOnce(&mut T) -> u64,
    ) -> Round {
        let start = Stopwatch::start();
        map(table);
        let map = start.elapsed();
        if self.look == Look::Yes {
            for index in 0..ENTRIES {
                let frame = self.frame(root, index);
                assert_eq!(
                    frame,
                    Some(self.pattern.frame(index).get()),
                    "entry {index}"
                );
            }
        }
        let start = Stopwatch::start();
        let entries = unmap(table);
        let unmap = start.elapsed();
        assert_eq!(entries, ENTRIES);
        if self.look == Look::Yes {
            let left = (0..ENTRIES).find_map(|index| self.frame(root, index));
            assert_eq!(left, None);
        }
        Round { map, unmap }
    }

    /// What a walk from `root` finds for the entry number `index`. In both formats bit 0 says that there is
    /// something, and bits 12 to 47 where.
    fn frame(&self, root: Pfn, index: u64) -> Option<u64> {
        let at = address(index).get();
        let mut frame = root;
        for level in (0..4).rev() {
            let entries = self.arena.frame_pointer(frame).cast::<u64>();
            let number = (at >> (12 + 9 * level)) & 511;
            // SAFETY: a table of 512 entries, which nobody writes meanwhile.
            let entry = unsafe { entries.add(number as usize).read() };
            if entry & 1 == 0 {
                return None;
            }
            frame = Pfn::new((entry >> Granule::Size4K.shift()) & ((1 << 36) - 1))?;
        }
        Some(frame.get())
    }
}
