//! One leaf table for all the places where nothing but one tail frame is mapped.

use super::fold::{TAILS, all_changed, base_pages};
use crate::bench::{Bench, part};
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, fail, skip};
use core::ops::ControlFlow;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Piece, Tables, TablesFallback, Tails};
use mm_core::paging::{InUse, PageTable, Replacement, Visit};
use mm_core::vmemmap::{Note, OfflineError};

/// How many vmemmap pages are unfolded at most.
const UNFOLDED: u64 = 1 << 13;

/// Compound pages whose tails fill leaf tables.
#[derive(Clone, Copy)]
pub(super) struct Spans {
    pub(super) order: Order,
    /// How many leaf tables map the descriptors of one.
    tables: u64,
    /// How much memory one leaf table describes.
    frames: u64,
}

impl Spans {
    pub(super) fn new<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<Self, Stop> {
        if !bench.table.can_share_tables() {
            return skip("the page table cannot link a table from several places");
        }
        let leaves = bench.model.granule().entries_per_table() as u64;
        let frames = leaves * bench.model.descriptors_per_page();
        // The first one has the head.
        let two = u8::try_from((2 * frames).trailing_zeros());
        let order = match two.ok().and_then(Order::new) {
            Some(two) => two.max(bench.large()?),
            None => return skip("a leaf table describes more memory than there can be"),
        };
        if order > bench.model.max_order() {
            return skip("a leaf table describes more than half of any compound page");
        }
        let tables = order.frames() / frames;
        Ok(Self {
            order,
            tables,
            frames,
        })
    }

    /// Pieces smaller than what a table describes, and whole ranges.
    fn pieces<H: Harness>(&self, bench: &Bench<'_, H, Mask>) -> [Piece; 2] {
        let smaller = match bench.model.section().frames() < self.frames {
            true => Piece::Section,
            false => Piece::Subsection,
        };
        [smaller, Piece::Range]
    }

    /// Frames that hold descriptors of `count` compound pages.
    fn descriptor_frames(tails: Tails, count: u64) -> u64 {
        match tails {
            Tails::PerOrder => count + 1,
            _ => 2 * count,
        }
    }

    /// Leaf tables for `count` compound pages.
    fn leaf_tables(&self, tails: Tails, tables: Tables, count: u64) -> u64 {
        match (tables, tails) {
            (Tables::Private, _) => self.tables * count,
            // One with the head, for each; and one for each tail frame.
            _ => Self::descriptor_frames(tails, count),
        }
    }
}

fn sharing_tables<'r, H: Harness>(
    bench: &Bench<'_, H, Mask>,
    ranges: &'r [PfnRange],
    order: Order,
    tails: Tails,
) -> Result<DevPagemap<'r>, Stop> {
    let pagemap = bench.sharing(ranges, order, tails)?;
    Ok(pagemap.with_tables(Tables::Shared))
}

/// The links to shared tables for `range`: how many, and the first one's table.
fn links<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange) -> (u64, Option<Pfn>) {
    let mut links = (0, None);
    if let Some(range) = bench.model.descriptors(range) {
        let _ = bench.table.visit(range, &mut |visit| {
            if let Visit::SharedTable { frame, .. } = visit {
                links = (links.0 + 1, links.1.or(Some(frame)));
            }
            ControlFlow::Continue(())
        });
    }
    links
}

/// One compound page of whole tables, whose descriptors fit into memory when it is unfolded.
fn unfoldable<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<(Spans, PfnRange), Stop> {
    let spans = Spans::new(bench)?;
    bench.needs_replacement()?;
    let range = bench.blocks(spans.order, 0, 1)?;
    if bench.pages(range) > UNFOLDED {
        return skip("unfolded, the descriptors of such a compound page fill too much memory");
    }
    Ok((spans, range))
}

