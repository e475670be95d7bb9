//! Ranges and pieces that are not aligned are refused, and what could be had is named.

use super::pagemap;
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Tails};
use mm_core::vmemmap::{OfflineError, OnlineError};
use testkit::testbed::{Setup, Sizes};
use testkit::{OnBackend, on_backends};

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

fn a_range_that_is_not_whole_compound_pages_is_refused_with_the_aligned_part(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let unit = sizes.subsection().frames();
    for order in [sizes.small(), sizes.natural(), sizes.gigantic()] {
        let size = order.frames();
        let whole = |first: u64, count: u64| Some(sizes.blocks(order, first, count));
        // Start and end off by a subsection, or by a frame.
        for off in [unit, 1] {
            if off >= size {
                continue;
            }
            for (range, aligned) in [
                (frames(5 * size + off, 3 * size), whole(6, 2)),
                (frames(5 * size + off, 3 * size - off), whole(6, 2)),
                (frames(5 * size, 3 * size - off), whole(5, 2)),
                (frames(5 * size - off, 3 * size + 2 * off), whole(5, 3)),
                (frames(5 * size + off, size), None),
                (frames(5 * size, size - off), None),
            ] {
                let ranges = [range];
                let refused = DevPagemap::new(&model, &ranges, Geometry::compound(order));
                let refused = refused.map(drop).unwrap_err();
                let expected = PagemapError::Misaligned {
                    range,
                    order,
                    aligned,
                };
                assert_eq!(refused, expected);
                assert_eq!(refused.kind(), ErrorKind::Misaligned);
                let said = refused.to_string();
                match aligned {
                    Some(part) => assert!(said.contains(&part.to_string()), "{said}"),
                    None => assert!(said.contains("no part"), "{said}"),
                }
                // What is named comes online.
                if let Some(part) = aligned {
                    let ranges = [part];
                    assert!(DevPagemap::new(&model, &ranges, Geometry::compound(order)).is_ok());
                }
            }
        }
    }
}

fn a_range_that_is_not_whole_subsections_is_refused(kind: BackendKind) {
    let model = kind.model();
    let order = Sizes::of(model).subsection();
    let unit = order.frames();
    for (range, aligned) in [
        (frames(unit - 1, unit + 1), Some(frames(unit, unit))),
        (frames(unit / 2, unit), None),
        (frames(0, 2 * unit + 1), Some(frames(0, 2 * unit))),
    ] {
        let ranges = [range];
        let refused = DevPagemap::new(&model, &ranges, Geometry::BASE_PAGES).map(drop);
        let expected = PagemapError::Misaligned {
            range,
            order,
            aligned,
        };
        assert_eq!(refused, Err(expected));
    }
}

fn pieces_are_whole_subsections_of_one_range(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let unit = sizes.subsection().frames();
    let ranges = [sizes.blocks(order, 8, 2), sizes.blocks(order, 10, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerCompound);
        let region = bed.online(&pagemap).unwrap();
        let before = bed.snapshot();
        let start = ranges[0].start().get();
        for piece in [frames(start + 1, unit), frames(start, unit + 1)] {
            let subsection = unit;
            let refused = OnlineError::PieceMisaligned { piece, subsection };
            assert_eq!(bed.populate(&pagemap, piece), Err(refused));
            assert_eq!(refused.kind(), ErrorKind::Misaligned);
            let refused = OfflineError::PieceMisaligned { piece, subsection };
            assert_eq!(bed.depopulate(&pagemap, piece), Err(refused));
        }
        // The ranges are neighbours, but not one.
        let end = ranges[0].last().get() + 1;
        for piece in [frames(start - unit, unit), frames(end - unit, 2 * unit)] {
            let refused = bed.populate(&pagemap, piece);
            assert_eq!(refused, Err(OnlineError::PieceOutside { piece }));
            let refused = bed.depopulate(&pagemap, piece);
            assert_eq!(refused, Err(OfflineError::PieceOutside { piece }));
        }
        bed.assert_unchanged(&before, "refused");
        bed.offline(region);
    });
}

fn compound_pages_are_no_larger_than_the_models_largest(kind: BackendKind) {
    let model = kind.model();
    let max = model.max_order();
    let order = Order::new(max.get() + 1).unwrap();
    let ranges = [frames(0, order.frames())];
    let refused = DevPagemap::new(&model, &ranges, Geometry::compound(order)).map(drop);
    let refused = refused.unwrap_err();
    assert_eq!(refused, PagemapError::UnsupportedOrder { order, max });
    assert_eq!(refused.kind(), ErrorKind::UnsupportedOrder);
}

on_backends!(all:
    a_range_that_is_not_whole_compound_pages_is_refused_with_the_aligned_part,
    a_range_that_is_not_whole_subsections_is_refused,
    pieces_are_whole_subsections_of_one_range,
    compound_pages_are_no_larger_than_the_models_largest,
);
