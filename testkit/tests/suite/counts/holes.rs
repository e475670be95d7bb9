//! What operations cost grows with what is mapped, and not with the addresses that there are: in the model of
//! each backend, which is the largest of its architecture, memory is online at one end, at the other, at both.

use super::Counts;
use super::operations::counted_but_entries;
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use testkit::testbed::{Setup, Sizes, Testbed, pagemap};
use testkit::{OnBackend, on_backends};

/// What operations counted, each with its name.
type Counted = Vec<(&'static str, Counts)>;

/// Counts operations on `frames`, of which nothing is online.
fn on_memory(
    bed: &mut dyn Testbed<'_>,
    large: &DevPagemap<'_>,
    small: &DevPagemap<'_>,
    frames: PfnRange,
) -> Counted {
    let mut all = Counted::new();
    let (online, region) = counted_but_entries(bed, |bed| bed.online(large).unwrap());
    all.push(("online", online));
    let (unfold, _) = counted_but_entries(bed, |bed| bed.unfold(large, frames).unwrap());
    all.push(("unfold", unfold));
    let (fold, _) = counted_but_entries(bed, |bed| bed.fold(large, frames).unwrap());
    all.push(("fold", fold));
    for (name, to) in [("split", small), ("merge", large)] {
        let needed = bed.reserve_needed(to, frames, large.geometry().order());
        bed.fill_reserve(NodeId::new(0), needed).unwrap();
        let (counts, _) = counted_but_entries(bed, |bed| bed.reorder(to, frames).unwrap());
        all.push((name, counts));
        bed.empty_reserve();
    }
    let (offline, _) = counted_but_entries(bed, |bed| bed.offline(region));
    all.push(("offline", offline));
    // In pieces smaller than a table, so that tables are merged. Frames are not where they were after that.
    let parts = large.with_piece(Piece::Subsection);
    let (online, region) = counted_but_entries(bed, |bed| bed.online(&parts).unwrap());
    all.push(("online by subsections", online));
    bed.offline(region);
    all
}

fn memory_elsewhere_and_what_lies_between_cost_nothing(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let with_small_pages = model.granule().shift() == 12;
    let (large, small) = match with_small_pages {
        true => (sizes.order(1 << 30), sizes.natural()),
        false => (
            sizes.natural(),
            Order::new(sizes.natural().get() - 1).unwrap(),
        ),
    };
    let everything = model.all_frames();
    let count = everything.frames() >> large.get();
    let block = |number| sizes.blocks(large, number, 1);
    let ends = [block(0), block(count - 1)];
    let middle = [block(count / 2)];
    let of = |order, ranges| {
        let pagemap = pagemap(&model, ranges, order, Tails::PerOrder);
        pagemap.with_tables(Tables::Shared)
    };

    let counted = [&ends[..1], &ends[1..], &ends[..]].map(|elsewhere| {
        let mut all = (Counted::new(), Counted::new());
        kind.testbed(&Setup::new(&[ends[0], middle[0], ends[1]]), |bed| {
            let region = bed.online(&of(large, elsewhere)).unwrap();
            let (large, small) = (of(large, &middle), of(small, &middle));
            all.0 = on_memory(bed, &large, &small, middle[0]);
            let (audit, report) = counted_but_entries(bed, |bed| bed.recount_by_library());
            report.unwrap();
            let (pages, listed) = counted_but_entries(bed, |bed| bed.pages(everything));
            assert_eq!(listed.len(), elsewhere.len());
            let (offline, _) = counted_but_entries(bed, |bed| bed.offline(region));
            all.1 = vec![("audit", audit), ("pages", pages), ("offline", offline)];
        });
        all
    });
    let looks = |counts: &Counts| counts.but_entries_and_frames()[0];
    let [first, last, both] = counted;
    for ((first, last), both) in first.0.iter().zip(&last.0).zip(&both.0) {
        let each = [first, last, both].map(|(_, counts)| looks(counts));
        assert_eq!(each, [each[0]; 3], "{kind:?}, {}: looks", first.0);
    }
    // Of all memory: a look for each table.
    for ((first, last), both) in first.1.iter().zip(&last.1).zip(&both.1) {
        let sum = looks(&first.1) + looks(&last.1);
        assert!(looks(&both.1) <= sum, "{kind:?}, {}: looks", first.0);
        assert!(sum <= 2 * 32, "{kind:?}, {}: {sum} looks", first.0);
    }
}

on_backends!(all: memory_elsewhere_and_what_lies_between_cost_nothing);