pub(super) fn shared_tables_cost_one_for_each_tail_frame<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    let before = bench.audit()?.leaf_tables;
    for tails in TAILS {
        for tables in [Tables::Private, Tables::Shared] {
            for count in [1, 2] {
                let range = bench.blocks(spans.order, 0, count)?;
                let ranges = [range];
                let pagemap = bench.sharing(&ranges, spans.order, tails)?;
                let region = bench.online(&pagemap.with_tables(tables))?;
                ensure(
                    region.notes().is_empty() && region.tables() == tables,
                    "nothing is done otherwise than asked",
                )?;
                let frames = Spans::descriptor_frames(tails, count);
                bench.costs(frames, bench.pages(range))?;
                let found = bench.audit()?.leaf_tables - before;
                let expected = spans.leaf_tables(tails, tables, count);
                equal(expected, found, "leaf tables")?;
                bench.described(range, spans.order)?;
                bench.offline(region);
                bench.absent(range)?;
            }
        }
    }
    Ok(())
}

pub(super) fn every_size_of_piece_gives_the_same_tables<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    let range = bench.blocks(spans.order, 0, 2)?;
    let ranges = [range];
    for tails in TAILS {
        let mut first = None;
        for piece in super::online::PIECES {
            let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
            let region = bench.online(&pagemap.with_piece(piece))?;
            let report = bench.audit()?;
            ensure(
                *first.get_or_insert(report) == report,
                "the same frames and tables, whatever the pieces",
            )?;
            let (links, _) = links(bench, range);
            equal(2 * (spans.tables - 1), links, "links to shared tables")?;
            bench.described(range, spans.order)?;
            bench.offline(region);
        }
    }
    Ok(())
}

/// Checks `range` but for what lies in one of `gone`, of which nothing is there.
fn described_but_for<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    range: PfnRange,
    order: Order,
    gone: &[PfnRange],
) -> Verdict {
    let page = bench.model.descriptors_per_page();
    for index in 0..bench.pages(range) {
        let described = part(range, index * page, page);
        if gone.iter().any(|gone| gone.contains_range(described)) {
            bench.absent(described)?;
        } else {
            bench.described(described, order)?;
        }
    }
    Ok(())
}

pub(super) fn part_of_a_shared_table_goes_offline_and_the_rest_stays<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    bench.needs_replacement()?;
    let (range, other) = (
        bench.blocks(spans.order, 0, 1)?,
        bench.blocks(spans.order, 1, 1)?,
    );
    let ranges = [bench.blocks(spans.order, 0, 2)?];
    let unit = bench.model.subsection().frames();
    let last = (spans.tables - 1) * spans.frames;
    let pieces = [
        // In the middle of a table, at its end, across its start.
        part(range, last + spans.frames / 2, unit),
        part(range, last + spans.frames - unit, unit),
        part(range, last - unit, 2 * unit),
        // A whole one, if there is another.
        part(range, spans.frames, spans.frames),
    ];
    let pieces = match spans.tables {
        0..4 => pieces.get(..3).unwrap_or_default(),
        _ => &pieces[..],
    };
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        let before = bench.audit()?;
        let untouched = bench.fingerprint(other)?;
        for (done, &piece) in pieces.iter().enumerate() {
            bench.depopulate(&pagemap, piece)?;
            let gone = pieces.get(..=done).unwrap_or_default();
            described_but_for(bench, range, spans.order, gone)?;
            equal(
                untouched,
                bench.fingerprint(other)?,
                "the other compound page",
            )?;
            let report = bench.audit()?;
            equal(
                before.descriptor_frames,
                report.descriptor_frames,
                "descriptor frames",
            )?;
        }
        for &piece in pieces {
            bench.populate(&pagemap, piece)?;
        }
        bench.costs(before.descriptor_frames, bench.pages(ranges[0]))?;
        bench.described(range, spans.order)?;
        bench.offline(region);
        bench.absent(ranges[0])?;
    }
    Ok(())
}

