//! Pages that are online become pages of every other order, and what they were.

use super::altmap_compound::{COUNT, Device};
use super::fold::{FEW, TAILS, folded_frames, whole_leaf};
use super::shared_tables::Spans;
use crate::bench::{Bench, Form, part};
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, equal, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{Tables, Tails};
use mm_core::paging::{InUse, PageTable, Replacement};
use mm_core::vmemmap::{AuditReport, FoldError, Reserve};

/// The order of four [small](Bench::small) pages.
pub(super) fn four<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<Order, Stop> {
    match Order::new(bench.small().get() + 2) {
        Some(order) if order <= bench.model.max_order() => Ok(order),
        _ => skip("the model has no compound pages of four small ones"),
    }
}

/// Every form of pages up to `largest` whose tails can be shared, and some of those whose cannot.
fn forms<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    largest: Order,
) -> impl Iterator<Item = Form> + Clone + use<H> {
    let page = bench.model.vmemmap_page_order().get();
    let alone = [0, 1, page, largest.get()].map(|order| (order, Tails::None));
    let larger = page + 1..=largest.get();
    let sharing = larger.flat_map(|order| TAILS.map(|tails| (order, tails)));
    let all = alone.into_iter().chain(sharing);
    all.filter_map(|(order, tails)| Some(Form::new(Order::new(order)?, tails)))
}

/// How many frames hold the descriptors of `frames`, used in that form.
fn descriptor_frames<H: Harness>(bench: &Bench<'_, H, Mask>, frames: PfnRange, form: Form) -> u64 {
    let count = frames.frames() >> form.order.get();
    let pages = bench.pages(frames);
    let in_compound = pages.checked_div(count).unwrap_or(pages);
    match form.tails {
        Tails::PerOrder if in_compound > 1 => folded_frames(form.tails, count),
        Tails::PerCompound if in_compound > 2 => folded_frames(form.tails, count),
        _ => pages,
    }
}

pub(super) fn pages_of_every_order_become_pages_of_every_other<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let largest = four(bench)?;
    let range = bench.blocks(largest, 0, 1)?;
    let ranges = [range];
    let forms = forms(bench, largest);
    let Some(first) = forms.clone().next() else {
        return fail("there are base pages");
    };
    let region = bench.online(&bench.of_form(&ranges, first)?)?;
    let start = bench.audit()?;
    let others = bench
        .frames_out()
        .map(|out| out - descriptor_frames(bench, range, first));
    let change = |bench: &mut Bench<'_, H, Mask>, to: Form| {
        let pagemap = bench.of_form(&ranges, to)?;
        let done = bench.reorder(&pagemap, range, largest)?;
        ensure(
            done.notes.is_empty(),
            "nothing is done otherwise than asked",
        )?;
        // An audit takes much longer.
        let frames = descriptor_frames(bench, range, to);
        let expected = others.map_or(0, |others| others + frames);
        let out = bench.frames_out().unwrap_or(0);
        equal(expected, out, "frames that are out")?;
        bench.described(range, to.order)
    };
    for (index, from) in forms.clone().enumerate() {
        bench.costs_as(&AuditReport {
            descriptor_frames: descriptor_frames(bench, range, from),
            ..start
        })?;
        for to in forms.clone().skip(index + 1) {
            change(bench, to)?;
            change(bench, from)?;
        }
        if let Some(next) = forms.clone().nth(index + 1) {
            change(bench, next)?;
        }
    }
    bench.offline(region);
    bench.absent(range)
}

