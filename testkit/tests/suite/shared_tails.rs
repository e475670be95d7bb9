//! One read-only tail frame for all compound pages of an order and node.

use arch_sim::Fault;
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::frame::InspectFrames;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::OnlineError;
use testkit::testbed::{self, Costs, Encoding, Setup, Sizes, Testbed, Used};
use testkit::{OnBackend, on_backends};

fn pagemap<'p>(model: &MemoryModel, ranges: &'p [PfnRange], order: Order) -> DevPagemap<'p> {
    testbed::pagemap(model, ranges, order, Tails::PerOrder)
}

/// The frame that the last descriptor of `frames` is in, which is the tail's.
fn tail_of(bed: &dyn Testbed<'_>, frames: PfnRange) -> mm_core::addr::Pfn {
    let leaf = bed.leaf_of(frames.last()).unwrap();
    assert!(leaf.tail && !leaf.writable, "{leaf:?}");
    leaf.frame
}

fn all_compound_pages_of_an_order_have_one_tail_frame(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    // Two vmemmap pages are the fewest that save one.
    let least = Order::new(sizes.vmemmap_page().get() + 1).unwrap();
    for (order, count) in [
        (least.max(sizes.subsection()), 8),
        (sizes.natural(), 20),
        (sizes.table(), 3),
        (sizes.gigantic(), 2),
    ] {
        let ranges = [sizes.blocks(order, 5, count)];
        kind.testbed(&Setup::new(&ranges), |bed| {
            for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
                let pagemap = pagemap(&model, &ranges, order).with_piece(piece);
                let region = bed.online(&pagemap).unwrap();
                assert!(region.notes().is_empty(), "{:?}", region.notes());
                assert_eq!(region.tails(), Tails::PerOrder);
                let used = Used::compound(ranges[0], order, Tails::PerOrder);
                let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
                assert_eq!(expected.descriptor_frames, count + 1);
                assert_eq!(bed.audit(), expected, "{order} {piece:?}");
                bed.assert_described(
                    ranges[0].take_first(2 * order.frames().min(1 << 20)).0,
                    order,
                );
                let tail = tail_of(bed, ranges[0]);
                let others = count * (sizes.pages(order) - 1);
                assert_eq!(bed.frames().references(tail), Some(others));
                bed.offline(region);
            }
        });
    }
}

fn a_store_to_it_faults(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 4, 2)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed
            .online(&pagemap(&model, &ranges, sizes.natural()))
            .unwrap();
        let head = bed.address_of(ranges[0].start());
        let tail = bed.address_of(ranges[0].last());
        // The head's page has live fields.
        assert!(bed.store(head).is_none_or(|store| store.is_ok()));
        let store = bed.store(tail).unwrap_or(Err(Fault::ReadOnly { at: tail }));
        assert_eq!(store, Err(Fault::ReadOnly { at: tail }));
        bed.offline(region);
    });
}

fn it_outlives_each_region_but_the_last(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let (first, second) = ([sizes.blocks(order, 4, 2)], [sizes.blocks(order, 64, 3)]);
    kind.testbed(&Setup::new(&[first[0], second[0]]), |bed| {
        let tails = sizes.pages(order) - 1;
        let one = bed.online(&pagemap(&model, &first, order)).unwrap();
        let tail = tail_of(bed, first[0]);
        let other = bed.online(&pagemap(&model, &second, order)).unwrap();
        assert_eq!(tail_of(bed, second[0]), tail);
        assert_eq!(bed.frames().references(tail), Some(5 * tails));

        bed.offline(one);
        assert_eq!(bed.frames().references(tail), Some(3 * tails));
        bed.audit();
        bed.offline(other);
        assert_eq!(bed.frames().references(tail), Some(0));

        // Nothing remembers the dead frame, whatever it is used for now.
        let base = DevPagemap::new(&model, &second, Geometry::BASE_PAGES).unwrap();
        let base = bed.online(&base.with_huge_leaves(false)).unwrap();
        let again = bed.online(&pagemap(&model, &first, order)).unwrap();
        assert!(!bed.holders_of(second[0]).contains(&tail_of(bed, first[0])));
        bed.audit();
        bed.offline(again);
        bed.offline(base);
    });
}

fn there_is_one_for_each_order_and_node(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (small, natural) = (sizes.small(), sizes.natural());
    let larger = Order::new(natural.get() + 1).unwrap();
    let parts: [(Order, u64, u32); 5] = [
        (natural, 2, 0),
        (larger, 2, 0),
        (natural, 3, 1),
        (larger, 2, 1),
        (natural, 1, 0),
    ];
    let place = |index: usize, order: Order, count: u64| {
        let apart = (larger.frames() * 8) >> order.get();
        [sizes.blocks(order, (index as u64 + 1) * apart, count)]
    };
    let ranges: Vec<[PfnRange; 1]> = parts
        .iter()
        .enumerate()
        .map(|(index, (order, count, _))| place(index, *order, *count))
        .collect();
    assert!(small <= natural);
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let mut regions = Vec::new();
        let mut tails = Vec::new();
        for ((order, _, node), ranges) in parts.iter().zip(&ranges) {
            let pagemap = pagemap(&model, ranges, *order).with_node(NodeId::new(*node));
            regions.push(bed.online(&pagemap).unwrap());
            tails.push(tail_of(bed, ranges[0]));
        }
        bed.audit();
        assert_eq!(tails[0], tails[4]);
        tails.pop();
        tails.sort();
        tails.dedup();
        assert_eq!(tails.len(), 4);
        let rows = [0, 1].map(|node| bed.stats().node(NodeId::new(node)));
        assert_eq!(rows.map(|row| row.tail_frames), [2, 2]);
        assert_eq!(
            rows.map(|row| row.descriptor_frames),
            [2 + 2 + 2 + 1, 2 + 3 + 2]
        );
        for ((order, ..), ranges) in parts.iter().zip(&ranges) {
            bed.assert_described(ranges[0], *order);
        }
        for region in regions {
            bed.offline(region);
            bed.audit();
        }
    });
}

fn it_comes_from_the_nearest_node_that_has_memory(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 4, 2)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let far = NodeId::new(1);
        bed.frames().fill_node(far);
        let pagemap = pagemap(&model, &ranges, sizes.natural()).with_node(far);
        let region = bed.online(&pagemap).unwrap();
        bed.frames().empty_node(far);
        // Two heads and the tail, and said so.
        let notes: Vec<_> = region.notes().iter().collect();
        let expected = mm_core::vmemmap::Note::RemoteFrames {
            frames: 3,
            asked: far,
            first: NodeId::new(0),
        };
        assert_eq!(notes, [expected]);
        bed.audit();
        assert_eq!(bed.stats().node(far).tail_frames, 0);
        bed.offline(region);
    });
}

fn it_needs_tails_that_are_alike(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 4, 2)];
    let setup = Setup::new(&ranges).with_encoding(Encoding::Pointer);
    kind.testbed(&setup, |bed| {
        let before = bed.snapshot();
        let refused = bed.online(&pagemap(&model, &ranges, sizes.natural()));
        let refused = refused.map(drop).unwrap_err();
        assert_eq!(refused, OnlineError::TailsDiffer);
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        bed.assert_unchanged(&before, "refused");
    });
}

on_backends!(all:
    all_compound_pages_of_an_order_have_one_tail_frame,
    a_store_to_it_faults,
    it_outlives_each_region_but_the_last,
    there_is_one_for_each_order_and_node,
    it_comes_from_the_nearest_node_that_has_memory,
    it_needs_tails_that_are_alike,
);
