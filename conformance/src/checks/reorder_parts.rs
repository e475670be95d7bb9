//! A part of a larger page changes; the rest, and what is beside it, is as it has to be.

use super::fold::TAILS;
use super::reorder::four;
use crate::bench::{Bench, Form, State, part};
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, equal_at, skip};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::paging::{Leaf, PageTable, Role};
use mm_core::vmemmap::Region;

/// How many pages there are; the first and the last are neighbours of those that change.
const PAGES: u64 = 4;

/// Memory in pages of `large`, of which `part` has become pages of `order`.
#[derive(Clone, Copy)]
struct Mixture {
    range: PfnRange,
    large: Order,
    part: PfnRange,
    order: Order,
    tails: Tails,
}

impl Mixture {
    /// The order of the page that `frame` is part of.
    fn order_at(&self, frame: Pfn) -> Order {
        order_at(self.large, self.part, self.order, frame)
    }

    /// How pages of `order` share tails: not where that saves nothing.
    fn tails_of<H: Harness>(&self, bench: &Bench<'_, H, Mask>, order: Order) -> Tails {
        let pages = order.frames() / bench.model.descriptors_per_page();
        match self.tails {
            Tails::PerOrder if pages > 1 => Tails::PerOrder,
            Tails::PerCompound if pages > 2 => Tails::PerCompound,
            _ => Tails::None,
        }
    }

    /// How many frames hold the descriptors.
    fn descriptor_frames<H: Harness>(&self, bench: &Bench<'_, H, Mask>) -> u64 {
        let per_page = bench.model.descriptors_per_page();
        let (mut frames, mut for_all) = (0, 0_u64);
        for page in 0..bench.pages(self.range) {
            let first = bench.frame_of_page(self.range, page);
            let order = self.order_at(first);
            let in_page = (first.get() - first.align_down(order).get()) / per_page;
            match self.tails_of(bench, order) {
                Tails::PerOrder if in_page > 0 => for_all |= 1 << order.get(),
                Tails::PerCompound if in_page > 1 => {}
                _ => frames += 1,
            }
        }
        frames + u64::from(for_all.count_ones())
    }

    /// Checks what it costs, what descriptors say, and what is listed.
    fn is_there<H: Harness>(&self, bench: &mut Bench<'_, H, Mask>) -> Verdict {
        bench.costs(self.descriptor_frames(bench), bench.pages(self.range))?;
        for page in 0..bench.pages(self.range) {
            let first = bench.frame_of_page(self.range, page);
            let last = first.saturating_add(bench.model.descriptors_per_page() - 1);
            for frame in [first, last] {
                bench.is_described(frame, self.order_at(frame))?;
            }
        }
        let mut next = self.range.start();
        for page in bench.vmemmap.pages(&*bench.table, self.range) {
            let at = bench.address(next)?;
            equal_at(next.get(), page.first.get(), "the next page is listed", at)?;
            let order = self.order_at(next);
            let listed = page.order.get();
            equal_at(order.get().into(), listed.into(), "its order is listed", at)?;
            ensure_at(
                page.tails == self.tails_of(bench, order),
                "what its tails share is listed",
                at,
            )?;
            next = next.saturating_add(order.frames());
        }
        let end = self.range.last().saturating_add(1);
        equal(end.get(), next.get(), "where the list ends")
    }
}

/// The order of the page that `frame` is part of, when `some` memory in pages of `large` has become pages of
/// `order`: a block is halved until it is in that memory, or beside it.
pub(super) fn order_at(large: Order, some: PfnRange, order: Order, frame: Pfn) -> Order {
    let mut size = large;
    loop {
        let block = PfnRange::new(frame.align_down(size), size.frames());
        let block = block.unwrap_or(PfnRange::single(frame));
        if some.contains_range(block) {
            return order;
        }
        match size.get().checked_sub(1).and_then(Order::new) {
            Some(half) if block.overlaps(some) => size = half,
            _ => return size,
        }
    }
}

/// Where parts begin in two pages of `large`, how many pages they have, and of which order.
fn parts<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    large: Order,
) -> impl Iterator<Item = (u64, u64, Order)> + use<H> {
    let per_page = bench.model.descriptors_per_page();
    let (small, page) = (bench.small(), bench.model.vmemmap_page_order());
    let of = move |order: Order, first, count: u64| (first, count << order.get(), order);
    [
        // At the start of a page, at its end, and across two.
        of(small, 0, 1),
        of(small, large.frames() - small.frames(), 1),
        of(small, large.frames() - small.frames(), 2),
        // What one vmemmap page describes, and less, and across two of them.
        of(page, large.frames() / 2 + per_page, 1),
        of(Order::BASE, 1, 1),
        of(Order::BASE, large.frames() / 2 - 3, per_page),
    ]
    .into_iter()
}

/// Pages of which parts change, and the ranges that they are.
fn pages<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<(Order, [PfnRange; 1]), Stop> {
    bench.needs_replacement()?;
    let large = four(bench)?;
    Ok((large, [bench.blocks(large, 0, PAGES)?]))
}

