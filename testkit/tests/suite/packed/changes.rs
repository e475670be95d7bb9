//! Packed memory that changes its order: with too little in reserve, with others in the place of its heads, and what is
//! in heads afterwards.

use super::{address, assert_packed, packed};
use hosted::BackendKind;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tables, Tails};
use mm_core::paging::{Leaf, Role};
use mm_core::vmemmap::{FoldError, Reserve};
use testkit::testbed::{Setup, Sizes, Testbed};
use testkit::{OnBackend, on_backends};

const NODE: NodeId = NodeId::new(0);

/// What two pages become, and are again.
fn forms<'p>(model: &MemoryModel, ranges: &'p [PfnRange]) -> [DevPagemap<'p>; 4] {
    let sizes = Sizes::of(*model);
    let large = packed(model, ranges, sizes.natural()).with_tables(Tables::Private);
    let small = packed(model, ranges, sizes.vmemmap_page()).with_tables(Tables::Private);
    let in_place = large.with_heads(Heads::InPlace).with_tails(Tails::PerOrder);
    let base = DevPagemap::new(model, ranges, Geometry::BASE_PAGES).unwrap();
    [large, small, in_place, base.with_huge_leaves(false)]
}

fn change(bed: &mut dyn Testbed<'_>, pagemap: &DevPagemap<'_>, frames: PfnRange, largest: Order) {
    let needed = bed.reserve_needed(pagemap, frames, largest);
    assert!(bed.fill_reserve(NODE, needed).unwrap().is_empty());
    assert_eq!(bed.reorder(pagemap, frames).unwrap().rest, None);
    bed.audit();
    bed.empty_reserve();
}

/// What is said to be needed is enough, and whatever is less changes nothing, or all.
fn with_too_little_in_reserve_nothing_changes(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let large = sizes.natural();
    let ranges = [sizes.blocks(large, 8, 1)];
    let [first, others @ ..] = forms(&model, &ranges);
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&first).unwrap();
        let mut refused = 0;
        for other in &others {
            for (from, to) in [(&first, other), (other, &first)] {
                let needed = bed.reserve_needed(to, ranges[0], large);
                let fewer_frames = (0..=needed.frames).map(|frames| Reserve { frames, ..needed });
                let fewer_tables = (0..needed.tables).map(|tables| Reserve { tables, ..needed });
                for wanted in fewer_tables.chain(fewer_frames) {
                    let _ = bed.fill_reserve(NODE, wanted).unwrap();
                    let before = bed.snapshot();
                    match bed.reorder(to, ranges[0]) {
                        Ok(done) => {
                            assert_eq!(done.rest, None);
                            bed.empty_reserve();
                            if wanted != needed {
                                change(bed, from, ranges[0], large);
                            }
                        }
                        Err(stopped) => {
                            assert_ne!(wanted, needed);
                            assert_eq!(stopped.done.units, 0);
                            assert_eq!(stopped.error, FoldError::ReserveTooSmall { node: NODE });
                            bed.assert_unchanged(&before, "with too little in reserve");
                            bed.empty_reserve();
                            refused += 1;
                        }
                    }
                }
            }
        }
        assert!(refused > 10, "{refused}");
        bed.offline(region);
    });
}

/// What somebody else has where new heads are to be is seen, and stays.
fn foreign_entries_where_new_heads_are_to_be_are_seen(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let large = sizes.natural();
    let ranges = [sizes.blocks(large, 8, 2)];
    let [first, small, in_place, base] = forms(&model, &ranges);
    let bytes = model.granule().bytes();
    let page_of = |frame: Pfn, order: Order| {
        VirtAddr::new(address(&model, frame, order).get() & !(bytes - 1))
    };
    for (from, to) in [(first, small), (in_place, first), (base, small)] {
        let order = to.geometry().order();
        // In the place of the last head.
        let at = page_of(ranges[0].last(), order);
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&from).unwrap();
            let leaf = Leaf {
                block: Block::single(Pfn::new(77).unwrap()),
                role: Role::Foreign,
                writable: true,
            };
            assert!(bed.map_foreign(at, leaf));
            let needed = bed.reserve_needed(&to, ranges[0], large);
            let _ = bed.fill_reserve(NODE, needed).unwrap();
            let before = bed.snapshot();
            let refused = bed.reorder(&to, ranges[0]).unwrap_err();
            assert_eq!(refused.error, FoldError::AlreadyMapped { at });
            if refused.done.units == 0 {
                bed.assert_unchanged(&before, "after it was refused");
            }
            bed.unmap_foreign(at);
            bed.empty_reserve();
            change(bed, &to, ranges[0], large);
            bed.offline(region);
        });
    }
}

