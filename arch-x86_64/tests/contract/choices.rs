//! Entries of a kernel that chooses, read bit by bit.

use crate::machine::{
    HUGE, Machine, NODE, PAGE, Paging, Plan, Source, at, for_both_formats, vmemmap,
};
use arch_x86_64::{Choices, FourLevel};
use mm_core::addr::{Block, Pfn, PhysAddr};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{
    Entry, FrameOutOfReach, Leaf, Link, MapError, MapStopped, NoRecords, PageTable, Role, Run,
    Visit,
};
use std::ops::ControlFlow;

const GLOBAL: u64 = 1 << 8;
const C_BIT: u32 = 51;

/// The entries on the way to `at`, root first.
fn path<F: Paging>(machine: &Machine<F>, page: u64) -> Vec<u64> {
    let mut table = machine.root;
    let mut entries = Vec::new();
    for level in F::LEVELS {
        let index = at::<F>(page).get() >> level.shift & 511;
        let entry = PhysAddr::new(table.get() * PAGE + 8 * index);
        let entry = machine.memory.read_u64(entry).unwrap();
        entries.push(entry);
        table = Pfn::new((entry & 0x7_ffff_ffff_f000) >> 12).unwrap();
        if entry & 0x80 != 0 {
            break;
        }
    }
    entries
}