/// Does `with` memory of each mixture, which is online as it was before.
fn for_each_mixture<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    mut with: impl FnMut(&mut Bench<'_, H, Mask>, &Mixture, [&DevPagemap<'_>; 2], Region<'_>) -> Verdict,
) -> Verdict {
    let (large, ranges) = pages(bench)?;
    let [range] = ranges;
    for (first, count, order) in parts(bench, large) {
        for tails in TAILS {
            let mixture = Mixture {
                range,
                large,
                part: part(range, large.frames() + first, count),
                order,
                tails,
            };
            let before = bench.of_form(&ranges, Form::new(large, tails))?;
            let after = bench.of_form(&ranges, Form::new(order, tails))?;
            let region = bench.online(&before)?;
            with(bench, &mixture, [&before, &after], region)?;
        }
    }
    Ok(())
}

pub(super) fn a_part_leaves_the_largest_pages_that_fit<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    for_each_mixture(bench, |bench, mixture, [before, after], region| {
        let Mixture {
            range, large, part, ..
        } = *mixture;
        let report = bench.audit()?;
        let _ = bench.reorder(after, part, large)?;
        mixture.is_there(bench)?;
        let there = bench.snapshot(range)?;
        let again = bench.reorder(after, part, large)?;
        equal(0, again.flushes, "flushes, where all is so already")?;
        bench.unchanged(&there, range)?;
        let whole = self::part(range, large.frames(), 2 * large.frames());
        let _ = bench.reorder(before, whole, large)?;
        bench.costs_as(&report)?;
        bench.described(range, large)?;
        bench.offline(region);
        Ok(())
    })
}

pub(super) fn memory_of_many_orders_goes_offline_to_the_last_frame<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    for_each_mixture(bench, |bench, mixture, [before, after], region| {
        let Mixture {
            range, large, part, ..
        } = *mixture;
        let _ = bench.reorder(after, part, large)?;
        if mixture.tails == Tails::PerOrder {
            bench.offline(region);
            return bench.absent(range);
        }
        // By pieces, those in the middle first: of a page that is partly offline the rest stays.
        let unit = bench.model.subsection().frames();
        let count = range.frames() / unit;
        for index in 0..count {
            let index = (index + count / 2) % count;
            let piece = self::part(range, index * unit, unit);
            bench.depopulate(before, piece)?;
            bench.absent(piece)?;
        }
        drop(region);
        Ok(())
    })
}

pub(super) fn what_is_beside_a_change_of_orders_stays_as_it_is<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    for_each_mixture(bench, |bench, mixture, [before, after], region| {
        let Mixture {
            range, large, part, ..
        } = *mixture;
        let beside = [0, PAGES - 1].map(|page| {
            let first = page * large.frames();
            self::part(range, first, large.frames())
        });
        // A head, and a tail that has memory of its own.
        let stamped = beside.map(|page| [0, 1].map(|frame| self::part(page, frame, 1).start()));
        for frame in stamped.as_flattened() {
            bench.keep(*frame, State::of(*frame))?;
        }
        let fingerprints = [bench.fingerprint(beside[0])?, bench.fingerprint(beside[1])?];
        let whole = self::part(range, large.frames(), 2 * large.frames());
        for (pagemap, frames) in [(after, part), (before, whole)] {
            let _ = bench.reorder(pagemap, frames, large)?;
            for (page, fingerprint) in beside.into_iter().zip(fingerprints) {
                equal(fingerprint, bench.fingerprint(page)?, "what is beside it")?;
            }
            for frame in stamped.as_flattened() {
                let at = bench.address(*frame)?;
                let stays = bench.state(*frame)? == State::of(*frame);
                ensure_at(stays, "what others keep stays", at)?;
            }
        }
        bench.offline(region);
        Ok(())
    })
}

pub(super) fn a_change_of_orders_next_to_foreign_memory_leaves_it_alone<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let large = four(bench)?;
    let ranges = [bench.blocks(large, 1, 1)?];
    let [range] = ranges;
    // The pages before and behind.
    let beside = [bench.blocks(large, 0, 1)?, bench.blocks(large, 2, 1)?];
    let per_page = bench.model.descriptors_per_page();
    let frames = [
        beside[0]
            .last()
            .align_down(bench.model.vmemmap_page_order()),
        beside[1].start(),
    ];
    let at = [bench.address(frames[0])?, bench.address(frames[1])?];
    let leaf = frames.map(|frame| Leaf::single(frame, Role::Foreign));
    for (at, leaf) in at.into_iter().zip(leaf) {
        if !bench.controls.map_foreign(bench.table, at, leaf) {
            return skip("the harness cannot map anything foreign");
        }
    }
    let change = |bench: &mut Bench<'_, H, Mask>| {
        let small = Form::new(bench.small(), Tails::PerOrder);
        let base = Form::new(Order::BASE, Tails::None);
        let large = Form::new(large, Tails::PerCompound);
        let region = bench.online(&bench.of_form(&ranges, large)?)?;
        let ends = [
            part(range, 0, per_page),
            part(range, range.frames() - per_page, per_page),
        ];
        for (form, frames) in [
            (small, range),
            (base, ends[0]),
            (base, ends[1]),
            (large, range),
        ] {
            let _ = bench.reorder(&bench.of_form(&ranges, form)?, frames, large.order)?;
        }
        bench.offline(region);
        Ok(())
    };
    let outcome = change(bench);
    let found = at.map(|at| bench.table.lookup(at).mapping().map(|found| found.leaf));
    for at in at {
        bench.controls.unmap_foreign(bench.table, at);
    }
    outcome?;
    ensure(found == leaf.map(Some), "foreign leaves stay")
}