pub(super) fn part_of_a_shared_table_stays_where_entries_in_use_cannot_be_exchanged<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    if bench.table.replacement() != Replacement::Refused {
        return skip("the page table can exchange entries in use");
    }
    let range = bench.blocks(spans.order, 0, 1)?;
    let ranges = [range];
    let unit = bench.model.subsection().frames();
    let piece = part(range, spans.frames + spans.frames / 2, unit);
    let at = bench.address(part(range, spans.frames, 1).start())?;
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        let before = bench.snapshot(range)?;
        let refused = bench.try_depopulate(&pagemap, piece);
        ensure_at(
            refused == Err(OfflineError::SplitsSharedTable { at }),
            "what others use is not taken apart",
            at,
        )?;
        bench.unchanged(&before, range)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_copy_of_a_table_that_finds_no_frame_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    bench.needs_replacement()?;
    bench.needs_faults()?;
    let range = bench.blocks(spans.order, 0, 2)?;
    let ranges = [range];
    // Half of one table and half of the next.
    let piece = part(range, spans.frames + spans.frames / 2, spans.frames);
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        let depopulate = |bench: &mut Bench<'_, H, Mask>| {
            let outcome = bench.try_depopulate(&pagemap, piece);
            outcome.map_err(|error| error.kind())
        };
        let ((), failures) = bench.failing_at_every_allocation(range, depopulate)?;
        ensure(failures > 0, "a copy needs a frame")?;
        described_but_for(bench, range, spans.order, &[piece])?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn whole_tables_go_offline_without_memory<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    bench.needs_faults()?;
    let range = bench.blocks(spans.order, 0, 2)?;
    let ranges = [range];
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        bench.controls.fail_after(Some(0));
        let outcome = bench.try_depopulate(&pagemap, part(range, spans.frames, spans.frames));
        bench.offline(region);
        bench.controls.fail_after(None);
        ensure(outcome.is_ok(), "a whole table goes without memory")?;
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn a_shared_table_goes_with_its_last_link<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    let first = [bench.blocks(spans.order, 0, 1)?];
    let second = [bench.blocks(spans.order, 1, 1)?];
    let one = bench.online(&sharing_tables(
        bench,
        &first,
        spans.order,
        Tails::PerOrder,
    )?)?;
    let other = bench.online(&sharing_tables(
        bench,
        &second,
        spans.order,
        Tails::PerOrder,
    )?)?;
    let ((links_of_one, table), (links_of_other, same)) =
        (links(bench, first[0]), links(bench, second[0]));
    let Some(table) = table.filter(|table| same == Some(*table)) else {
        return fail("both compound pages link the same table");
    };
    let owners = |bench: &Bench<'_, H, Mask>| bench.references(table).unwrap_or(0);
    let tail = bench.holder(first[0].last())?;
    let leaves = bench.model.granule().entries_per_table() as u64;
    equal(links_of_one + links_of_other, owners(bench), "links")?;
    bench.offline(one);
    equal(links_of_other, owners(bench), "links")?;
    bench.described(second[0], spans.order)?;
    // The table's own leaves, once, and those beside the head.
    let tails = leaves + leaves - 1;
    equal(
        tails,
        bench.references(tail).unwrap_or(0),
        "owners of the tail frame",
    )?;
    bench.offline(other);
    bench.is_free(table, "links")?;
    bench.is_free(tail, "owners of the tail frame")
}

pub(super) fn a_shared_table_that_is_split_everywhere_is_freed_after_the_flush<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    bench.needs_replacement()?;
    let range = bench.blocks(spans.order, 0, 1)?;
    let ranges = [range];
    let unit = bench.model.subsection().frames();
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        let (mut left, table) = links(bench, range);
        let Some(table) = table else {
            return fail("there is a shared table");
        };
        for span in 1..spans.tables {
            // What stays is cached too.
            bench.speculate(range);
            bench.depopulate(&pagemap, part(range, span * spans.frames, unit))?;
            left -= 1;
            equal(left, bench.references(table).unwrap_or(0), "links")?;
        }
        equal(0, left, "links")?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_failed_online_leaves_no_shared_table_behind<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let spans = Spans::new(bench)?;
    bench.needs_faults()?;
    let range = bench.blocks(spans.order, 0, 2)?;
    let ranges = [range];
    for tails in TAILS {
        for piece in spans.pieces(bench) {
            let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
            super::failures::online_fails_whole(bench, &pagemap.with_piece(piece), range)?;
        }
    }
    Ok(())
}

