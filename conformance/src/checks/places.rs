//! Where the page table finds its place for a leaf: which addresses, on the way to them tables of
//! which node, and what CPUs remember of the way.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure_at, equal, equal_at, fail, skip};
use core::ops::ControlFlow;
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{Flush, Leaf, MapError, PageTable, Role, Run, Visit};

/// A page of the vmemmap.
fn page<H: Harness>(bench: &Bench<'_, H>) -> Result<VirtRange, Stop> {
    let memory = bench.blocks(bench.model.subsection(), 0, 1)?;
    let at = bench.address(memory.start())?;
    match VirtRange::new(at, bench.model.granule().bytes()) {
        Ok(page) => Ok(page),
        Err(_) => fail("a page of the vmemmap"),
    }
}

/// The tables of the library's for `range`, which `with` is called for.
fn owned_tables<H: Harness>(bench: &Bench<'_, H>, range: VirtRange, with: &mut dyn FnMut(Pfn)) {
    let _ = bench.table.visit(range, &mut |visit| {
        if let Visit::Table {
            frame, owned: true, ..
        } = visit
        {
            with(frame);
        }
        ControlFlow::Continue(())
    });
}

/// Unmaps `range`, and gives back what it was mapped to.
fn unmap<H: Harness>(bench: &mut Bench<'_, H>, range: VirtRange) -> Verdict {
    let mut found = None;
    // SAFETY: 1: nobody uses the address. 2: one page, which the check has mapped.
    unsafe {
        bench.table.unmap(
            [range].into_iter(),
            &mut |run: Run| found = Some(run.leaf.block),
            &bench.records,
        );
    }
    match found {
        Some(block) => bench.give_back(block),
        None => fail("what was mapped comes back"),
    }
}

pub(super) fn tables_come_from_the_node_that_was_asked<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let range = page(bench)?;
    let at = range.start();
    let mut tables_seen = 0;
    for node in [bench.node, bench.other_node()] {
        let Ok(block) = bench.frames.allocate(Order::BASE, node) else {
            return skip("there is memory on one node only");
        };
        if bench.frames.node_of(block.first()) != node {
            bench.give_back(block)?;
            return skip("there is memory on one node only");
        }
        let mut before = 0;
        owned_tables(bench, range, &mut |_| before += 1);
        let leaf = Leaf::single(block.first(), Role::Descriptors);
        // SAFETY: 1: the frame was allocated for this. 2: nobody uses the vmemmap.
        let mapped = unsafe { bench.map_leaf(at, leaf, node) };
        bench.expect_at(mapped, "a free page can be mapped", at)?;
        let (mut tables, mut elsewhere) = (0, 0);
        let frames = bench.frames;
        owned_tables(bench, range, &mut |table| {
            tables += 1;
            elsewhere += u64::from(tables > before && frames.node_of(table) != node);
        });
        tables_seen += tables - before;
        unmap(bench, range)?;
        equal(0, elsewhere, "tables of another node than was asked")?;
    }
    match tables_seen {
        0 => skip("the page table has no tables of the library's"),
        _ => Ok(()),
    }
}

pub(super) fn an_address_that_is_not_translated_is_no_other<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let range = page(bench)?;
    let at = range.start();
    let Some(alias) = bench.controls.untranslated(at) else {
        return skip("the harness knows no address that is not translated");
    };
    let block = bench.take_frame()?;
    let leaf = Leaf::single(block.first(), Role::Descriptors);
    // SAFETY: 1: the frame was allocated for this. 2: no CPU translates the address; it has to be
    // refused.
    let mapped = unsafe { bench.map_leaf(alias, leaf, bench.node) };
    ensure_at(
        matches!(mapped, Err(MapError::Unsupported { .. })),
        "an address that is not translated is refused",
        alias,
    )?;
    ensure_at(
        bench.table.lookup(at).mapping().is_none(),
        "nothing is mapped",
        at,
    )?;
    // SAFETY: 1: allocated for this. 2: nobody uses the vmemmap.
    let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
    bench.expect_at(mapped, "a free page can be mapped", at)?;
    let verdict = alias_is_nothing(bench, alias);
    let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
    ensure_at(found == Some(leaf), "the leaf stays", at)?;
    unmap(bench, range)?;
    verdict
}

/// Nothing is found, or cleared, at `alias`.
fn alias_is_nothing<H: Harness>(bench: &mut Bench<'_, H>, alias: VirtAddr) -> Verdict {
    let what = "at an address that is not translated there is nothing";
    ensure_at(bench.table.lookup(alias).mapping().is_none(), what, alias)?;
    if let Ok(page) = VirtRange::new(alias, bench.model.granule().bytes()) {
        ensure_at(bench.table.first_in_use(page).is_none(), what, alias)?;
    }
    let mut flush = Flush::nothing();
    // SAFETY: 1: nobody uses the address. 2: nothing must be cleared, and nothing is released.
    let cleared = unsafe { bench.table.clear_leaf(alias, &mut flush) };
    bench.table.flush(flush, &bench.records);
    ensure_at(cleared.is_none(), what, alias)
}

pub(super) fn cpus_forget_the_way_to_a_table_that_went<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.small();
    let memory = bench.blocks(order, 0, 2)?;
    let ranges = [memory];
    let pagemap = bench.pagemap(&ranges, order)?.with_huge_leaves(false);
    let at = bench.address(memory.start())?;
    if bench.controls.access(bench.table, at).is_none() {
        return skip("the harness cannot access what is mapped as a CPU");
    }
    let Some(range) = bench.model.descriptors(memory) else {
        return fail("the vmemmap has room for the device's memory");
    };
    let mut old = None;
    let mut others = [None; 4];
    for _ in 0..2 {
        let region = bench.online(&pagemap)?;
        let mut table = None;
        owned_tables(bench, range, &mut |frame| table = Some(frame));
        accesses_agree(bench, range)?;
        bench.speculate(memory);
        bench.offline(region);
        ensure_at(
            bench.controls.access(bench.table, at) == Some(None),
            "CPUs find nothing where nothing is mapped",
            at,
        )?;
        // What comes online next has other tables: CPUs that remember the old ones go astray.
        if old.is_none()
            && let Some(frame) = table
        {
            old = bench.reuse_frame(frame)?;
            for slot in &mut others {
                *slot = Some(bench.take_frame()?);
            }
        }
    }
    for block in others.into_iter().chain([old]).flatten() {
        bench.give_back(block)?;
    }
    Ok(())
}

/// Each page of `range` leads a CPU to where the tables say.
fn accesses_agree<H: Harness>(bench: &Bench<'_, H>, range: VirtRange) -> Verdict {
    let granule = bench.model.granule();
    for page in 0..range.pages(granule) {
        let at = range.start().checked_add(page << granule.shift());
        let at = at.unwrap_or(range.last());
        let said = bench.table.lookup(at).mapping();
        let said = said.and_then(|found| found.frame_of(at, granule));
        let found = bench.controls.access(bench.table, at).flatten();
        let number = |frame: Option<Pfn>| frame.map_or(u64::MAX, Pfn::get);
        equal_at(number(said), number(found), "where a CPU comes to", at)?;
    }
    Ok(())
}
