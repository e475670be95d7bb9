//! CPUs that keep all they have read: offline reaches every one of them before a frame is freed, and
//! nothing that has gone can be reached any more.

use arch_sim::Fault;
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use testkit::testbed::{Setup, Sizes};
use testkit::{OnBackend, on_backends};

fn memory_goes_offline_under_the_eyes_of_all_cpus(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    // Base pages, the natural compound pages, and larger ones.
    for (order, tables, memory) in [
        (
            Order::BASE,
            Tables::Private,
            sizes.blocks(sizes.natural(), 9, 4),
        ),
        (
            sizes.natural(),
            Tables::Private,
            sizes.blocks(sizes.natural(), 9, 20),
        ),
        (
            sizes.gigantic(),
            Tables::Private,
            sizes.blocks(sizes.gigantic(), 2, 1),
        ),
        (
            sizes.gigantic(),
            Tables::Shared,
            sizes.blocks(sizes.gigantic(), 2, 2),
        ),
    ] {
        let ranges = [memory];
        let tails = if order == Order::BASE {
            Tails::None
        } else {
            Tails::PerCompound
        };
        let pagemap = DevPagemap::new(&model, &ranges, Geometry::compound(order)).unwrap();
        let pagemap = pagemap
            .with_tails(tails)
            .with_tables(tables)
            .with_piece(Piece::Range);
        kind.testbed(&Setup::new(&ranges).with_cpus_that_cache(memory), |bed| {
            let unreachable = |bed: &dyn testkit::testbed::Testbed<'_>, frames: PfnRange| {
                for frame in [frames.start(), frames.last()] {
                    let at = bed.address_of(frame);
                    let reached = bed.store(at);
                    assert!(
                        matches!(reached, Some(Err(Fault::NotMapped { .. }))),
                        "{reached:?}"
                    );
                }
            };
            let region = bed.online(&pagemap).unwrap();
            bed.fill_cpus(memory);
            bed.offline(region);
            unreachable(bed, memory);

            let region = bed.online(&pagemap).unwrap();
            let pieces = sizes.subsections(memory);
            for piece in pieces.iter().step_by(pieces.len().div_ceil(64)) {
                bed.fill_cpus(memory);
                bed.depopulate(&pagemap, *piece).unwrap();
                unreachable(bed, *piece);
            }
            bed.fill_cpus(memory);
            bed.offline(region);
            unreachable(bed, memory);
            assert_eq!(bed.cached_by_cpus(), 0);
        });
    }
}

on_backends!(radix: memory_goes_offline_under_the_eyes_of_all_cpus);
