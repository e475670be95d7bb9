//! What cannot be done with packed heads is refused, and says why.

use super::{address, packed};
use hosted::BackendKind;
use mm_core::addr::{Block, Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::{Leaf, Role};
use mm_core::vmemmap::{FoldError, OnlineError};
use testkit::testbed::{Encoding, Setup, Sizes};
use testkit::{OnBackend, on_backends};

fn an_encoding_without_stubs_is_refused(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 5, 2)];
    let setup = Setup::new(&ranges).with_encoding(Encoding::Pointer);
    kind.testbed(&setup, |bed| {
        let pagemap = packed(&model, &ranges, sizes.natural());
        let refused = bed.online(&pagemap).map(drop).unwrap_err();
        assert_eq!(refused, OnlineError::NoStubs);
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let refused = bed.populate(&pagemap, ranges[0]).unwrap_err();
        assert_eq!(refused, OnlineError::NoStubs);
    });
}

fn packed_memory_is_not_folded_nor_reshaped(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let larger = Order::new(order.get() + 2).unwrap();
    let ranges = [sizes.blocks(larger, 5, 2)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&packed(&model, &ranges, order)).unwrap();
        let part = sizes.blocks(larger, 6, 1);
        let first = part.start();
        let with = |order| DevPagemap::new(&model, &ranges, Geometry::compound(order)).unwrap();
        for of in [order, larger, Order::BASE] {
            let pagemap = with(of).with_tails(Tails::PerOrder);
            let refused = Err(FoldError::HeadsPacked { first });
            if of != Order::BASE {
                assert_eq!(bed.fold(&pagemap, part).map(drop), refused);
            }
            assert_eq!(bed.unfold(&pagemap, part).map(drop), refused);
            assert_eq!(bed.reshape(&pagemap, part), refused);
        }
        bed.offline(region);
        // Nor is memory packed that has its heads in place.
        let region = bed.online(&with(order)).unwrap();
        let refused = Err(FoldError::HeadsPacked { first });
        let pagemap = packed(&model, &ranges, order);
        assert_eq!(bed.fold(&pagemap, part).map(drop), refused);
        bed.offline(region);
    });
}

/// What somebody else has where heads are to be is seen, and stays.
fn foreign_entries_where_heads_are_to_be_are_seen(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (order, per_page) = (sizes.natural(), model.descriptors_per_page());
    let ranges = [sizes.blocks(order, per_page - 1, per_page + 2)];
    let at = |frame: PfnRange| {
        let at = address(&model, frame.start(), order).get() >> model.granule().shift();
        mm_core::addr::VirtAddr::new(at << model.granule().shift())
    };
    for page in [0, 1, per_page + 1] {
        let at = at(sizes.blocks(order, per_page - 1 + page, 1));
        kind.testbed(&Setup::new(&ranges), |bed| {
            let leaf = Leaf {
                block: Block::single(mm_core::addr::Pfn::new(77).unwrap()),
                role: Role::Foreign,
                writable: true,
            };
            assert!(bed.map_foreign(at, leaf));
            let before = bed.snapshot();
            let refused = bed.online(&packed(&model, &ranges, order)).map(drop);
            assert_eq!(refused, Err(OnlineError::AlreadyMapped { at }));
            bed.assert_unchanged(&before, "after it was refused");
            bed.unmap_foreign(at);
        });
    }
}

on_backends!(all:
    an_encoding_without_stubs_is_refused,
    packed_memory_is_not_folded_nor_reshaped,
    foreign_entries_where_heads_are_to_be_are_seen,
);
