//! Regions side by side: leaf tables and upper tables at their borders belong to both.

use super::pagemap;
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{Piece, Tables, Tails};
use testkit::testbed::{Costs, Setup, Sizes, Used, shuffled};
use testkit::{OnBackend, on_backends};

/// Neighbours within one leaf table, across the end of one, and across the end of an upper table.
fn regions_share_tables_at_their_borders(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let small = sizes.small();
    let natural = sizes.natural();
    // The number of the block at the end of what an upper table leads to, or of what a leaf table
    // describes where one upper table leads to all memory.
    let table = u32::from(sizes.table().get());
    let upper = table + sizes.entries().trailing_zeros();
    let all = model.all_frames().frames().ilog2();
    let end = 1u64 << (if upper < all { upper } else { table } - u32::from(natural.get()));
    let ratio = natural.frames() / small.frames();
    let parts = [
        (
            natural,
            Tails::PerCompound,
            sizes.blocks(natural, end - 3, 1),
        ),
        (
            Order::BASE,
            Tails::None,
            sizes.blocks(small, (end - 2) * ratio, ratio),
        ),
        (
            small,
            Tails::PerOrder,
            sizes.blocks(small, (end - 1) * ratio, 2 * ratio),
        ),
        (natural, Tails::PerOrder, sizes.blocks(natural, end + 1, 2)),
        (
            natural,
            Tails::PerCompound,
            sizes.blocks(natural, end + 3, 1),
        ),
    ];
    let ranges = parts.map(|(.., range)| [range]);
    let costs = Costs::of(kind, &model);
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let maps: Vec<_> = parts
            .iter()
            .zip(&ranges)
            .map(|((order, tails, _), ranges)| pagemap(&model, ranges, *order, *tails))
            .map(|pagemap| pagemap.with_huge_leaves(false))
            .collect();
        for seed in 1..12 {
            let mut regions: Vec<_> = parts.iter().map(|_| None).collect();
            let mut used: Vec<Option<Used>> = vec![None; parts.len()];
            for index in shuffled(parts.len(), seed) {
                let piece = [Piece::Subsection, Piece::Section, Piece::Range][index % 3];
                regions[index] = Some(bed.online(&maps[index].with_piece(piece)).unwrap());
                let (order, tails, range) = parts[index];
                used[index] = Some(Used::compound(range, order, tails));
                let online: Vec<Used> = used.iter().copied().flatten().collect();
                assert_eq!(bed.audit(), costs.report(&online, Tables::Private));
            }
            for index in shuffled(parts.len(), seed + 31) {
                bed.fill_cpus(parts[index].2);
                bed.offline(regions[index].take().unwrap());
                used[index] = None;
                let online: Vec<Used> = used.iter().copied().flatten().collect();
                let left = bed.audit();
                let expected = match online.is_empty() {
                    true => Default::default(),
                    false => costs.report(&online, Tables::Private),
                };
                assert_eq!(left, expected);
                for (order, _, range) in parts
                    .iter()
                    .zip(&used)
                    .filter_map(|(part, used)| used.map(|_| part))
                {
                    bed.assert_described(*range, *order);
                }
            }
        }
    });
}

/// Regions that share tails and tables with each other, and one that shares them with nobody.
fn regions_with_shared_tables_come_and_go_in_any_order(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let parts = [
        (Tails::PerOrder, 0, sizes.blocks(order, 2, 1)),
        (Tails::PerOrder, 0, sizes.blocks(order, 3, 2)),
        (Tails::PerOrder, 1, sizes.blocks(order, 5, 1)),
        (Tails::PerCompound, 0, sizes.blocks(order, 6, 1)),
    ];
    let ranges = parts.map(|(.., range)| [range]);
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        for seed in 1..8 {
            let mut regions: Vec<_> = parts.iter().map(|_| None).collect();
            for index in shuffled(parts.len(), seed) {
                let (tails, node, _) = parts[index];
                let pagemap = pagemap(&model, &ranges[index], order, tails)
                    .with_tables(Tables::Shared)
                    .with_piece(Piece::Range)
                    .with_node(NodeId::new(node));
                regions[index] = Some(bed.online(&pagemap).unwrap());
                bed.audit();
            }
            let report = bed.audit();
            // Four heads and a tail, one and one, one and one.
            assert_eq!(report.descriptor_frames, (3 + 1) + (1 + 1) + 2);
            if bed.shares_tables() {
                assert_eq!(report.leaf_tables, (3 + 1) + (1 + 1) + 2);
            }
            for index in shuffled(parts.len(), seed + 31) {
                bed.fill_cpus(parts[index].2);
                bed.offline(regions[index].take().unwrap());
                bed.audit();
                for (index, (.., range)) in parts.iter().enumerate() {
                    if regions[index].is_some() {
                        bed.assert_described(range.take_first(1 << 12).0, order);
                        let last = PfnRange::single(range.last());
                        bed.assert_described(last, order);
                    }
                }
            }
        }
    });
}

/// The ranges of one pagemap, in any order of theirs, with a gap between them.
fn ranges_of_one_region_share_tables_too(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let small = sizes.small();
    let ranges = [
        sizes.blocks(small, 40, 2),
        sizes.blocks(small, 35, 3),
        sizes.blocks(small, 43, 1),
        sizes.blocks(small, 38, 2),
    ];
    let used = ranges.map(|range| Used::compound(range, small, Tails::PerCompound));
    kind.testbed(&Setup::new(&ranges), |bed| {
        for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
            let pagemap = pagemap(&model, &ranges, small, Tails::PerCompound).with_piece(piece);
            let region = bed.online(&pagemap).unwrap();
            let expected = Costs::of(kind, &model).report(&used, Tables::Private);
            assert_eq!(bed.audit(), expected);
            bed.assert_offline(sizes.blocks(small, 42, 1));
            bed.offline(region);
        }
    });
}

on_backends!(all:
    regions_share_tables_at_their_borders,
    regions_with_shared_tables_come_and_go_in_any_order,
    ranges_of_one_region_share_tables_too,
);
