//! Marking frames.

use super::{Place, SHARED_TAILS, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, fail_each};

fn a_mark_that_fails_changes_nothing(kind: BackendKind) {
    let model = kind.model();
    let node = NodeId::new(0);
    for neighbour in Neighbour::ALL {
        for tails in SHARED_TAILS {
            let place = Place::new(kind, neighbour);
            let order = place.sizes.natural();
            // The bits of a block of half a page of them lie in one frame.
            let bitmap = Order::new(model.granule().shift() as u8 + 2).unwrap();
            let ranges = [place.first(order.max(bitmap), 3)];
            let pagemap = pagemap(&model, &ranges, order, tails);
            // An audit looks at all of it.
            let setup = place.setup().with_ram(1 << 12);
            place.run(kind, &setup, |bed| {
                let region = bed.online(&pagemap).unwrap();
                let apart = bitmap.frames();
                let first = ranges[0].start();
                for (index, needed) in [(0, 1), (1, 0), (apart - 1, 0), (apart, 1), (apart + 5, 0)]
                {
                    let frame = first.saturating_add(index);
                    let failures = fail_each(
                        bed,
                        Faults::Ram,
                        |bed| bed.mark(frame, node),
                        |bed, _| assert!(bed.unmark(frame)),
                    );
                    assert_eq!(failures, needed, "{index}");
                    assert_eq!(bed.mark(frame, node), Ok(true));
                }
                assert_eq!(bed.offline(region).marked, 5);
            });
        }
    }
}

on_backends!(all: a_mark_that_fails_changes_nothing);