/// Where the first word of the head of the page of `frame` is, that `pagemap` has: what the kernel keeps there is its own.
fn flags_at(bed: &dyn Testbed<'_>, pagemap: &DevPagemap<'_>, frame: Pfn) -> PhysAddr {
    let model = bed.model();
    let at = match pagemap.heads().0 {
        Heads::Packed => address(&model, frame, pagemap.geometry().order()),
        _ => model.descriptor_address(frame).unwrap(),
    };
    let granule = model.granule();
    let holder = bed.leaf(at).unwrap().frame_at(at, granule.shift());
    PhysAddr::new(holder.base(granule).get() + (at.get() & (granule.bytes() - 1)))
}

/// A page that begins where one began keeps what is in its head, wherever that is; others are new, and so are tails.
fn heads_keep_what_the_kernel_wrote(kind: BackendKind) {
    let model = kind.model();
    let large = Sizes::of(model).natural();
    let ranges = [Sizes::of(model).blocks(large, 8, 2)];
    let [first, small, in_place, base] = forms(&model, &ranges);
    let own = in_place.with_tails(Tails::None).with_huge_leaves(false);
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&first).unwrap();
        let all = [
            &small, &first, &in_place, &small, &base, &first, &base, &small, &own, &small,
            &in_place, &first,
        ];
        let mut from = &first;
        for (number, to) in (1..).zip(all) {
            let heads = |pagemap: &DevPagemap<'_>| {
                let frames = pagemap.geometry().order().frames();
                let start = ranges[0].start();
                let count = ranges[0].frames() / frames;
                (0..count).map(move |index| start.saturating_add(index * frames))
            };
            let written = |frame: Pfn| frame.get() << 8 | number;
            for head in heads(from) {
                let at = flags_at(bed, from, head);
                bed.memory().write_u64(at, written(head)).unwrap();
            }
            change(bed, to, ranges[0], large);
            for head in heads(to) {
                let found = bed.memory().read_u64(flags_at(bed, to, head)).unwrap();
                let began = head.is_aligned(from.geometry().order());
                assert_eq!(
                    found,
                    if began { written(head) } else { 0 },
                    "{head}: {to:?}"
                );
            }
            if to.tails().0 == Tails::None {
                // Heads that have become tails, which have memory of their own.
                let tails = heads(from).filter(|head| !head.is_aligned(to.geometry().order()));
                for tail in tails {
                    let found = bed.memory().read_u64(flags_at(bed, to, tail)).unwrap();
                    assert_eq!(found, 0, "{tail}: {to:?}");
                }
            }
            if to.heads().0 == Heads::Packed {
                assert_packed(bed, ranges[0], to.geometry().order());
            }
            from = to;
        }
        bed.offline(region);
    });
}

/// A shared table of stubs stands for many pages. Some of them change, and the others stay what they are.
fn a_part_of_what_a_shared_table_maps_changes(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (order, table) = (sizes.natural(), sizes.table());
    let ranges = [sizes.blocks(table, 4, 2)];
    let first = packed(&model, &ranges, order);
    let smaller = packed(&model, &ranges, Order::new(order.get() - 1).unwrap());
    let in_place = first.with_heads(Heads::InPlace);
    let all = [
        smaller,
        packed(&model, &ranges, sizes.vmemmap_page()),
        in_place.with_tails(Tails::PerOrder),
        in_place.with_tails(Tails::PerCompound),
        in_place.with_tails(Tails::None).with_huge_leaves(false),
    ];
    let start = sizes.blocks(table, 5, 1).start();
    let nth = |index| {
        let first: Pfn = start.saturating_add(index * order.frames());
        PfnRange::new(first, order.frames()).unwrap()
    };
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&first).unwrap();
        for to in &all {
            change(bed, to, nth(3), order);
            match to.heads().0 {
                Heads::Packed => assert_packed(bed, nth(3), to.geometry().order()),
                _ => bed.assert_described(nth(3), order),
            }
            for beside in [0, 2, 4, 7] {
                assert_packed(bed, nth(beside), order);
            }
            change(bed, &first, nth(3), order);
            assert_packed(bed, nth(3), order);
        }
        bed.offline(region);
    });
}

on_backends!(pages_of_4k:
    a_part_of_what_a_shared_table_maps_changes,
    with_too_little_in_reserve_nothing_changes,
    foreign_entries_where_new_heads_are_to_be_are_seen,
    heads_keep_what_the_kernel_wrote,
);