pub(super) fn shared_tables_can_be_unfolded_and_folded<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (spans, range) = unfoldable(bench)?;
    let ranges = [range];
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        let before = bench.audit()?;
        all_changed(&bench.unfold(&pagemap, range)?, 1)?;
        bench.costs(bench.pages(range), bench.pages(range))?;
        bench.described(range, spans.order)?;
        all_changed(&bench.fold(&pagemap, range)?, 1)?;
        ensure(bench.audit()? == before, "frames and tables of the start")?;
        bench.described(range, spans.order)?;
        bench.offline(region);
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn folding_base_pages_links_shared_tables<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (spans, range) = unfoldable(bench)?;
    let ranges = [range];
    let before = bench.audit()?.leaf_tables;
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, true)?)?;
        let base = bench.audit()?;
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        all_changed(&bench.fold(&pagemap, range)?, 1)?;
        bench.costs(Spans::descriptor_frames(tails, 1), bench.pages(range))?;
        let expected = spans.leaf_tables(tails, Tables::Shared, 1);
        let found = bench.audit()?.leaf_tables - before;
        equal(expected, found, "leaf tables")?;
        bench.described(range, spans.order)?;
        all_changed(&bench.unfold(&pagemap, range)?, 1)?;
        ensure(bench.audit()? == base, "frames and tables of the start")?;
        bench.offline(region);
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn an_unfold_of_shared_tables_that_finds_no_frame_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (spans, range) = unfoldable(bench)?;
    bench.needs_faults()?;
    let ranges = [range];
    for tails in TAILS {
        let pagemap = sharing_tables(bench, &ranges, spans.order, tails)?;
        let region = bench.online(&pagemap)?;
        // Blocks for huge leaves are few; single frames would be thousands.
        let unfold = |bench: &mut Bench<'_, H, Mask>| {
            let outcome = bench.try_unfold(&pagemap, range);
            outcome.map(drop).map_err(|error| error.kind())
        };
        let ((), failures) = bench.failing_at_every_allocation(range, unfold)?;
        ensure(failures > 0, "unfolding needs frames")?;
        bench.described(range, spans.order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn who_cannot_share_tables_says_so<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let leaves = bench.model.granule().entries_per_table() as u64;
    let small = bench.small();
    for order in [Some(small), bench.large().ok()] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order, 0, 1)?;
        let ranges = [range];
        let fallback = if !bench.table.can_share_tables() {
            Some(TablesFallback::NotSupported)
        } else if bench.model.vmemmap_pages(order) < 2 * leaves {
            Some(TablesFallback::NoWholeTable { order })
        } else {
            None
        };
        let region = bench.online(&sharing_tables(bench, &ranges, order, Tails::PerCompound)?)?;
        let said = region.notes().iter().next();
        ensure(
            said == fallback.map(Note::Tables),
            "private tables instead of shared ones are reported",
        )?;
        let expected = if fallback.is_some() {
            Tables::Private
        } else {
            Tables::Shared
        };
        ensure(
            region.tables() == expected,
            "the region knows what it has got",
        )?;
        bench.costs(2, bench.pages(range))?;
        bench.offline(region);
    }
    // Without tails there is nothing to share a table of.
    let ranges = [bench.blocks(bench.model.subsection(), 0, 1)?];
    let pagemap = sharing_tables(bench, &ranges, Order::BASE, Tails::None)?;
    let region = bench.online(&pagemap)?;
    let said = Note::Tables(TablesFallback::NoSharedTails);
    ensure(
        region.notes().iter().any(|note| note == said),
        "private tables instead of shared ones are reported",
    )?;
    bench.offline(region);
    Ok(())
}