for_both_formats! {
    fn leaves_are_global_unless_the_kernel_chooses_otherwise<F>() {
        for (choices, global) in [(Choices::new(), GLOBAL), (Choices::new().not_global(), 0)] {
            let machine = Machine::<F>::new();
            // SAFETY: 1: the one value for the tree. 2: memory is not encrypted.
            let mut table = unsafe { machine.table().with_attributes(choices.attributes().unwrap()) };
            let mut source = Source::new(&machine.frames, Plan::Huge);
            // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
            unsafe { table.map_runs(vmemmap::<F>(0, 600), NODE, &mut source, &NoRecords) }.unwrap();
            for page in [0, 512, 599] {
                let entries = path(&machine, page);
                assert_eq!(entries.last().unwrap() & GLOBAL, global);
                let leaf = table.lookup(at::<F>(page)).mapping().unwrap();
                assert_eq!(Some(&leaf.leaf), source.mapped.get(&leaf.at));
            }
        }
    }

    fn the_encryption_bit_is_in_every_entry_and_in_no_frame<F>() {
        let machine = Machine::<F>::new();
        let attributes = Choices::new().encrypted(C_BIT).attributes().unwrap();
        // SAFETY: 1: the one value for the tree. 2: simulated memory is not encrypted.
        let mut table = unsafe { machine.table().with_attributes(attributes) };
        assert_eq!(table.last_frame(), Pfn::new((1 << (C_BIT - 12)) - 1).unwrap());
        for plan in [Plan::Distinct, Plan::Single, Plan::Compound(8), Plan::Huge] {
            let before = machine.outstanding();
            let mut source = Source::new(&machine.frames, plan);
            // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
            unsafe { table.map_runs(vmemmap::<F>(0, 1030), NODE, &mut source, &NoRecords) }.unwrap();
            for page in [0, 1, 511, 512, 1024, 1029] {
                for entry in path(&machine, page) {
                    assert_eq!(entry >> C_BIT & 1, 1, "{entry:#x}");
                }
            }
            // What is read back is what was entered, run by run.
            let mut seen = 0;
            let _ = table.visit(vmemmap::<F>(0, 1030), &mut |visit| {
                if let Visit::Leaves { at, run } = visit {
                    for index in 0..run.count {
                        let block = run.block(index).unwrap();
                        let at = at.checked_add(index * block.order().frames() * PAGE).unwrap();
                        assert_eq!(source.mapped[&at], Leaf { block, ..run.leaf });
                        seen += 1;
                    }
                }
                ControlFlow::Continue(())
            });
            assert_eq!(seen, source.mapped.len());
            let mut released = 0;
            // SAFETY: 1: nobody uses the addresses. 2: mapped above.
            unsafe { table.unmap([vmemmap::<F>(0, 1030)].into_iter(), &mut |run: Run| {
                for index in 0..run.count {
                    released += 1;
                    // SAFETY: 1 and 2: the entry's reference, after the flush.
                    let one = machine.frames.release(run.block(index).unwrap(), 1);
                    if let Released::Last(owned) = one {
                        machine.frames.free(owned);
                    }
                }
            }, &NoRecords) };
            assert_eq!((released, machine.outstanding()), (source.mapped.len(), before));
        }
    }

    fn a_frame_with_the_encryption_bit_is_out_of_reach<F>() {
        let machine = Machine::<F>::new();
        let attributes = Choices::new().encrypted(47).attributes().unwrap();
        // SAFETY: 1: the one value for the tree. 2: simulated memory is not encrypted.
        let mut table = unsafe { machine.table().with_attributes(attributes) };
        let last = Pfn::new((1 << 35) - 1).unwrap();
        let frame = last.checked_add(1).unwrap();
        let leaf = Leaf::single(frame, Role::Descriptors);
        // SAFETY: 1: refused, as is seen here. 2: nobody uses the addresses.
        let refused = unsafe { table.map_leaf(at::<F>(0), leaf, NODE, &NoRecords) };
        assert_eq!(refused, Err(MapError::FrameOutOfReach(FrameOutOfReach { frame, last })));
        let block = Block::new(frame, HUGE).unwrap();
        // SAFETY: as above.
        let refused = unsafe { table.map_leaf(at::<F>(0), Leaf { block, ..leaf }, NODE, &NoRecords) };
        let frame = block.frames().last();
        assert_eq!(refused, Err(MapError::FrameOutOfReach(FrameOutOfReach { frame, last })));
        // SAFETY: as above; the last one is entered, and taken out again.
        unsafe { table.map_leaf(at::<F>(0), Leaf::single(last, Role::Descriptors), NODE, &NoRecords) }.unwrap();
        let found = table.lookup(at::<F>(0)).mapping().unwrap();
        assert_eq!(found.leaf.block, Block::single(last));
        // SAFETY: 1: nobody uses the addresses. 2: mapped above.
        unsafe { table.unmap([vmemmap::<F>(0, 1)].into_iter(), &mut |_: Run| (), &NoRecords) };
        assert_eq!(machine.outstanding(), 0);
    }

    fn entries_of_others_are_read_with_the_bit_and_without<F>() {
        let machine = Machine::<F>::new();
        let attributes = Choices::new().private(47).attributes().unwrap();
        // SAFETY: 1: the one value for the tree. 2: memory is not encrypted.
        let mut table = unsafe { machine.table().with_attributes(attributes) };
        let mut source = Source::new(&machine.frames, Plan::Distinct);
        // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
        unsafe { table.map_runs(vmemmap::<F>(0, 1), NODE, &mut source, &NoRecords) }.unwrap();
        assert_eq!(path(&machine, 0).iter().filter(|entry| *entry >> 47 & 1 != 0).count(), 0);
        for bit in [0, 1 << 47] {
            machine.write_entry(at::<F>(7), 1, 0x1234_5063 | bit);
            let found = table.lookup(at::<F>(7)).mapping().unwrap().leaf;
            assert_eq!((found.block.first().get(), found.role), (0x1_2345, Role::Foreign));
        }
        // Nothing but the bit is somebody's note all the same.
        machine.write_entry(at::<F>(7), 1, 1 << 47);
        assert_eq!(table.first_in_use(vmemmap::<F>(7, 1)), Some(at::<F>(7)));
        // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
        let refused = unsafe { table.map_runs(vmemmap::<F>(7, 1), NODE, &mut source, &NoRecords) };
        assert!(matches!(refused, Err(MapStopped::Table { error: MapError::InUse { .. }, .. })));
    }
}

#[test]
fn a_bit_that_is_no_address_bit_is_refused() {
    for bit in [0, 11, 12, 52, 56, 63, 64, u32::MAX] {
        let made = Choices::new().encrypted(bit).attributes::<FourLevel>();
        assert!(made.is_none(), "{bit}");
        let made = Choices::new().private(bit).attributes::<FourLevel>();
        assert!(made.is_none(), "{bit}");
    }
}

#[test]
fn choices_do_not_change_what_entries_say() {
    let attributes = Choices::new().not_global().encrypted(C_BIT);
    let attributes = attributes.attributes::<FourLevel>().unwrap();
    let frame = Pfn::new(0x1_2345).unwrap();
    for role in [Role::Descriptors, Role::Tail] {
        for writable in [false, true] {
            let leaf = Leaf {
                writable,
                ..Leaf::single(frame, role)
            };
            assert_eq!(
                attributes.decode(attributes.leaf(leaf, 3), 3),
                Entry::Leaf(leaf)
            );
        }
    }
    for shared in [false, true] {
        let link = Link::of(true, shared);
        let table = attributes.decode(attributes.table(frame, shared), 2);
        assert_eq!(table, Entry::Table { frame, link });
    }
}
