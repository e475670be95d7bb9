//! What can be known at a time. Tail frames have a limit, since there is no heap: beyond it there is
//! an error, and nothing has changed. Altmaps have none.

use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::vmemmap::{FoldError, OfflineError, OnlineError};
use testkit::testbed::{Setup, Sizes, shuffled};
use testkit::{OnBackend, on_backends};

/// More than can be known of anything.
const MANY: u64 = 100;

fn small<'p>(model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
    let order = Sizes::of(*model).small();
    DevPagemap::new(model, ranges, Geometry::compound(order)).unwrap()
}

fn one_shared_tail_too_many_is_refused_until_another_goes(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let range = |index| [sizes.blocks(sizes.small(), 8 + index, 1)];
    let ranges: Vec<[PfnRange; 1]> = (0..MANY).map(range).collect();
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let of_node = |node: usize| {
            let pagemap = small(&model, &ranges[node]).with_tails(Tails::PerOrder);
            pagemap.with_node(NodeId::new(node as u32))
        };
        let mut regions = Vec::new();
        let (capacity, before) = loop {
            let before = bed.snapshot();
            match bed.online(&of_node(regions.len())) {
                Ok(region) => regions.push(region),
                Err(OnlineError::TooManySharedTails { capacity }) => break (capacity, before),
                Err(error) => panic!("{error}"),
            }
        };
        bed.assert_unchanged(&before, "refused");
        assert_eq!(regions.len(), capacity);
        // All orders up to the largest, on a node.
        assert!(capacity > usize::from(model.max_order().get()));

        // Folding asks for the same.
        let base = DevPagemap::new(&model, &ranges[capacity], Geometry::BASE_PAGES).unwrap();
        let unfolded = bed.online(&base).unwrap();
        let before = bed.snapshot();
        let refused = bed.fold(&of_node(capacity), ranges[capacity][0]);
        let refused = refused.unwrap_err();
        assert_eq!(refused, FoldError::TooManySharedTails { capacity });
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        bed.assert_unchanged(&before, "refused");
        bed.offline(unfolded);

        bed.offline(regions.swap_remove(capacity / 2));
        regions.push(bed.online(&of_node(capacity)).unwrap());
        bed.audit();
        for region in regions {
            bed.offline(region);
        }
    });
}

/// Each altmap brings the memory that it takes to be remembered.
fn altmaps_are_remembered_however_many_there_are(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.subsection().max(sizes.small());
    let block = |index| [sizes.blocks(order, 8 + 4 * index, 4)];
    let ranges: Vec<[PfnRange; 1]> = (0..MANY).map(block).collect();
    let reserved = |range: &[PfnRange; 1]| range[0].take_first(model.subsection().frames()).0;
    let setup = ranges
        .iter()
        .fold(Setup::new(&ranges.concat()), |setup, range| {
            setup.with_altmap(reserved(range))
        });
    kind.testbed(&setup, |bed| {
        let altmaps = bed.altmaps();
        let with = |index: usize| {
            let pagemap = small(&model, &ranges[index]);
            pagemap.with_altmap(altmaps[index]).unwrap()
        };
        let mut regions: Vec<_> = shuffled(ranges.len(), 5)
            .into_iter()
            .map(|index| (index, bed.online(&with(index)).unwrap()))
            .collect();
        let report = bed.audit();
        let counts: u64 = altmaps.iter().map(|altmap| altmap.count_frames()).sum();
        assert_eq!(report.count_frames, counts);
        // None is taken for another one.
        let before = bed.snapshot();
        for (index, [range]) in ranges.iter().enumerate() {
            let piece = range.split_at(2 * order.frames()).1.unwrap();
            let without = small(&model, &ranges[index]);
            let refused = bed.depopulate(&without, piece);
            let reserved = altmaps[index].reserved();
            assert_eq!(refused, Err(OfflineError::OtherAltmap { reserved }));
            assert!(bed.is_reserved(reserved.start()) && bed.is_reserved(reserved.last()));
            assert!(!bed.is_reserved(piece.start()));
        }
        bed.assert_unchanged(&before, "refused");
        for (turn, index) in shuffled(ranges.len(), 6).into_iter().enumerate() {
            let at = regions.iter().position(|(one, _)| *one == index).unwrap();
            bed.offline(regions.swap_remove(at).1);
            assert!(!bed.is_reserved(altmaps[index].reserved().start()));
            if turn % 16 == 0 {
                bed.audit();
                regions.push((index, bed.online(&with(index)).unwrap()));
            }
        }
        for (_, region) in regions {
            bed.offline(region);
        }
    });
}

/// As many gigantic pages as there are tail frames to be remembered, and more: each has a table for
/// its tails, and those that are not remembered cost a second one at worst.
fn more_shared_tables_than_are_remembered_cost_memory_and_nothing_else(kind: BackendKind) {
    use mm_core::pagemap::Tables;
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.gigantic().get() + 1)
        .unwrap()
        .min(model.max_order());
    let count = 40;
    let ranges = [sizes.blocks(order, 1, count)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = DevPagemap::new(&model, &ranges, Geometry::compound(order)).unwrap();
        let pagemap = pagemap.with_tables(Tables::Shared);
        let pagemap = pagemap.with_piece(mm_core::pagemap::Piece::Range);
        for _ in 0..2 {
            let region = bed.online(&pagemap).unwrap();
            let report = bed.audit();
            assert_eq!(report.descriptor_frames, 2 * count);
            if bed.has_tables() {
                assert_eq!(report.leaf_tables, 2 * count);
            }
            // In an order that asks for those that are long forgotten.
            let pieces = sizes.subsections(ranges[0]);
            let per_compound = pieces.len() / count as usize;
            for compound in [0, 39, 1, 20] {
                let piece = pieces[compound * per_compound + per_compound * 3 / 4];
                bed.depopulate(&pagemap, piece).unwrap();
                bed.audit();
                bed.populate(&pagemap, piece).map(drop).unwrap();
                bed.audit();
            }
            bed.offline(region);
        }
    });
}

on_backends!(all:
    one_shared_tail_too_many_is_refused_until_another_goes,
    altmaps_are_remembered_however_many_there_are,
    more_shared_tables_than_are_remembered_cost_memory_and_nothing_else,
);
