//! What is refused, and leaves everything as it was.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Verdict, ensure, ensure_at, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError};
use mm_core::paging::{Leaf, PageTable, Role};
use mm_core::vmemmap::{OfflineError, OnlineError};

pub(super) fn a_misaligned_range_is_refused_and_its_aligned_part_named<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let Some(shifted) = range.start().checked_add(1) else {
        return fail("the device does not end with the last frame");
    };
    let one = range.take_first(order.frames()).0;
    let misaligned = [
        (PfnRange::new(shifted, order.frames()), None),
        (PfnRange::new(range.start(), order.frames() + 1), Some(one)),
        (PfnRange::new(range.start(), order.frames() - 1), None),
    ];
    for (range, aligned) in misaligned {
        let Ok(range) = range else { continue };
        let ranges = [range];
        let refused = DevPagemap::new(&bench.model, &ranges, Geometry::compound(order));
        let named = PagemapError::Misaligned {
            range,
            order: order.max(bench.model.subsection()),
            aligned,
        };
        ensure(
            refused.err() == Some(named),
            "a range that is not whole compound pages is refused, and the part that is is named",
        )?;
    }
    let ranges = [range, range];
    let refused = DevPagemap::new(&bench.model, &ranges, Geometry::compound(order));
    ensure(
        refused.is_err_and(|error| error.kind() == ErrorKind::Overlap),
        "ranges that overlap are refused",
    )?;
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    let piece = PfnRange::single(range.start());
    let refused = bench.vmemmap.populate(bench.table, &pagemap, piece);
    ensure(
        matches!(refused, Err(OnlineError::PieceMisaligned { .. })),
        "a piece that is not whole subsections is refused",
    )?;
    let refused = bench.try_depopulate(&pagemap, piece);
    ensure(
        matches!(refused, Err(OfflineError::PieceMisaligned { .. })),
        "a piece that is not whole subsections is refused",
    )?;
    bench.absent(range)
}

pub(super) fn a_piece_outside_the_pagemap_is_refused<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.small();
    let ranges = [bench.blocks(unit, 0, 1)?, bench.blocks(unit, 2, 1)?];
    let pagemap = bench.pagemap(&ranges, unit)?;
    let between = bench.blocks(unit, 1, 1)?;
    let all = bench.blocks(unit, 0, 3)?;
    for piece in [between, all] {
        let refused = bench.vmemmap.populate(bench.table, &pagemap, piece);
        ensure(
            refused == Err(OnlineError::PieceOutside { piece }),
            "a piece outside the ranges is refused",
        )?;
        let refused = bench.try_depopulate(&pagemap, piece);
        ensure(
            refused == Err(OfflineError::PieceOutside { piece }),
            "a piece outside the ranges is refused",
        )?;
    }
    bench.absent(all)
}

