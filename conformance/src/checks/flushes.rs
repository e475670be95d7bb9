//! How often CPUs have to forget.

use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, ensure, skip};
use mm_core::addr::Order;

/// How many flushes are enough for an operation on `pages` vmemmap pages that works by batches of
/// runs.
pub(super) const fn most(pages: u64) -> u64 {
    1 + pages / 32
}

pub(super) fn going_offline_is_flushed_by_the_run_and_not_by_the_page<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    if bench.flushes().is_none() {
        return skip("the harness does not count flushes");
    }
    let order = bench.small();
    let range = bench.blocks(order, 0, 64)?;
    let ranges = [range];
    for order in [order, Order::BASE] {
        let pagemap = bench.pagemap(&ranges, order)?.with_huge_leaves(false);
        for whole in [true, false] {
            let region = bench.online(&pagemap)?;
            let before = bench.flushes().unwrap_or(0);
            if whole {
                bench.offline(region);
            } else {
                bench.depopulate(&pagemap, range)?;
            }
            let flushes = bench.flushes().unwrap_or(0) - before;
            ensure(flushes > 0, "CPUs are made to forget")?;
            ensure(
                flushes <= most(bench.pages(range)),
                "runs are flushed together",
            )?;
        }
    }
    Ok(())
}

pub(super) fn coming_online_needs_no_flush<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let Some(before) = bench.flushes() else {
        return skip("the harness does not count flushes");
    };
    let order = bench.small();
    let range = bench.blocks(order, 0, 64)?;
    let ranges = [range];
    for order in [order, Order::BASE] {
        let before = bench.flushes().unwrap_or(before);
        let region = bench.online(&bench.pagemap(&ranges, order)?)?;
        let after = bench.flushes().unwrap_or(before);
        bench.offline(region);
        ensure(after == before, "what was not mapped is cached by nobody")?;
    }
    Ok(())
}
