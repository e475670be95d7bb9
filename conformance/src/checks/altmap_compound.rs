//! Compound pages with an altmap: tails shared, in frames of the device.
//!
//! ```text
//!   the device   | reserved | gap |  1  |  2  |  3  | ...  compound pages of several subsections
//! ```

use super::altmap::{altmap, room, with_altmap};
use super::fold::{TAILS, all_changed, folded_frames};
use crate::bench::{Bench, part};
use crate::harness::{AltmapUnderTest, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{FoldError, Note, OfflineError, OnlineError};

/// How many compound pages there are.
pub(super) const COUNT: u64 = 3;

/// A device that starts with an altmap.
#[derive(Clone, Copy)]
pub(super) struct Device<'h> {
    pub(super) altmap: &'h dyn AltmapUnderTest,
    /// The order of the compound pages.
    pub(super) order: Order,
    pub(super) ranges: [PfnRange; 1],
    /// What is reserved, and the gap behind it.
    pub(super) base: PfnRange,
    pub(super) compound: PfnRange,
}

impl<'h> Device<'h> {
    /// Compound pages of four subsections, or of as many as it takes.
    pub(super) fn new<H: Harness>(bench: &Bench<'h, H, Mask>) -> Result<Self, Stop> {
        let altmap = altmap(bench)?;
        let four = Order::new(bench.model.subsection().get() + 2);
        let Some(order) = four.map(|four| four.max(bench.small())) else {
            return skip("there are no compound pages of four subsections");
        };
        let base = altmap.reserved().frames().div_ceil(order.frames());
        let device = Self {
            altmap,
            order,
            ranges: [bench.blocks(order, 0, base + COUNT)?],
            base: bench.blocks(order, 0, base)?,
            compound: bench.blocks(order, base, COUNT)?,
        };
        let pages = bench.pages(device.base) + bench.pages(device.compound);
        if pages > room(altmap) {
            return skip("the altmap is too small for its own descriptors and a few more");
        }
        Ok(device)
    }

    pub(super) fn pagemap<'r, H: Harness>(
        &'r self,
        bench: &Bench<'h, H, Mask>,
        order: Order,
        tails: Tails,
    ) -> Result<DevPagemap<'r>, Stop>
    where
        'h: 'r,
    {
        let pagemap = with_altmap(bench, &self.ranges, order)?;
        Ok(pagemap.with_tails(tails).with_huge_leaves(false))
    }

    /// The compound pages' subsections.
    fn subsections<H: Harness>(&self, bench: &Bench<'_, H, Mask>) -> u64 {
        self.compound.frames() / bench.model.subsection().frames()
    }

    /// The subsection number `index` of the compound pages.
    fn subsection<H: Harness>(&self, bench: &Bench<'_, H, Mask>, index: u64) -> PfnRange {
        let unit = bench.model.subsection().frames();
        part(self.compound, index * unit, unit)
    }

    /// Checks that descriptors are in frames of the altmap, but for tails that all share.
    fn holds<H: Harness>(&self, bench: &Bench<'_, H, Mask>, tails: Tails) -> Verdict {
        let [range] = self.ranges;
        let per_compound = bench.model.vmemmap_pages(self.order);
        for page in 0..bench.pages(range) {
            let frame = bench.frame_of_page(range, page);
            let is_tail = self.compound.contains(frame) && page % per_compound != 0;
            let from_altmap = !(is_tail && tails == Tails::PerOrder);
            let found = self.altmap.contains(bench.holder(frame)?);
            let at = bench.address(frame)?;
            ensure_at(
                found == from_altmap,
                "a frame of the altmap, or of RAM where all share it",
                at,
            )?;
        }
        bench.described(self.base, Order::BASE)?;
        bench.described(self.compound, self.order)
    }

    pub(super) fn out(&self) -> Option<u64> {
        self.altmap.outstanding()
    }
}

