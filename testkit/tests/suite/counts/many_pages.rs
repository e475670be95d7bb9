//! A compound page costs the same, however many there are: of 1 GiB up to 8 TiB, of changes up to 32 pages.

use super::Counts;
use super::operations::counted_but_entries;
use hosted::BackendKind;
use mm_core::addr::{Granule, NodeId, Order};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tables, Tails};
use testkit::testbed::{Setup, Sizes, pagemap};
use testkit::{OnBackend, on_backends};

/// What operations counted, each with its name.
type Counted = Vec<(&'static str, Counts)>;

/// Asserts of what was counted for some pages, and for two, four and eight times as many, that what comes with
/// twice as many is twice as much: that each page costs the same.
fn assert_doubles(kind: BackendKind, all: &[Counted; 4]) {
    let [one, ..] = all;
    for (operation, (name, _)) in one.iter().enumerate() {
        let of = |turn: usize| all[turn][operation].1.but_entries_and_frames();
        for column in 0..of(0).len() {
            let [one, two, four, eight] = [0, 1, 2, 3].map(|turn| of(turn)[column] as i64);
            let added = [two - one, four - two, eight - four];
            let expected = [added[0], 2 * added[0], 4 * added[0]];
            let name = format!("{kind:?}, {name}: {}", super::NAMES[column + 1]);
            assert_eq!(added, expected, "{name} of {one}, {two}, {four}, {eight}");
        }
    }
}

/// The model of a page table with pages of 4 KiB: so much memory takes too many descriptors with larger ones. (And
/// too many entries in a plain map, which has one for each vmemmap page.)
fn with_4k_pages(kind: BackendKind) -> Option<MemoryModel> {
    Some(kind.model()).filter(|model| model.granule() == Granule::Size4K)
}

fn a_page_of_1_gib_costs_the_same_from_1_tib_on(kind: BackendKind) {
    let Some(model) = with_4k_pages(kind) else {
        return;
    };
    let sizes = Sizes::of(model);
    let order = sizes.order(1 << 30);
    // In Sv39 there is room for 256 GiB.
    if model.all_frames().frames() < 16 * sizes.order(1 << 40).frames() {
        return;
    }
    for piece in [Piece::Range, Piece::Section] {
        let counted = [1, 2, 4, 8].map(|tib| {
            // Upper tables are full, or there is one for all.
            let ranges = [sizes.blocks(order, 8 << 10, tib << 10)];
            let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder);
            let pagemap = pagemap.with_tables(Tables::Shared).with_piece(piece);
            let mut counted = Counted::new();
            kind.testbed(&Setup::new(&ranges), |bed| {
                let (online, region) = counted_but_entries(bed, |bed| bed.online(&pagemap));
                let region = region.unwrap();
                let (offline, _) = counted_but_entries(bed, |bed| bed.offline(region));
                counted = vec![("online", online), ("offline", offline)];
            });
            counted
        });
        assert_doubles(kind, &counted);
    }
}

fn a_change_of_a_page_costs_the_same_in_pages_of_any_number(kind: BackendKind) {
    let Some(model) = with_4k_pages(kind) else {
        return;
    };
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.order(1 << 30), sizes.natural());
    let node = NodeId::new(0);
    // Enough for whole batches of changes.
    let counted = [4, 8, 16, 32].map(|pages| {
        let ranges = [sizes.blocks(large, 64, pages)];
        let all = ranges[0];
        let of = |order: Order, tables| {
            let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder);
            pagemap.with_tables(tables).with_piece(Piece::Range)
        };
        let large_pages = of(large, Tables::Shared);
        let small_pages = of(small, Tables::Private);
        let mut counted = Counted::new();
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&large_pages).unwrap();
            for (name, to) in [("split", &small_pages), ("merge", &large_pages)] {
                let needed = bed.reserve_needed(to, all, large);
                bed.fill_reserve(node, needed).unwrap();
                let (counts, done) = counted_but_entries(bed, |bed| bed.reorder(to, all));
                let _ = done.unwrap();
                counted.push((name, counts));
                bed.empty_reserve();
            }
            bed.offline(region);
        });
        counted
    });
    assert_doubles(kind, &counted);

    let counted = [64, 128, 256, 512].map(|pages| {
        let ranges = [sizes.blocks(small, 1024, pages)];
        let base_pages = pagemap(&model, &ranges, Order::BASE, Tails::None);
        let base_pages = base_pages.with_huge_leaves(false);
        let folded = pagemap(&model, &ranges, small, Tails::PerOrder);
        let mut counted = Counted::new();
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages).unwrap();
            let (fold, done) = counted_but_entries(bed, |bed| bed.fold(&folded, ranges[0]));
            assert_eq!(done.unwrap().changed, pages);
            counted.push(("fold", fold));
            bed.offline(region);
        });
        counted
    });
    assert_doubles(kind, &counted);
}

on_backends!(radix:
    a_page_of_1_gib_costs_the_same_from_1_tib_on,
    a_change_of_a_page_costs_the_same_in_pages_of_any_number,
);
