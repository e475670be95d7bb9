//! What is kept of figures, against what follows from what was done.

use super::fold::{TAILS, base_pages, eight, folded_frames};
use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, equal};
use mm_core::addr::{NodeId, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::error::ErrorKind;
use mm_core::frame::FrameAllocator;
use mm_core::pagemap::Tails;
use mm_core::paging::PageTable;
use mm_core::vmemmap::NodeStats;

/// Checks what the vmemmap says that it costs on `node`, where `marks` frames hold marks.
fn says<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    node: NodeId,
    (descriptor_frames, tail_frames, pages): (u64, u64, u64),
    mark_frames: u64,
) -> Verdict {
    let report = bench.audit()?;
    let stats = bench.vmemmap.stats_on(node);
    let counts_tables = H::Table::COUNTS_TABLES;
    let expected = NodeStats {
        descriptor_frames,
        tail_frames,
        altmap_frames: 0,
        count_frames: 0,
        table_frames: match counts_tables {
            true => stats.table_frames,
            false => 0,
        },
        mark_frames,
        online_map_frames: 0,
        record_frames: 0,
        reserve_frames: 0,
        reused_entries: pages - descriptor_frames,
    };
    ensure(stats == expected, "the figures of the node")?;
    if counts_tables && !H::Table::KEEPS_TABLES {
        let tables = report.leaf_tables + report.upper_tables;
        equal(tables, bench.vmemmap.stats().table_frames, "tables")?;
    }
    Ok(())
}

/// The node that frames for `frame`'s descriptor really came from.
fn node_of<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange) -> Result<NodeId, Stop> {
    Ok(bench.frames.node_of(bench.holder(range.start())?))
}

pub(super) fn counters_follow_every_step<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 8)?;
    let ranges = [range];
    let pages = bench.pages(range);
    for tails in TAILS {
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        let shared = match tails {
            Tails::PerOrder => (9, 1, pages),
            _ => (16, 8, pages),
        };
        let region = bench.online(&compound)?;
        let node = node_of(bench, range)?;
        says(bench, node, shared, 0)?;
        bench.mark(range.last())?;
        says(bench, node, shared, 1)?;
        if bench.needs_replacement().is_ok() {
            let _ = bench.unfold(&compound, range)?;
            says(bench, node, (pages, 0, pages), 1)?;
            let _ = bench.fold(&compound, range)?;
            says(bench, node, shared, 1)?;
        }
        let last = bench.blocks(order, 7, 1)?;
        bench.depopulate(&compound, last)?;
        let left = match tails {
            Tails::PerOrder => (8, 1, pages - bench.pages(last)),
            _ => (14, 7, pages - bench.pages(last)),
        };
        says(bench, node, left, 0)?;
        bench.offline(region);
        says(bench, node, (0, 0, 0), 0)?;
    }
    Ok(())
}

pub(super) fn each_node_has_counters_of_its_own<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let (first, second) = (bench.blocks(order, 0, 2)?, bench.blocks(order, 2, 3)?);
    let (first_ranges, second_ranges) = ([first], [second]);
    let one = bench.online(&bench.sharing(&first_ranges, order, Tails::PerOrder)?)?;
    let other = bench.other_node();
    let pagemap = bench.sharing(&second_ranges, order, Tails::PerOrder)?;
    let region = bench.online(&pagemap.with_node(other))?;
    let nodes = (node_of(bench, first)?, node_of(bench, second)?);
    let pages = (bench.pages(first), bench.pages(second));
    if nodes.0 == nodes.1 {
        // One has no memory, and takes the other's.
        says(bench, nodes.0, (3 + 4, 2, pages.0 + pages.1), 0)?;
    } else {
        says(bench, nodes.0, (3, 1, pages.0), 0)?;
        says(bench, nodes.1, (4, 1, pages.1), 0)?;
    }
    bench.offline(one);
    if nodes.0 != nodes.1 {
        says(bench, nodes.0, (0, 0, 0), 0)?;
    }
    bench.offline(region);
    says(bench, nodes.1, (0, 0, 0), 0)
}

pub(super) fn counters_do_not_underflow_on_a_failure<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    let beside = [bench.blocks(order, 3, 1)?];
    for tails in TAILS {
        // Somebody's figures are there already, or nobody's.
        for others in [false, true] {
            let region = match others {
                true => Some(bench.online(&bench.sharing(&beside, order, tails)?)?),
                false => None,
            };
            let pagemap = bench.sharing(&ranges, order, tails)?;
            let pagemap = pagemap.with_huge_leaves(false);
            let online = fails_with_the_same_figures(bench, range, |bench| {
                bench.try_online(&pagemap).map_err(|error| error.kind())
            })?;
            fails_with_the_same_figures(bench, range, |bench| {
                let marked = bench.vmemmap.mark(bench.table, range.start(), bench.node);
                marked.map_err(|error| error.kind())
            })?;
            bench.offline(online);
            if let Some(region) = region {
                bench.offline(region);
            }
        }
    }
    let stats = bench.vmemmap.stats();
    ensure(
        stats == NodeStats::default(),
        "nothing is counted at the end",
    )
}

pub(super) fn counters_do_not_underflow_on_a_failed_fold<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let (order, _) = eight(bench)?;
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        fails_with_the_same_figures(bench, range, |bench| {
            let folded = bench.try_fold(&compound, range);
            folded.map(drop).map_err(|error| error.kind())
        })?;
        bench.costs(folded_frames(tails, 3), bench.pages(range))?;
        fails_with_the_same_figures(bench, range, |bench| {
            let unfolded = bench.try_unfold(&compound, range);
            unfolded.map(drop).map_err(|error| error.kind())
        })?;
        bench.offline(region);
    }
    let stats = bench.vmemmap.stats();
    ensure(
        stats == NodeStats::default(),
        "nothing is counted at the end",
    )
}

/// Does `operation` with too few allocations, and checks that the figures stay.
fn fails_with_the_same_figures<H: Harness, T>(
    bench: &mut Bench<'_, H, Mask>,
    range: PfnRange,
    mut operation: impl FnMut(&mut Bench<'_, H, Mask>) -> Result<T, ErrorKind>,
) -> Result<T, Stop> {
    let before = bench.vmemmap.stats();
    let (done, _) = bench.failing_at_every_allocation(range, |bench| {
        let outcome = operation(bench);
        match outcome {
            // An error that is not about frames fails the check.
            Err(_) if bench.vmemmap.stats() != before => Err(ErrorKind::Overlap),
            outcome => outcome,
        }
    })?;
    Ok(done)
}