pub(super) fn an_altmap_and_shared_tails_combine<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let ram = bench.frames_out();
    for tails in TAILS {
        let for_all = u64::from(tails == Tails::PerOrder);
        for piece in super::online::PIECES {
            let pagemap = device.pagemap(bench, device.order, tails)?;
            let region = bench.online(&pagemap.with_piece(piece))?;
            let gap = pagemap.altmap_gap();
            ensure(
                region.tails() == tails
                    && region
                        .notes()
                        .iter()
                        .eq(gap.map(|frames| Note::AltmapGap { frames })),
                "nothing is done otherwise than asked, but for the gap",
            )?;
            let descriptors = bench.pages(device.base) + folded_frames(tails, COUNT);
            bench.costs(descriptors, bench.pages(range))?;
            device.holds(bench, tails)?;
            let out = device.out().unwrap_or(descriptors - for_all);
            equal(descriptors - for_all, out, "frames out of the altmap")?;
            let report = bench.audit()?;
            let tables = report.leaf_tables + report.upper_tables;
            let expected = ram.map(|ram| ram + tables + for_all);
            ensure(
                bench.frames_out() == expected,
                "RAM has the tables, and what all share",
            )?;
            bench.offline(region);
            equal(0, device.out().unwrap_or(0), "frames out of the altmap")?;
            ensure(bench.frames_out() == ram, "RAM gets back what is RAM's")?;
        }
    }
    bench.absent(range)
}

pub(super) fn the_reserved_part_comes_and_goes_like_any_other<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let reserved = device.altmap.reserved();
    for tails in TAILS {
        let pagemap = device.pagemap(bench, device.order, tails)?;
        let other = bench.sharing(&device.ranges, device.order, tails)?;
        let first = device.subsection(bench, 0);
        let before = bench.snapshot(range)?;
        // A piece of its descriptors, a piece that it describes, and both again the other way round.
        for pieces in [[first, reserved], [reserved, first]] {
            for piece in pieces {
                bench.populate(&pagemap, piece)?;
                bench.audit()?;
                let expected = match bench.vmemmap.is_valid(&*bench.table, reserved.start()) {
                    true => ErrorKind::AlreadyOnline,
                    false => ErrorKind::Overlap,
                };
                let refused = bench.vmemmap.populate(bench.table, &other, reserved);
                ensure(
                    refused.err().map(|error| error.kind()) == Some(expected),
                    "memory that is reserved is no memory for others",
                )?;
            }
            bench.depopulate(&pagemap, pieces[0])?;
            bench.audit()?;
            bench.depopulate(&pagemap, pieces[1])?;
            bench.unchanged(&before, range)?;
        }
    }
    Ok(())
}

pub(super) fn an_altmap_whose_memory_others_have_online_is_not_used<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let ranges = [device.altmap.reserved()];
    let plain = bench.pagemap(&ranges, Order::BASE)?.with_huge_leaves(false);
    let pagemap = device.pagemap(bench, device.order, Tails::PerCompound)?;
    let region = bench.online(&plain)?;
    let before = bench.snapshot(range)?;
    for piece in [device.compound, device.subsection(bench, 0)] {
        let refused = bench.vmemmap.populate(bench.table, &pagemap, piece);
        let refused = refused.err().map(|error| error.kind());
        ensure(
            refused == Some(ErrorKind::AlreadyOnline),
            "frames that others may use hold no descriptors",
        )?;
    }
    bench.unchanged(&before, range)?;
    bench.offline(region);
    bench.populate(&pagemap, device.compound)?;
    bench.depopulate(&pagemap, device.compound)
}