/// Makes memory of the first of `forms` memory of the next one, and so on to the first again, and all the
/// way back. Each time it has the frames and tables that it has when it comes online in that form.
fn around<H: Harness, const FORMS: usize>(
    bench: &mut Bench<'_, H, Mask>,
    ranges: &[PfnRange; 1],
    forms: [Form; FORMS],
) -> Verdict {
    let [range] = *ranges;
    let largest = forms.iter().map(|form| form.order).max();
    let largest = largest.unwrap_or(Order::BASE);
    let mut costs = [AuditReport::default(); FORMS];
    for (cost, form) in costs.iter_mut().zip(forms) {
        *cost = bench.cost_of(ranges, form)?;
    }
    let all = || forms.iter().zip(&costs);
    let Some((first, _)) = all().next() else {
        return Ok(());
    };
    let region = bench.online(&bench.of_form(ranges, *first)?)?;
    let there = all().skip(1).chain(all().take(1));
    for (to, cost) in there.chain(all().rev()) {
        let pagemap = bench.of_form(ranges, *to)?;
        let done = bench.reorder(&pagemap, range, largest)?;
        ensure(
            done.notes.is_empty(),
            "nothing is done otherwise than asked",
        )?;
        bench.costs_as(cost)?;
        ends_are_described(bench, range, to.order)?;
    }
    let again = bench.reorder(&bench.of_form(ranges, *first)?, range, largest)?;
    equal(0, again.flushes, "flushes, where all is so already")?;
    bench.offline(region);
    Ok(())
}

/// Checks the descriptors in the first two vmemmap pages, and the last one, of each page of `order`, of
/// some where there are many.
fn ends_are_described<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    range: PfnRange,
    order: Order,
) -> Verdict {
    let per_page = bench.model.descriptors_per_page();
    let frames = order.frames().max(per_page);
    let count = range.frames() / frames;
    for index in (0..count).step_by((count / 16).max(1) as usize) {
        let page = part(range, index * frames, frames);
        bench.described(part(page, 0, per_page), order)?;
        if frames > per_page {
            bench.described(part(page, per_page, per_page), order)?;
            bench.described(part(page, frames - per_page, per_page), order)?;
        }
    }
    Ok(())
}

pub(super) fn pages_change_together_with_the_tables_that_they_share<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let spans = Spans::new(bench)?;
    let ranges = [bench.blocks(spans.order, 0, 1)?];
    let shared = |order, tails| Form {
        tables: Tables::Shared,
        ..Form::new(order, tails)
    };
    let Some(smaller) = Order::new(spans.order.get() - 3) else {
        return skip("there is no smaller order");
    };
    let forms = [
        shared(spans.order, Tails::PerOrder),
        shared(spans.order, Tails::PerCompound),
        Form::new(spans.order, Tails::PerOrder),
        Form::new(smaller, Tails::PerCompound),
        shared(smaller, Tails::PerOrder),
    ];
    around(bench, &ranges, forms)
}

pub(super) fn pages_that_a_huge_leaf_describes_change_and_it_comes_back<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges, leaf) = whole_leaf(bench, FEW)?;
    let huge = |order| Form {
        huge_leaves: true,
        ..Form::new(order, Tails::None)
    };
    // One to change to, and one that comes back.
    let blocks = [0, 1].map(|_| bench.take_block(leaf));
    let both = blocks.iter().all(Option::is_some);
    for block in blocks.into_iter().flatten() {
        bench.give_back(block)?;
    }
    if !both {
        return skip("the allocator has no block for a huge leaf");
    }
    let forms = [
        huge(Order::BASE),
        huge(order),
        Form::new(Order::BASE, Tails::None),
        Form::new(order, Tails::PerOrder),
        Form::new(order, Tails::PerCompound),
    ];
    around(bench, &ranges, forms)
}

