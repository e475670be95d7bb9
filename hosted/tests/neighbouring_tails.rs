//! Tails of different compound pages side by side, in frames that follow each other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::{AArch64_64K, Backend, Machine, MachineConfig};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Page, Pointer};
use mm_core::pagemap::{DevPagemap, Geometry, Tables};
use mm_core::vmemmap::{AuditSlot, Vmemmap};

type B = AArch64_64K;

/// With 64K pages a subsection has one vmemmap page, so that any two of them can belong to pages of
/// different orders.
#[test]
fn a_tail_frame_is_found_behind_that_of_another_order() {
    let per_page = B::MODEL.descriptors_per_page();
    let pages = |first: u64, count: u64| {
        let start = Pfn::new((1 << 20) + first * per_page).unwrap();
        PfnRange::new(start, count * per_page).unwrap()
    };
    let all = pages(0, 32);
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![all],
        ..MachineConfig::default()
    })
    .unwrap();
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap: Vmemmap<Page<Pointer>, _, _> = vmemmap.unwrap();
    let ranges = [all];
    let pagemap = |pages: u32| {
        let order = Order::new((pages.ilog2() + per_page.ilog2()) as u8).unwrap();
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order));
        pagemap.unwrap().with_tables(Tables::Private)
    };
    let (small, large) = (pagemap(4), pagemap(32));
    // The tables are there, so that the two tails get frames that follow each other.
    vmemmap.populate(&mut table, &small, pages(8, 1)).unwrap();
    vmemmap.populate(&mut table, &small, pages(30, 1)).unwrap();
    vmemmap.populate(&mut table, &large, pages(31, 1)).unwrap();
    let out = machine.frames().outstanding();
    vmemmap.populate(&mut table, &large, pages(1, 3)).unwrap();
    assert_eq!(machine.frames().outstanding(), out);

    let folded = vmemmap.unfold(&mut table, &large, all);
    assert!(folded.is_err(), "most of it is not online");
    let mut scratch = vec![AuditSlot::default(); 64];
    let report = vmemmap.audit(&table, &[machine.frames()], &mut scratch);
    let report = report.unwrap();
    assert_eq!((report.descriptor_frames, report.mapped_pages), (3, 6));
}