pub(super) fn pieces_behind_the_reserved_part_come_and_go_in_any_order<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let count = device.subsections(bench);
    let per_compound = count / COUNT;
    for tails in TAILS {
        let pagemap = device.pagemap(bench, device.order, tails)?;
        // Multiples of a number that shares no factor with how many there are come in all orders.
        for (step, back) in [(1, 5), (5, 7), (7, 11), (11, 1)] {
            bench.populate(&pagemap, device.base)?;
            let pages = bench.pages(device.base);
            for turn in 0..count {
                let index = (turn * step + 2) % count;
                bench.populate(&pagemap, device.subsection(bench, index))?;
                let there =
                    |index: &u64| (0..=turn).any(|turn| (turn * step + 2) % count == *index);
                let heads = (0..count).step_by(per_compound as usize).filter(there);
                let started = (0..COUNT).filter(|page| {
                    (0..count).any(|one| one / per_compound == *page && there(&one))
                });
                let tail_frames = match tails {
                    Tails::PerOrder => 1,
                    _ => started.count() as u64,
                };
                let piece = bench.pages(device.subsection(bench, 0));
                // A subsection may be all head.
                if piece > 1 {
                    bench.costs(
                        pages + heads.count() as u64 + tail_frames,
                        pages + (turn + 1) * piece,
                    )?;
                }
            }
            device.holds(bench, tails)?;
            for turn in 0..count {
                let index = (turn * back + 1) % count;
                bench.depopulate(&pagemap, device.subsection(bench, index))?;
                bench.absent(device.subsection(bench, index))?;
            }
            bench.described(device.base, Order::BASE)?;
            bench.costs(pages, pages)?;
            bench.depopulate(&pagemap, device.base)?;
            equal(0, device.out().unwrap_or(0), "frames out of the altmap")?;
        }
    }
    Ok(())
}

pub(super) fn device_frames_never_reach_ram_on_an_error_path<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    for tails in TAILS {
        for piece in super::online::PIECES {
            let pagemap = device.pagemap(bench, device.order, tails)?;
            let pagemap = pagemap.with_piece(piece);
            // Both allocators are counted each time, for themselves.
            let online = |bench: &mut Bench<'_, H, Mask>| {
                let outcome = bench.try_online(&pagemap);
                outcome.map_err(|error| error.kind())
            };
            let (region, _) = bench.failing_at_every_allocation(range, online)?;
            device.holds(bench, tails)?;
            bench.offline(region);
            equal(0, device.out().unwrap_or(0), "frames out of the altmap")?;
        }
    }
    Ok(())
}

/// All of an altmap's free frames but a few, in somebody else's hands.
struct Drained {
    runs: [Option<PfnRange>; 8],
}

impl Drained {
    /// Takes all free frames of `altmap` but `left`.
    fn new(altmap: &dyn AltmapUnderTest, left: u64) -> Result<Self, Stop> {
        let mut drained = Self { runs: [None; 8] };
        let free = room(altmap) - altmap.outstanding().unwrap_or(0);
        let mut wanted = free.saturating_sub(left);
        for slot in &mut drained.runs {
            if wanted == 0 {
                return Ok(drained);
            }
            let node = altmap.node_of(altmap.reserved().start());
            let Ok(run) = altmap.allocate_run(wanted, node) else {
                return fail("what an altmap counts as free can be had");
            };
            wanted -= run.frames();
            *slot = Some(run);
        }
        match wanted {
            0 => Ok(drained),
            _ => skip("the altmap's free frames lie in too many places"),
        }
    }

    fn give_back(self, altmap: &dyn AltmapUnderTest) {
        for run in self.runs.into_iter().flatten() {
            // SAFETY: 1 and 2: allocated by `new`, one reference each, and mapped nowhere.
            unsafe { altmap.release_run(run) };
        }
    }
}

/// Does `operation` with fewer and fewer frames of the altmap missing, from none left on. As long
/// as it fails nothing changes, and with `needed` frames it succeeds.
fn with_few_frames<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    device: &Device<'_>,
    needed: u64,
    mut operation: impl FnMut(&mut Bench<'_, H, Mask>) -> Result<(), ErrorKind>,
) -> Verdict {
    let [range] = device.ranges;
    let before = bench.snapshot(range)?;
    for left in 0..=needed {
        let drained = Drained::new(device.altmap, left)?;
        let outcome = operation(bench);
        drained.give_back(device.altmap);
        if left == needed {
            return ensure(outcome.is_ok(), "as many frames as are needed are enough");
        }
        ensure(
            outcome == Err(ErrorKind::AltmapExhausted),
            "the error is about the altmap",
        )?;
        bench.unchanged(&before, range)?;
    }
    Ok(())
}