pub(super) fn orders_stay_where_entries_in_use_cannot_be_exchanged<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    if bench.table.replacement() != Replacement::Refused {
        return skip("the page table can exchange entries in use");
    }
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    let [base, compound] = [
        Form::new(Order::BASE, Tails::None),
        Form::new(order, Tails::PerOrder),
    ];
    for (from, to) in [(base, compound), (compound, base)] {
        let region = bench.online(&bench.of_form(&ranges, from)?)?;
        let before = bench.snapshot(range)?;
        let refused = bench.try_reorder(&bench.of_form(&ranges, to)?, range)?;
        let refused = refused.is_err_and(|stopped| stopped.error == FoldError::Refused);
        ensure(refused, "a change of order is refused for that")?;
        bench.unchanged(&before, range)?;
        bench.offline(region);
    }
    // Whoever cannot exchange entries needs no tables for that.
    let table = Reserve {
        tables: 1,
        ..Reserve::default()
    };
    let filled = bench.try_fill_reserve(table);
    ensure(
        filled.is_ok() || filled == Err(FoldError::Refused),
        "a reserve of tables is empty, or refused",
    )?;
    bench.empty_reserve()
}

pub(super) fn a_huge_leaf_that_cannot_be_split_keeps_its_pages<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    if bench.table.resizes_leaves() {
        return skip("the page table splits and joins leaves in use");
    }
    let (leaf, describes) = bench.huge_leaf()?;
    let range = bench.blocks(describes, 0, 1)?;
    let ranges = [range];
    let base = Form {
        huge_leaves: true,
        ..Form::new(Order::BASE, Tails::None)
    };
    let region = bench.online(&bench.of_form(&ranges, base)?)?;
    let found = bench.table.lookup(bench.address(range.start())?).mapping();
    if found.is_none_or(|found| found.leaf.block.order() != leaf) {
        bench.offline(region);
        return skip("the allocator has no block for a huge leaf");
    }
    let compound = Form::new(bench.small(), Tails::PerOrder);
    let pagemap = bench.of_form(&ranges, compound)?;
    bench.fill_reserve(bench.needed(&pagemap, range, compound.order))?;
    let before = bench.snapshot(range)?;
    let refused = bench.try_reorder(&pagemap, range)?;
    let splits = |error| matches!(error, FoldError::SplitsHugeLeaf { .. });
    ensure(
        refused.is_err_and(|stopped| splits(stopped.error)),
        "a change of order is refused for that",
    )?;
    bench.unchanged(&before, range)?;
    bench.empty_reserve()?;
    bench.offline(region);
    Ok(())
}

pub(super) fn frames_of_a_change_come_from_the_altmap_and_go_back_to_it<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let larger = device.order;
    let Some(smaller) = Order::new(larger.get() - 1) else {
        return skip("there is no smaller order");
    };
    for tails in TAILS {
        let before = device.pagemap(bench, larger, tails)?;
        let region = bench.online(&before)?;
        let (report, out) = (bench.audit()?, device.out());
        let base = bench.pages(device.base);
        for (order, tails) in [(smaller, tails), (Order::BASE, Tails::None)] {
            let form = Form::new(order, tails);
            let after = device.pagemap(bench, order, tails)?;
            let _ = bench.reorder(&after, device.compound, larger)?;
            let frames = base + descriptor_frames(bench, device.compound, form);
            bench.costs(frames, bench.pages(range))?;
            bench.described(device.compound, order)?;
            let for_all = u64::from(order != Order::BASE && tails == Tails::PerOrder);
            let out = device.out().unwrap_or(frames - for_all);
            equal(frames - for_all, out, "frames out of the altmap")?;
        }
        let _ = bench.reorder(&before, device.compound, larger)?;
        bench.costs_as(&report)?;
        ensure(device.out() == out, "the altmap has its frames again")?;
        equal(
            base + folded_frames(tails, COUNT),
            report.descriptor_frames,
            "descriptor frames",
        )?;
        // What the altmap reserves is used by itself.
        let reserved = device.altmap.reserved();
        let reserves = bench.blocks(larger, 0, 1)?;
        let refused = bench.try_reorder(&before, reserves)?;
        ensure(
            refused.is_err_and(|stopped| stopped.error == FoldError::Reserved { reserved }),
            "what the altmap reserves stays base pages",
        )?;
        bench.offline(region);
    }
    Ok(())
}