pub(super) fn memory_that_is_online_is_refused_and_stays<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.small();
    let all = [bench.blocks(unit, 0, 3)?];
    let middle = [bench.blocks(unit, 1, 1)?];
    for order in [Order::BASE, unit] {
        let pagemap = bench.pagemap(&middle, order)?;
        let region = bench.online(&pagemap)?;
        let before = bench.audit()?;
        for again in [Order::BASE, unit] {
            for ranges in [&middle, &all] {
                let second = bench.pagemap(ranges, again)?;
                let at = bench.address(middle[0].start())?;
                let refused = bench.try_online(&second).err();
                ensure_at(
                    refused == Some(OnlineError::AlreadyMapped { at }),
                    "memory that is online is refused",
                    at,
                )?;
                let refused = bench.vmemmap.populate(bench.table, &second, middle[0]);
                ensure_at(
                    refused == Err(OnlineError::AlreadyMapped { at }),
                    "a piece that is online is refused",
                    at,
                )?;
            }
        }
        ensure(bench.audit()? == before, "nothing has changed")?;
        bench.described(middle[0], order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn memory_that_is_offline_cannot_go_offline<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.small();
    let all = bench.blocks(unit, 0, 3)?;
    let first = bench.blocks(unit, 0, 1)?;
    let ranges = [all];
    let pagemap = bench.pagemap(&ranges, unit)?;
    let at = bench.address(all.start())?;
    let refused = bench.try_depopulate(&pagemap, first);
    ensure_at(
        refused == Err(OfflineError::NotOnline { at }),
        "what is not online is refused",
        at,
    )?;
    bench.populate(&pagemap, first)?;
    let before = bench.audit()?;
    let at = bench.address(bench.blocks(unit, 1, 1)?.start())?;
    let refused = bench.try_depopulate(&pagemap, all);
    ensure_at(
        refused == Err(OfflineError::NotOnline { at }),
        "what is online in part is refused",
        at,
    )?;
    // A hole between what is online is no better than one behind it.
    let third = bench.blocks(unit, 2, 1)?;
    bench.populate(&pagemap, third)?;
    let with_hole = bench.audit()?;
    let refused = bench.try_depopulate(&pagemap, all);
    ensure_at(
        refused == Err(OfflineError::NotOnline { at }),
        "what is online in part is refused",
        at,
    )?;
    ensure(bench.audit()? == with_hole, "nothing has changed")?;
    bench.depopulate(&pagemap, third)?;
    ensure(bench.audit()? == before, "nothing has changed")?;
    bench.described(first, unit)?;
    bench.depopulate(&pagemap, first)?;
    let at = bench.address(all.start())?;
    let refused = bench.try_depopulate(&pagemap, first);
    ensure_at(
        refused == Err(OfflineError::NotOnline { at }),
        "the same once more is refused",
        at,
    )
}

pub(super) fn a_foreign_leaf_is_refused_and_stays<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let unit = bench.small();
    let range = bench.blocks(unit, 0, 1)?;
    let page = bench.frame_of_page(range, bench.pages(range) / 2);
    let at = bench.address(page)?;
    // Any frame will do: nobody may touch it.
    let foreign = Leaf::single(range.start(), Role::Foreign);
    let before = bench.audit()?;
    if !bench.controls.map_foreign(bench.table, at, foreign) {
        return skip("the harness cannot map anything foreign");
    }
    for order in [Order::BASE, unit] {
        let ranges = [range];
        let pagemap = bench.pagemap(&ranges, order)?;
        let refused = bench.try_online(&pagemap).err();
        ensure_at(
            refused == Some(OnlineError::AlreadyMapped { at }),
            "what is somebody else's is refused",
            at,
        )?;
        let refused = bench.try_depopulate(&pagemap, range);
        ensure(
            matches!(refused, Err(OfflineError::NotOnline { .. })),
            "what is somebody else's does not go offline",
        )?;
        ensure_at(
            !bench.vmemmap.is_valid(&*bench.table, page)
                && bench.vmemmap.descriptor(&*bench.table, page).is_none(),
            "what is somebody else's is not valid",
            at,
        )?;
        // Memory on both sides may come and go.
        let ranges = [bench.blocks(unit, 1, 1)?];
        let pagemap = bench.pagemap(&ranges, order)?;
        let region = bench.online(&pagemap)?;
        bench.offline(region);
        let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
        ensure_at(found == Some(foreign), "the foreign leaf stays", at)?;
        ensure(bench.audit()? == before, "the foreign leaf is not counted")?;
    }
    bench.controls.unmap_foreign(bench.table, at);
    bench.absent(range)
}

pub(super) fn another_model_is_refused<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let unit = bench.small();
    let range = bench.blocks(unit, 0, 1)?;
    let config = *bench.model.config();
    let Ok(other) = MemoryModel::new(ModelConfig {
        frames: config.frames - 1,
        ..config
    }) else {
        return skip("the model cannot be made any smaller");
    };
    let ranges = [range];
    let Ok(pagemap) = DevPagemap::new(&other, &ranges, Geometry::compound(unit)) else {
        return skip("the device lies at the end of the vmemmap");
    };
    let refused = bench.try_online(&pagemap).err();
    ensure(
        refused == Some(OnlineError::OtherModel),
        "another model is refused",
    )?;
    let refused = bench.vmemmap.populate(bench.table, &pagemap, range);
    ensure(
        refused == Err(OnlineError::OtherModel),
        "another model is refused",
    )?;
    let refused = bench.try_depopulate(&pagemap, range);
    ensure(
        refused == Err(OfflineError::OtherModel),
        "another model is refused",
    )
}

pub(super) fn a_foreign_leaf_in_a_gap_stays_when_the_region_goes<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.small();
    let ranges = [bench.blocks(unit, 0, 3)?];
    let gap = bench.blocks(unit, 1, 1)?;
    let at = bench.address(gap.start())?;
    let foreign = Leaf::single(gap.start(), Role::Foreign);
    for order in [Order::BASE, unit] {
        let pagemap = bench.pagemap(&ranges, order)?;
        let region = bench.online(&pagemap)?;
        bench.depopulate(&pagemap, gap)?;
        if !bench.controls.map_foreign(bench.table, at, foreign) {
            bench.offline(region);
            return skip("the harness cannot map anything foreign");
        }
        bench.offline(region);
        let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
        let seen = bench.controls.translate(bench.table, at).flatten();
        bench.controls.unmap_foreign(bench.table, at);
        ensure_at(found == Some(foreign), "the foreign leaf stays", at)?;
        ensure_at(
            seen.is_none_or(|seen| seen.frame == gap.start()),
            "the foreign leaf stays",
            at,
        )?;
        // The table that it was in goes with the next that comes and goes there.
        let region = bench.online(&pagemap)?;
        bench.offline(region);
    }
    bench.absent(gap)
}
