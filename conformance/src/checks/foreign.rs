//! What other code keeps in the tables, besides leaves: entries that are in use without being
//! present, and tables with nothing in them.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure_at, fail, skip};
use mm_core::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm_core::error::ErrorKind;
use mm_core::frame::FrameAllocator;
use mm_core::paging::{Leaf, MapError, PageTable, Role};

/// Whether `error` says that something is there.
fn is_in_use(error: &MapError) -> bool {
    matches!(error, MapError::InUse { .. })
}

/// A subsection of the device, the address of its second vmemmap page, and that of all of it.
fn subsection<H: Harness>(bench: &Bench<'_, H>) -> Result<(PfnRange, VirtAddr, VirtRange), Stop> {
    let memory = bench.blocks(bench.model.subsection(), 0, 1)?;
    let pages = bench.pages(memory);
    let at = bench.address(bench.frame_of_page(memory, u64::from(pages > 1)))?;
    match bench.model.descriptors(memory) {
        Some(range) => Ok((memory, at, range)),
        None => fail("the vmemmap has room for the device's memory"),
    }
}

/// Tries to map a frame at `at`, where something is kept.
fn is_refused<H: Harness>(bench: &mut Bench<'_, H>, at: VirtAddr) -> Verdict {
    let block = bench.take_frame()?;
    let leaf = Leaf::single(block.first(), Role::Descriptors);
    // SAFETY: 1: allocated for this. 2: nobody uses the vmemmap's addresses; it has to be refused.
    let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
    ensure_at(
        mapped.as_ref().is_err_and(is_in_use),
        "an entry that is in use is refused",
        at,
    )?;
    bench.give_back(block)
}

pub(super) fn an_entry_that_is_in_use_and_not_present_stays<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (memory, at, range) = subsection(bench)?;
    let mut planted = false;
    for order in [Some(Order::BASE), bench.table.huge_leaf()]
        .into_iter()
        .flatten()
    {
        if !bench.controls.plant_reserved(bench.table, at, order) {
            continue;
        }
        planted = true;
        let refused = reserved_is_respected(bench, memory, at, range);
        let stayed = bench.controls.take_reserved(bench.table, at);
        refused?;
        ensure_at(stayed, "what others keep in an entry stays", at)?;
    }
    match planted {
        true => Ok(()),
        false => skip("the harness cannot keep anything in an entry that is not present"),
    }
}

/// Something is kept in the entry for `at`, in the descriptors `range` of `memory`.
fn reserved_is_respected<H: Harness>(
    bench: &mut Bench<'_, H>,
    memory: PfnRange,
    at: VirtAddr,
    range: VirtRange,
) -> Verdict {
    ensure_at(
        bench.table.lookup(at).mapping().is_none(),
        "what is not present maps nothing",
        at,
    )?;
    let found = bench.table.first_in_use(range);
    ensure_at(
        found.is_some_and(|found| found <= at),
        "an entry that is not present is in use",
        at,
    )?;
    is_refused(bench, at)?;
    let ranges = [memory];
    for order in [Order::BASE, bench.small()] {
        if order > bench.model.subsection() {
            continue;
        }
        let pagemap = bench.pagemap(&ranges, order)?;
        let online = bench.try_online(&pagemap);
        let refused = online.is_err_and(|error| error.kind() == ErrorKind::AlreadyOnline);
        ensure_at(refused, "memory whose vmemmap is in use stays offline", at)?;
    }
    Ok(())
}

pub(super) fn a_huge_leaf_is_not_stored_over_a_table_of_others<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (order, describes) = bench.huge_leaf()?;
    let memory = bench.blocks(describes, 0, 1)?;
    let at = bench.address(memory.start())?;
    let Ok(block) = bench.frames.allocate(order, bench.node) else {
        return skip("the allocator has no block for a huge leaf");
    };
    if !bench.controls.link_foreign_tables(bench.table, at) {
        bench.give_back(block)?;
        return skip("the harness cannot link tables of others");
    }
    let leaf = Leaf {
        block,
        role: Role::Descriptors,
        writable: true,
    };
    // SAFETY: 1: the block was allocated for this. 2: nobody uses the vmemmap's addresses; it has to
    // be refused.
    let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
    let linked = bench.controls.unlink_foreign_tables(bench.table, at);
    ensure_at(linked, "a table of others stays linked", at)?;
    ensure_at(mapped.is_err(), "a huge leaf has no place there", at)?;
    ensure_at(
        bench.table.lookup(at).mapping().is_none(),
        "nothing is mapped",
        at,
    )?;
    bench.give_back(block)
}
