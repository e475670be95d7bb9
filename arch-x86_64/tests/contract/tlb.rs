//! Which instructions a flush takes, and that no CPU is left out.

use crate::machine::{Event, Machine, Plan, pages, vmemmap};
use arch_x86_64::{FourLevel, INVLPG_LIMIT, Tlb};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu, Replacement};
use std::sync::atomic::Ordering::Relaxed;

fn forget(machine: &Machine<FourLevel>, scope: FlushScope<'_>) -> Vec<Event> {
    machine.cpus.take_events();
    let tlb = Tlb::new(&machine.cpus, &machine.cpus);
    Mmu::<FourLevel>::flush(&tlb, scope);
    let mut events = machine.cpus.take_events();
    if scope != FlushScope::Nothing {
        assert_eq!(events.remove(0), Event::Fence(0), "stores first");
    }
    events
}

/// Neither the interrupt to other CPUs nor INVPCID is ordered with what was stored to tables.
#[test]
fn stores_are_fenced_before_any_cpu_forgets() {
    let machine = Machine::<FourLevel>::new();
    let page = [pages(0xffff_ea00_0000_0000, 1)];
    for scope in [FlushScope::Ranges(&page), FlushScope::Everything] {
        machine.cpus.take_events();
        let tlb = Tlb::new(&machine.cpus, &machine.cpus);
        Mmu::<FourLevel>::flush(&tlb, scope);
        let events = machine.cpus.take_events();
        assert_eq!(
            (events[0], events.len()),
            (Event::Fence(0), 3),
            "{events:?}"
        );
        assert!(!matches!(events[1], Event::Fence(_)));
    }
}

#[test]
fn few_pages_are_invalidated_one_by_one_on_every_cpu() {
    let machine = Machine::new();
    let ranges = [
        pages(0xffff_ea00_0000_0000, 2),
        pages(0xffff_ffff_ffff_f000, 1),
    ];
    let at = [
        0xffff_ea00_0000_0000,
        0xffff_ea00_0000_1000,
        0xffff_ffff_ffff_f000,
    ]
    .map(VirtAddr::new);
    let expected: Vec<_> = [0, 1]
        .into_iter()
        .flat_map(|cpu| at.map(|at| Event::Invlpg(cpu, at)))
        .collect();
    assert_eq!(forget(&machine, FlushScope::Ranges(&ranges)), expected);
}

#[test]
fn a_range_within_a_page_takes_its_page() {
    let machine = Machine::new();
    let range = VirtRange::new(VirtAddr::new(0x1ff8), 16).unwrap();
    let events = forget(&machine, FlushScope::Ranges(&[range]));
    let page = |cpu, at| Event::Invlpg(cpu, VirtAddr::new(at));
    assert_eq!(
        events,
        [
            page(0, 0x1000),
            page(0, 0x2000),
            page(1, 0x1000),
            page(1, 0x2000)
        ]
    );
}

#[test]
fn the_limit_is_for_all_ranges_together() {
    let machine = Machine::new();
    let half = |at| pages(at, INVLPG_LIMIT / 2);
    let at_limit = [half(0), half(1 << 30)];
    assert_eq!(
        forget(&machine, FlushScope::Ranges(&at_limit)).len() as u64,
        2 * INVLPG_LIMIT
    );
    let above = [half(0), half(1 << 30), pages(1 << 40, 1)];
    assert_eq!(
        forget(&machine, FlushScope::Ranges(&above)),
        [Event::Invpcid(0), Event::Invpcid(1)]
    );
    let all = VirtRange::between(VirtAddr::new(0), VirtAddr::new(u64::MAX)).unwrap();
    assert_eq!(
        forget(&machine, FlushScope::Ranges(&[all])),
        [Event::Invpcid(0), Event::Invpcid(1)]
    );
}

#[test]
fn everything_is_global_entries_too_with_invpcid_and_without() {
    for (has_invpcid, event) in [
        (true, Event::Invpcid as fn(usize) -> Event),
        (false, Event::TogglePge),
    ] {
        let machine = Machine::<FourLevel>::new();
        machine.cpus.has_invpcid.store(has_invpcid, Relaxed);
        let range = vmemmap::<FourLevel>(0, 100);
        machine.map(range, Plan::Distinct);
        machine.cpus.all().iter().for_each(|cpu| cpu.fill(range));
        assert_eq!(
            forget(&machine, FlushScope::Everything),
            [event(0), event(1)]
        );
        for cpu in machine.cpus.all() {
            assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
        }
    }
}

#[test]
fn with_pcids_a_single_page_takes_a_flush_of_every_context() {
    // INVLPG leaves the paging-structure caches of other PCIDs.
    let machine = Machine::new();
    machine.cpus.uses_pcids.store(true, Relaxed);
    let events = forget(&machine, FlushScope::Ranges(&[pages(0, 1)]));
    assert_eq!(events, [Event::Invpcid(0), Event::Invpcid(1)]);
    machine.cpus.has_invpcid.store(false, Relaxed);
    let events = forget(&machine, FlushScope::Ranges(&[pages(0, 1)]));
    assert_eq!(events, [Event::TogglePge(0), Event::TogglePge(1)]);
}

#[test]
fn nothing_to_forget_disturbs_no_cpu() {
    let machine = Machine::new();
    assert_eq!(forget(&machine, FlushScope::Nothing), []);
}

#[test]
fn entries_in_use_are_exchanged_unless_the_kernel_says_otherwise() {
    let machine = Machine::<FourLevel>::new();
    let tlb = Tlb::new(&machine.cpus, &machine.cpus);
    assert_eq!(Mmu::<FourLevel>::replacement(&tlb), Replacement::Direct);
    let tlb = tlb.without_replacement();
    assert_eq!(Mmu::<FourLevel>::replacement(&tlb), Replacement::Refused);
}
