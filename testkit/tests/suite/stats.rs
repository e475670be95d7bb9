//! Stats, node by node. Every audit of a testbed compares them with two recounts, one of which is
//! not the library's; here is where frames of all kinds are on different nodes.

use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::NodeStats;
use testkit::testbed::{Setup, Sizes, Testbed, pagemap};
use testkit::{OnBackend, on_backends};

const NEAR: NodeId = NodeId::new(0);
const FAR: NodeId = NodeId::new(1);

/// What `node` costs, tables left out.
fn on(bed: &dyn Testbed<'_>, node: NodeId) -> NodeStats {
    NodeStats {
        table_frames: 0,
        ..bed.stats().node(node)
    }
}

fn frames_count_with_the_node_that_they_are_on(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let tails = sizes.pages(order) - 1;
    let ranges = [[sizes.blocks(order, 8, 3)], [sizes.blocks(order, 11, 2)]];
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let per_compound = pagemap(&model, &ranges[0], order, Tails::PerCompound);
        let near = bed.online(&per_compound.with_node(NEAR)).unwrap();
        let per_order = pagemap(&model, &ranges[1], order, Tails::PerOrder);
        let far = bed.online(&per_order.with_node(FAR)).unwrap();
        bed.audit();
        let of_near = NodeStats {
            descriptor_frames: 6,
            tail_frames: 3,
            reused_entries: 3 * (tails - 1),
            ..NodeStats::default()
        };
        assert_eq!(on(bed, NEAR), of_near);
        let of_far = NodeStats {
            descriptor_frames: 3,
            tail_frames: 1,
            reused_entries: 2 * tails - 1,
            ..NodeStats::default()
        };
        assert_eq!(on(bed, FAR), of_far);

        // Unfolded, nothing is reused; marks are where they were asked for.
        let private = per_compound.with_huge_leaves(false);
        bed.unfold(&private, ranges[0][0]).map(drop).unwrap();
        bed.mark(ranges[0][0].last(), FAR).unwrap();
        bed.audit();
        let all = 3 * (tails + 1);
        let unfolded = NodeStats {
            descriptor_frames: all,
            ..NodeStats::default()
        };
        assert_eq!(on(bed, NEAR), unfolded);
        let with_mark = NodeStats {
            mark_frames: 1,
            ..of_far
        };
        assert_eq!(on(bed, FAR), with_mark);
        let total = bed.stats().total();
        assert_eq!(total.ram_frames(), bed.frames().outstanding());
        bed.offline(near);
        bed.offline(far);
        assert_eq!(bed.stats().nodes().count(), 0);
    });
}

fn remote_frames_count_where_they_came_from(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.small();
    let ranges = [sizes.blocks(order, 8, 4)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerCompound).with_node(FAR);
        let (first, second) = ranges[0].split_at(2 * order.frames());
        bed.populate(&pagemap, first.unwrap()).map(drop).unwrap();
        bed.frames().fill_node(FAR);
        bed.populate(&pagemap, second.unwrap()).map(drop).unwrap();
        bed.frames().empty_node(FAR);
        bed.audit();
        let frames = [NEAR, FAR].map(|node| on(bed, node).descriptor_frames);
        assert_eq!(frames, [4, 4]);
        bed.depopulate(&pagemap, ranges[0]).unwrap();
    });
}

fn frames_of_an_altmap_count_with_its_node(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 8, 32)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound).with_node(NEAR);
    let reserved = plain.altmap_needed().unwrap();
    let setup = Setup::new(&ranges).with_altmap_on(reserved, FAR);
    kind.testbed(&setup, |bed| {
        let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
        let region = bed.online(&pagemap).unwrap();
        bed.audit();
        let frames = sizes.pages(order) + 2 * 31;
        let row = bed.stats().node(FAR);
        assert_eq!((row.descriptor_frames, row.altmap_frames), (frames, frames));
        let counts = (64 + 4 * reserved.frames()).div_ceil(model.granule().bytes());
        assert_eq!(row.count_frames, counts);
        assert_eq!(bed.stats().total().ram_frames(), bed.frames().outstanding());
        bed.offline(region);
    });
}

/// Links of a shared table count with the table, whose frame is on one node only.
fn leaves_that_links_spare_count_with_the_table(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 2, 3)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder)
            .with_tables(Tables::Shared)
            .with_piece(Piece::Range)
            .with_node(FAR);
        let region = bed.online(&pagemap).unwrap();
        bed.audit();
        let pages = 3 * sizes.pages(order);
        let row = bed.stats().node(FAR);
        assert_eq!((row.descriptor_frames, row.tail_frames), (4, 1));
        // Vmemmap pages, less the frames that there are.
        assert_eq!(row.reused_entries, pages - 4);
        bed.offline(region);
    });
}

/// A block of one node becomes frames of it, some of which go.
fn a_split_huge_leaf_counts_by_frames(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.table(), 6, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None)
            .with_piece(Piece::Range)
            .with_node(FAR);
        let region = bed.online(&pagemap).unwrap();
        let piece = sizes.subsections(ranges[0])[1];
        assert_eq!(on(bed, FAR).descriptor_frames, sizes.entries());
        bed.depopulate(&pagemap, piece).unwrap();
        bed.audit();
        let gone = piece.frames() / model.descriptors_per_page();
        assert_eq!(on(bed, FAR).descriptor_frames, sizes.entries() - gone);
        // What comes back is on the nearest node that has memory.
        bed.frames().fill_node(FAR);
        bed.populate(&pagemap.with_huge_leaves(false), piece)
            .map(drop)
            .unwrap();
        bed.frames().empty_node(FAR);
        bed.audit();
        assert_eq!(on(bed, NEAR).descriptor_frames, gone);
        bed.offline(region);
    });
}

on_backends!(all:
    frames_count_with_the_node_that_they_are_on,
    remote_frames_count_where_they_came_from,
    frames_of_an_altmap_count_with_its_node,
    leaves_that_links_spare_count_with_the_table,
    a_split_huge_leaf_counts_by_frames,
);