pub(super) fn an_altmap_hands_out_all_but_its_counts<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    if altmap.outstanding().is_none() {
        return skip("the altmap does not count what is out");
    }
    let node = altmap.node_of(altmap.reserved().start());
    let drained = Drained::new(altmap, 0)?;
    let mut runs = drained.runs.into_iter().flatten();
    let inside = runs.all(|run| altmap.reserved().contains_range(run));
    let out = altmap.outstanding();
    let more = altmap.allocate(Order::BASE, node);
    drained.give_back(altmap);
    ensure(inside, "its frames are what it reserves")?;
    ensure(out == Some(room(altmap)), "all of them are out")?;
    ensure(
        more.is_err(),
        "those of the counts are handed out to nobody",
    )?;
    equal(0, altmap.outstanding().unwrap_or(0), "all of them are back")
}

pub(super) fn an_altmap_that_ends_at_any_frame_leaves_nothing_behind<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    if device.out().is_none() {
        return skip("the altmap does not count what is out");
    }
    for tails in TAILS {
        let pagemap = device.pagemap(bench, device.order, tails)?;
        bench.populate(&pagemap, device.base)?;
        let needed = folded_frames(tails, COUNT) - u64::from(tails == Tails::PerOrder);
        with_few_frames(bench, &device, needed, |bench| {
            let outcome = bench
                .vmemmap
                .populate(bench.table, &pagemap, device.compound);
            outcome.map(drop).map_err(|error| error.kind())
        })?;
        device.holds(bench, tails)?;
        bench.depopulate(&pagemap, device.compound)?;
        bench.depopulate(&pagemap, device.base)?;
    }
    Ok(())
}

