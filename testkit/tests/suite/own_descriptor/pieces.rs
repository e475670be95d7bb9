//! Pieces in any order, and marks.

use super::{OWN, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use mm_core::pagemap::Tables;
use mm_core::vmemmap::Offlined;
use testkit::on_backends;
use testkit::testbed::{Neighbour, Setup, Sizes, shuffled};

fn pieces_come_and_go_in_any_order_next_to_anybody(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = Order::new(sizes.subsection().get() + 3)
            .unwrap()
            .max(sizes.small());
        let table = sizes.blocks(sizes.table(), 5, 1);
        let next_door = table.take_first(sizes.small().frames()).0;
        let first = next_door.last().get() / order.frames() + 1;
        let ranges = [sizes.blocks(order, first, 2)];
        let pieces = sizes.subsections(ranges[0]);
        for tails in own.tails() {
            for (seed, neighbour) in Neighbour::ALL.into_iter().enumerate() {
                if neighbour == Neighbour::ForeignHugeLeaf {
                    // It takes the whole table.
                    continue;
                }
                let setup = Setup::new(&[table, ranges[0]]).with_cpus_that_cache(ranges[0]);
                own.testbed(kind, &setup, |bed| {
                    let tenant = neighbour.move_in(bed, next_door);
                    let pagemap = pagemap(&model, &ranges, order, *tails);
                    for index in shuffled(pieces.len(), seed as u64 + 1) {
                        bed.populate(&pagemap, pieces[index]).map(drop).unwrap();
                        bed.audit();
                        bed.assert_described(pieces[index], order);
                    }
                    bed.assert_described(ranges[0], order);
                    for index in shuffled(pieces.len(), seed as u64 + 9) {
                        bed.fill_cpus(ranges[0]);
                        bed.depopulate(&pagemap, pieces[index]).unwrap();
                        bed.audit();
                        bed.assert_offline(pieces[index]);
                    }
                    tenant.move_out(bed);
                });
            }
        }
    }
}

fn parts_of_shared_tables_come_and_go(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.gigantic();
        let ranges = [sizes.blocks(order, 2, 2)];
        let pieces = sizes.subsections(ranges[0]);
        for tails in own.tails() {
            own.testbed(kind, &Setup::new(&ranges), |bed| {
                let pagemap = pagemap(&model, &ranges, order, *tails).with_tables(Tables::Shared);
                let region = bed.online(&pagemap).unwrap();
                let some: Vec<_> = shuffled(pieces.len(), 3).into_iter().take(8).collect();
                for index in &some {
                    bed.depopulate(&pagemap, pieces[*index]).unwrap();
                    bed.audit();
                    bed.assert_offline(pieces[*index]);
                }
                for index in &some {
                    bed.populate(&pagemap, pieces[*index]).map(drop).unwrap();
                    bed.audit();
                    bed.assert_described(pieces[*index], order);
                }
                bed.offline(region);
            });
        }
    }
}

fn single_frames_have_marks(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.natural();
        let ranges = [sizes.blocks(order, 6, 3)];
        let setup = Setup::new(&ranges).with_ram(1 << 12);
        own.testbed(kind, &setup, |bed| {
            let pagemap = pagemap(&model, &ranges, order, own.tails()[0]);
            let region = bed.online(&pagemap).unwrap();
            let frame = |index: u64| ranges[0].start().saturating_add(index);
            let marked = [
                0,
                1,
                order.frames() - 1,
                order.frames(),
                2 * order.frames() + 77,
            ];
            for index in marked {
                assert_eq!(bed.mark(frame(index), NodeId::new(0)), Ok(true));
                bed.audit();
            }
            let found: Vec<u64> = bed
                .marked(ranges[0])
                .iter()
                .map(|found| found.get() - ranges[0].start().get())
                .collect();
            assert_eq!(found, marked);
            bed.assert_described(ranges[0], order);
            assert_eq!(bed.offline(region), Offlined { marked: 5, kept: 0 });
        });
    }
}

on_backends!(all:
    pieces_come_and_go_in_any_order_next_to_anybody,
    parts_of_shared_tables_come_and_go,
    single_frames_have_marks,
);
