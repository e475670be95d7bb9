//! Values that are dropped: what is mapped is in use, and stays.

use super::fold::TAILS;
use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, equal};
use mm_core::addr::Order;
use mm_core::descriptor::Mask;
use mm_core::pagemap::Tails;

pub(super) fn a_dropped_region_stays_online_and_leaks_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    let range = bench.blocks(small, 0, 3)?;
    let ranges = [range];
    for (order, tails) in [
        (Order::BASE, Tails::None),
        (small, Tails::PerCompound),
        (small, Tails::PerOrder),
    ] {
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let pagemap = pagemap.with_huge_leaves(false);
        let _ = bench.online(&pagemap)?;
        // Everything that is out is reached, and goes by the pagemap alone.
        bench.audit()?;
        bench.described(range, order)?;
        for index in [1, 0, 2] {
            let piece = bench.blocks(small, index, 1)?;
            bench.depopulate(&pagemap, piece)?;
        }
        bench.absent(range)?;
        bench.costs(0, 0)?;
    }
    Ok(())
}

pub(super) fn a_dropped_vmemmap_leaves_its_memory_to_the_next<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    let out = bench.outstanding();
    for tails in TAILS {
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let _ = bench.online(&pagemap)?;
        bench.renew_vmemmap()?;
        bench.described(range, order)?;
        // It takes what comes online now for its own, and the rest for what it is.
        let first = bench.blocks(order, 0, 1)?;
        bench.depopulate(&pagemap, first)?;
        bench.populate(&pagemap, first)?;
        bench.described(range, order)?;
        bench.depopulate(&pagemap, range)?;
        bench.absent(range)?;
        equal(out, bench.outstanding(), "frames that are out")?;
        // What is kept of the one before it is in no figures of the next.
        bench.renew_vmemmap()?;
        bench.costs(0, 0)?;
    }
    Ok(())
}