pub(super) fn folding_gives_frames_back_to_the_altmap<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    for tails in TAILS {
        let base = device.pagemap(bench, Order::BASE, Tails::None)?;
        let compound = device.pagemap(bench, device.order, tails)?;
        let region = bench.online(&base)?;
        let (before, ram) = (bench.audit()?, bench.frames_out());
        let out = device.out();
        all_changed(&bench.fold(&compound, device.compound)?, COUNT)?;
        device.holds(bench, tails)?;
        let descriptors = bench.pages(device.base) + folded_frames(tails, COUNT);
        bench.costs(descriptors, bench.pages(range))?;
        all_changed(&bench.unfold(&compound, device.compound)?, COUNT)?;
        ensure(bench.audit()? == before, "frames and tables of the start")?;
        ensure(
            device.out() == out,
            "the altmap has given as many as before",
        )?;
        ensure(bench.frames_out() == ram, "and so has RAM")?;
        bench.described(device.compound, device.order)?;
        for page in 0..bench.pages(range) {
            let frame = bench.frame_of_page(range, page);
            let at = bench.address(frame)?;
            let found = device.altmap.contains(bench.holder(frame)?);
            ensure_at(found, "a frame of the altmap", at)?;
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn an_unfold_that_exhausts_the_altmap_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let device = Device::new(bench)?;
    if device.out().is_none() {
        return skip("the altmap does not count what is out");
    }
    for tails in TAILS {
        let pagemap = device.pagemap(bench, device.order, tails)?;
        let region = bench.online(&pagemap)?;
        // Each vmemmap page but the head's, and the first tail's where that is its own already.
        let kept = match tails {
            Tails::PerOrder => COUNT,
            _ => 2 * COUNT,
        };
        let needed = bench.pages(device.compound) - kept;
        with_few_frames(bench, &device, needed, |bench| {
            let outcome = bench.try_unfold(&pagemap, device.compound);
            outcome.map(drop).map_err(|error| error.kind())
        })?;
        bench.described(device.compound, device.order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn what_an_altmap_reserves_is_not_folded<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let reserved = device.altmap.reserved();
    let base = device.pagemap(bench, Order::BASE, Tails::None)?;
    let compound = device.pagemap(bench, device.order, Tails::PerCompound)?;
    let region = bench.online(&base)?;
    let before = bench.snapshot(range)?;
    for frames in [range, part(range, 0, device.order.frames())] {
        let refused = Some(FoldError::Reserved { reserved });
        let fold = bench.try_fold(&compound, frames).err();
        ensure(fold == refused, "what is reserved is not folded")?;
        let unfold = bench.try_unfold(&compound, frames).err();
        ensure(unfold == refused, "what is reserved is not unfolded")?;
    }
    bench.unchanged(&before, range)?;
    bench.offline(region);
    Ok(())
}

pub(super) fn memory_of_an_altmap_is_refused_to_a_pagemap_without_it<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let reserved = device.altmap.reserved();
    for tails in TAILS {
        let own = device.pagemap(bench, device.order, tails)?;
        let other = bench.sharing(&device.ranges, device.order, tails)?;
        let region = bench.online(&own)?;
        let before = bench.snapshot(range)?;
        for piece in [device.compound, range, device.subsection(bench, 0)] {
            let refused = bench.try_depopulate(&other, piece);
            ensure(
                refused == Err(OfflineError::OtherAltmap { reserved }),
                "frames of an altmap do not go to RAM",
            )?;
        }
        if bench.needs_replacement().is_ok() {
            let refused = Some(FoldError::OtherAltmap { reserved });
            let fold = bench.try_fold(&other, device.compound).err();
            ensure(fold == refused, "frames of an altmap do not go to RAM")?;
            let unfold = bench.try_unfold(&other, device.compound).err();
            ensure(unfold == refused, "frames of RAM do not go to an altmap")?;
        }
        bench.unchanged(&before, range)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn what_an_altmap_reserves_is_for_it_alone_as_long_as_it_is_in_use<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let [range] = device.ranges;
    let reserved = device.altmap.reserved();
    let ranges = [reserved];
    let whole = device.pagemap(bench, device.order, Tails::PerCompound)?;
    let plain = bench.pagemap(&ranges, Order::BASE)?.with_huge_leaves(false);
    let others = part(range, reserved.frames(), range.frames() - reserved.frames());
    for by_region in [true, false] {
        // The same altmap, in a pagemap that knows nothing of the rest of the device.
        let small = with_altmap(bench, &ranges, Order::BASE)?.with_huge_leaves(false);
        let before = bench.snapshot(range)?;
        let region = bench.online(&small)?;
        bench.populate(&whole, others)?;
        bench.mark(reserved.start())?;
        let gone = match by_region {
            true => bench.take_offline(region)?,
            false => match bench.vmemmap.depopulate(bench.table, &small, reserved) {
                Ok(offlined) => offlined,
                Err(_) => return fail("a piece goes offline"),
            },
        };
        equal(0, gone.kept, "frames that stay")?;
        equal(1, gone.marked, "marks that went")?;
        bench.absent(reserved)?;
        let refused = bench.try_online(&plain).err();
        ensure(
            refused == Some(OnlineError::Reserved { reserved }),
            "memory that holds descriptors comes online as reserved only",
        )?;
        let start = reserved.start();
        ensure(bench.vmemmap.is_reserved(start), "it is reserved yet")?;
        bench.depopulate(&whole, others)?;
        bench.unchanged(&before, range)?;
        equal(0, device.out().unwrap_or(0), "frames out of the altmap")?;
        ensure(!bench.vmemmap.is_reserved(start), "and then no more")?;
        let region = bench.online(&plain)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn marks_of_a_device_with_an_altmap_are_in_ram<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let device = Device::new(bench)?;
    let pagemap = device.pagemap(bench, device.order, Tails::PerOrder)?;
    let region = bench.online(&pagemap)?;
    let (ram, out) = (bench.frames_out(), device.out());
    for frame in [device.base.start(), device.compound.last()] {
        bench.mark(frame)?;
        ensure(device.out() == out, "marks are not in the altmap")?;
    }
    ensure(bench.frames_out() >= ram, "but in RAM")?;
    let offlined = bench.take_offline(region)?;
    equal(2, offlined.marked, "marks that went")
}
