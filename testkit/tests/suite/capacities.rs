//! What has to be remembered has no limit but memory.

use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::vmemmap::{Note, OfflineError, OnlineError};
use testkit::testbed::{Setup, Sizes, Testbed, shuffled};
use testkit::{OnBackend, on_backends};

/// More than there is room for in a vmemmap, of anything.
const MANY: u32 = 100;

/// As many nodes as kernels are built for.
const ALL_NODES: u32 = 1024;

fn small<'p>(model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
    let order = Sizes::of(*model).small();
    DevPagemap::new(model, ranges, Geometry::compound(order)).unwrap()
}

/// A pagemap for each of so many nodes, each with a compound page of its own.
fn on_nodes(kind: BackendKind, nodes: u32, test: impl Fn(&mut dyn Testbed<'_>, &[DevPagemap<'_>])) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let range = |index| [sizes.blocks(sizes.small(), 8 + u64::from(index), 1)];
    let ranges: Vec<[PfnRange; 1]> = (0..nodes).map(range).collect();
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let pagemaps: Vec<DevPagemap<'_>> = (0..)
            .zip(&ranges)
            .map(|(node, ranges)| {
                let pagemap = small(&model, ranges).with_tails(Tails::PerOrder);
                pagemap.with_node(NodeId::new(node))
            })
            .collect();
        test(bed, &pagemaps);
    });
}

fn tails_of_any_number_of_nodes_are_shared(kind: BackendKind) {
    share_tails_on(kind, MANY, 4);
}

#[test]
fn tails_of_1024_nodes_are_shared() {
    share_tails_on(BackendKind::X86_64, ALL_NODES, 40);
}

/// Shares tails on so many nodes. What has to be remembered takes at most so many frames.
fn share_tails_on(kind: BackendKind, nodes: u32, most_records: u64) {
    on_nodes(kind, nodes, |bed, pagemaps| {
        let online = |bed: &mut dyn Testbed<'_>, pagemap: &DevPagemap<'_>| {
            let piece = pagemap.ranges()[0];
            let notes = bed.populate(pagemap, piece).unwrap();
            let far = |note| matches!(note, Note::RemoteFrames { .. });
            assert!(notes.iter().all(far), "{notes:?}");
        };
        for pagemap in pagemaps {
            online(bed, pagemap);
        }
        let report = bed.audit();
        assert_eq!(report.descriptor_frames, 2 * u64::from(nodes));
        // What has no room in the vmemmap is in frames, and they are few.
        assert!(
            (1..=most_records).contains(&report.record_frames),
            "{report:?}"
        );
        assert_eq!(bed.stats().total().record_frames, report.record_frames);
        // Folding finds them, too.
        let (first, rest) = pagemaps.split_first().unwrap();
        for pagemap in rest {
            bed.depopulate(pagemap, pagemap.ranges()[0]).unwrap();
        }
        for pagemap in pagemaps.iter().rev().take(2) {
            let order = pagemap.geometry();
            let base = DevPagemap::new(pagemap.model(), pagemap.ranges(), Geometry::BASE_PAGES);
            bed.populate(&base.unwrap(), pagemap.ranges()[0]).unwrap();
            let folded = bed.fold(pagemap, pagemap.ranges()[0]).unwrap();
            assert_eq!(folded.changed, 1, "{order:?}");
            bed.audit();
            bed.depopulate(pagemap, pagemap.ranges()[0]).unwrap();
        }
        bed.depopulate(first, first.ranges()[0]).unwrap();
        assert_eq!(bed.audit().record_frames, 0);
    });
}

/// Where there is no frame to register a tail in, the compound page gets a tail frame of its own,
/// and a note says so; nothing fails.
fn a_tail_that_cannot_be_registered_is_noted(kind: BackendKind) {
    on_nodes(kind, MANY, |bed, pagemaps| {
        let mut noted = 0;
        for pagemap in pagemaps {
            let piece = pagemap.ranges()[0];
            for allocations in 0.. {
                let before = bed.snapshot();
                bed.frames().fail_after(allocations);
                let outcome = bed.populate(pagemap, piece);
                bed.frames().no_more_faults();
                match outcome {
                    Ok(notes) => {
                        let is_noted = |note| matches!(note, Note::TailsNotRegistered { tails: 1 });
                        noted += notes.iter().filter(|note| is_noted(*note)).count();
                        break;
                    }
                    Err(OnlineError::OutOfFrames(_)) => bed.assert_unchanged(&before, "failed"),
                    Err(error) => panic!("{error}"),
                }
            }
            bed.audit();
        }
        assert!(noted > 0, "some tail found no frame to be registered in");
        for pagemap in pagemaps {
            bed.depopulate(pagemap, pagemap.ranges()[0]).unwrap();
        }
    });
}

/// Each altmap brings the memory that it takes to be remembered.
fn altmaps_are_remembered_however_many_there_are(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.subsection().max(sizes.small());
    let block = |index| [sizes.blocks(order, 8 + 4 * index, 4)];
    let ranges: Vec<[PfnRange; 1]> = (0..u64::from(MANY)).map(block).collect();
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
    tails_of_any_number_of_nodes_are_shared,
    a_tail_that_cannot_be_registered_is_noted,
    altmaps_are_remembered_however_many_there_are,
    more_shared_tables_than_are_remembered_cost_memory_and_nothing_else,
);
