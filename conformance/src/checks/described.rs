//! What descriptors say at first.

use super::fold::TAILS;
use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, equal};
use mm_core::addr::Order;
use mm_core::descriptor::Mask;
use mm_core::pagemap::Tails;

pub(super) fn descriptors_are_blank_whatever_their_frames_held<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    let range = bench.blocks(small, 0, 3)?;
    let ranges = [range];
    let pair = Order::new(1).unwrap_or(small);
    for (order, tails) in [
        (Order::BASE, Tails::None),
        (pair, Tails::None),
        (small, Tails::None),
        (small, Tails::PerCompound),
        (small, Tails::PerOrder),
    ] {
        bench.poison_free_frames()?;
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let region = bench.online(&pagemap.with_huge_leaves(false))?;
        bench.described_as_new(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn tails_beside_memory_of_boot_are_initialised<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    // Some subsections of a section came online at boot, as base pages; the device has the others.
    let boot = [bench.blocks(order, 0, 1)?, bench.blocks(order, 4, 1)?];
    let device = [bench.blocks(order, 1, 3)?, bench.blocks(order, 5, 2)?];
    let pagemap = bench.pagemap(&boot, Order::BASE)?.with_huge_leaves(false);
    let early = bench.online(&pagemap)?;
    let fingerprints = [bench.fingerprint(boot[0])?, bench.fingerprint(boot[1])?];
    for tails in TAILS {
        for piece in super::online::PIECES {
            bench.poison_free_frames()?;
            let pagemap = bench.sharing(&device, order, tails)?.with_piece(piece);
            let late = bench.online(&pagemap)?;
            for range in device {
                bench.described_as_new(range, order)?;
            }
            for (boot, fingerprint) in boot.into_iter().zip(fingerprints) {
                bench.described_as_new(boot, Order::BASE)?;
                equal(fingerprint, bench.fingerprint(boot)?, "memory of boot")?;
            }
            bench.offline(late);
        }
    }
    bench.offline(early);
    Ok(())
}
