//! A root whose entries are filled ahead is never changed, so that no other root has to be told.

use arch_sim::SimMemory;
use hosted::{Machine, MachineConfig, RadixBackend};
use mm_core::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::DirectMap;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::{EntryFormat, FillRootError, RadixTable, Roots};
use mm_core::vmemmap::{AuditSlot, Vmemmap};
use std::cell::{Cell, RefCell};
use testkit::engine::{EngineParts, WithEngine};
use testkit::testbed::Sizes;

/// Writes down what other roots would have to copy, or to forget.
#[derive(Default)]
struct Told(RefCell<Vec<(VirtAddr, bool)>>);

// SAFETY: 1 to 3: there is no other root.
unsafe impl Roots for Told {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        self.0.borrow_mut().push((at, true));
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        self.0.borrow_mut().push((at, false));
    }
}

/// How many entries of the root `range` takes.
fn slots<F: EntryFormat>(range: VirtRange) -> u64 {
    let shift = F::LEVELS[0].shift;
    (range.last().get() >> shift) - (range.start().get() >> shift) + 1
}

fn page(memory: &SimMemory, frame: Pfn) -> Vec<u8> {
    memory.page_bytes(frame).unwrap()
}

fn a_filled_root_stays_as_it_is_whatever_comes_online<B: RadixBackend + WithEngine>() {
    let sizes = Sizes::of(B::MODEL);
    let order = sizes.natural();
    let range = sizes.blocks(order, 1, 3);
    // Where the kernel's own tables are.
    let tables = sizes.blocks(B::MODEL.subsection(), 0, 1);
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![range, tables],
        backed: vec![tables],
        ..MachineConfig::default()
    })
    .unwrap();
    let (frames, memory) = (machine.frames(), machine.memory());
    let told = Told::default();
    let mmu = B::mmu(machine.cpus());
    // SAFETY: 1: the root is empty. 2: one memory. 3: one table. 4: all CPUs. 5: there is no other
    // root.
    let mut table = unsafe {
        RadixTable::<B::Format, _, _, _, _>::new(machine.root(), &told, frames, memory, &mmu)
    };
    let all = B::MODEL.descriptors(B::MODEL.all_frames()).unwrap();
    let expected = slots::<B::Format>(all);

    // The kernel's own tables, as many as there are frames for at first, then the rest.
    let given = &Cell::new(0);
    let take = |most: usize| {
        let mut left = most;
        move || {
            left = left.checked_sub(1)?;
            let frame = tables.start().saturating_add(given.get());
            given.set(given.get() + 1);
            // What a frame holds when it is handed out is arbitrary.
            let bytes = B::MODEL.granule().bytes() as usize;
            // SAFETY: the frame is this test's.
            unsafe { memory.frame_pointer(frame).write_bytes(0xa5, bytes) };
            Some(frame)
        }
    };
    // SAFETY: 1: the frames were allocated for that and are never freed.
    let none = unsafe { table.fill_root(all, take(0)) };
    assert!(matches!(none, Err(FillRootError::NoFrame { .. })));
    // SAFETY: 1: as above.
    let filled = unsafe { table.fill_root(all, take(usize::MAX)) };
    assert_eq!(filled, Ok(expected));
    assert_eq!(told.0.borrow().len() as u64, expected);
    // SAFETY: 1: as above.
    let again = unsafe { table.fill_root(all, take(usize::MAX)) };
    assert_eq!(again, Ok(0));
    let root = page(memory, machine.root());
    let parts = EngineParts {
        root: machine.root(),
        other_roots: Some(&told),
        frames,
        memory,
        mmu: &mmu,
    };
    // SAFETY: 1: of the table's, the same as above; the one before is not used again.
    let mut table = unsafe { B::engine(parts) };

    // SAFETY: 1 and 4: nobody else uses the addresses. 2: one memory. 3: one table.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(B::MODEL, frames, memory) };
    let mut vmemmap = vmemmap.unwrap();
    let ranges: [PfnRange; 1] = [range];
    let pagemap = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order)).unwrap();
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let pagemap = pagemap.with_tails(tails).with_piece(Piece::Range);
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        assert_eq!(
            vmemmap.head_of(&table, range.last()),
            Some(range.last().align_down(order))
        );
        let mut scratch = vec![AuditSlot::default(); 1 << 12];
        vmemmap.audit(&table, &[frames], &mut scratch).unwrap();
        assert_eq!(page(memory, machine.root()), root);
        vmemmap.offline(&mut table, region).unwrap();
        assert_eq!(page(memory, machine.root()), root);
    }
    assert_eq!(
        told.0.borrow().len() as u64,
        expected,
        "nobody was told of more"
    );
    assert_eq!(frames.outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

testkit::on_radix_backends!(a_filled_root_stays_as_it_is_whatever_comes_online);
