//! Tails of different compound pages side by side, in frames that follow each other.

use hosted::{AArch64_64K, Backend, Machine, MachineConfig};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page, Pointer};
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditSlot, Vmemmap};

type B = AArch64_64K;

/// The memory that `count` vmemmap pages describe.
fn pages(first: u64, count: u64) -> PfnRange {
    let per_page = B::MODEL.descriptors_per_page();
    let start = Pfn::new((1 << 20) + first * per_page).unwrap();
    PfnRange::new(start, count * per_page).unwrap()
}

/// A machine with `device`.
fn machine(device: PfnRange) -> Machine<B> {
    let config = MachineConfig {
        devices: vec![device],
        ..MachineConfig::default()
    };
    Machine::new(&config).unwrap()
}

/// With 64K pages a subsection has one vmemmap page, so that any two of them can belong to pages of
/// different orders.
#[test]
fn a_tail_frame_is_found_behind_that_of_another_order() {
    let per_page = B::MODEL.descriptors_per_page();
    let all = pages(0, 32);
    let machine = machine(all);
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

/// A node without free memory has its tail elsewhere, behind that of the node which has some.
#[test]
fn each_of_two_nodes_tails_is_forgotten_when_it_is_freed() {
    let per_page = B::MODEL.descriptors_per_page();
    let ranges = [pages(0, 16)];
    let machine = machine(ranges[0]);
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap: Vmemmap<Page<Mask>, _, _> = vmemmap.unwrap();
    let order = Order::new((8 * per_page).ilog2() as u8).unwrap();
    let on_node = |node| {
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order));
        let pagemap = pagemap.unwrap().with_tails(Tails::PerOrder);
        pagemap.with_node(NodeId::new(node))
    };
    machine.frames().fill_node(NodeId::new(1));
    vmemmap
        .populate(&mut table, &on_node(0), pages(0, 2))
        .unwrap();
    vmemmap
        .populate(&mut table, &on_node(1), pages(2, 6))
        .unwrap();
    let tail_of = |table: &_, page| {
        let at = B::MODEL.descriptor_address(pages(page, 1).start()).unwrap();
        PageTable::lookup(table, at)
            .mapping()
            .unwrap()
            .leaf
            .block
            .first()
    };
    let tails = [tail_of(&table, 1), tail_of(&table, 2)];
    assert_eq!(tails[0].checked_add(1), Some(tails[1]), "side by side");

    let pages_of_one = pages(0, 8);
    let unfolded = vmemmap.unfold(&mut table, &on_node(0), pages_of_one);
    assert_eq!(unfolded.unwrap().changed, 1);
    // The head takes the frame of a tail that is no more.
    let out = machine.frames().outstanding();
    vmemmap
        .populate(&mut table, &on_node(0), pages(8, 8))
        .unwrap();
    assert_eq!(machine.frames().outstanding(), out + 2);
    let (head, tail) = (tail_of(&table, 8), tail_of(&table, 9));
    assert!(tails.contains(&head) && tail != head, "{head} and {tail}");
    let mut scratch = vec![AuditSlot::default(); 64];
    let report = vmemmap.audit(&table, &[machine.frames()], &mut scratch);
    assert_eq!(report.unwrap().mapped_pages, 16);
}
