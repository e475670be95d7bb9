//! What is in descriptors that are folded and unfolded, and in those beside them.

use super::fold::{FEW, TAILS, base_pages, eight, whole_leaf};
use crate::bench::{Bench, State, part};
use crate::harness::{Controls, Harness};
use crate::outcome::{Verdict, ensure_at, equal, equal_at};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, TailEncoding};

/// Checks that `state` is in the descriptor of `frame`.
fn keeps<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    frame: Pfn,
    state: State,
) -> Verdict {
    let at = bench.address(frame)?;
    ensure_at(
        bench.state(frame)? == state,
        "a descriptor keeps what was written to it",
        at,
    )
}

/// The frames of `range` whose descriptors are the first or the last in a vmemmap page.
fn corners<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    range: PfnRange,
) -> impl Iterator<Item = Pfn> + use<H, E> {
    let page = bench.model.descriptors_per_page();
    (0..bench.pages(range)).flat_map(move |index| {
        let first = range.start().saturating_add(index * page);
        [first, first.saturating_add(page - 1)]
    })
}

pub(super) fn folding_keeps_what_the_kernel_wrote_in_the_heads_page<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    let last_in_page = bench.model.descriptors_per_page() - 1;
    // A head, tails that kernels keep state in, and the last of the head's vmemmap page.
    let kept = |index: u64| {
        let head = part(range, index * order.frames(), 1).start();
        [0, 1, 3, last_in_page].map(|tail| head.saturating_add(tail))
    };
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        for frame in (0..8).flat_map(kept) {
            bench.keep(frame, State::of(frame))?;
        }
        // State in other tails is gone once they are shared.
        for index in 0..8 {
            let tail = part(range, (index + 1) * order.frames() - 1, 1).start();
            bench.keep(tail, State::of(tail))?;
        }
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        for step in 0..2 {
            let _ = match step {
                0 => bench.fold(&compound, range)?,
                _ => bench.unfold(&compound, range)?,
            };
            for frame in (0..8).flat_map(kept) {
                keeps(bench, frame, State::of(frame))?;
            }
            for index in 0..8 {
                let tail = part(range, (index + 1) * order.frames() - 1, 1).start();
                keeps(bench, tail, State::new(true))?;
            }
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn unfolded_descriptors_are_writable_and_nobody_elses<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let pagemap = pagemap.with_huge_leaves(false);
        let region = bench.online(&pagemap)?;
        let _ = bench.unfold(&pagemap, range)?;
        for page in 0..bench.pages(range) {
            let frame = bench.frame_of_page(range, page);
            let at = bench.address(frame)?;
            let holder = bench.holder(frame)?;
            equal_at(1, bench.references(holder).unwrap_or(0), "owners", at)?;
            if let Some(seen) = bench.controls.translate(bench.table, at) {
                let writable = seen.is_some_and(|seen| seen.writable);
                ensure_at(writable, "an unfolded page can be written to", at)?;
            }
        }
        for frame in corners(bench, range) {
            bench.keep(frame, State::of(frame))?;
        }
        for frame in corners(bench, range) {
            keeps(bench, frame, State::of(frame))?;
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn neighbours_of_what_is_folded_stay_as_they_are<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges, _) = whole_leaf(bench, FEW)?;
    let [range] = ranges;
    let quarter = range.frames() / 4;
    let some = part(range, quarter, quarter);
    let others = [
        part(range, 0, quarter),
        part(range, 2 * quarter, 2 * quarter),
    ];
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, true)?)?;
        let before = bench.audit()?;
        for other in others {
            for frame in corners(bench, other) {
                bench.keep(frame, State::of(frame))?;
            }
        }
        let fingerprints = [bench.fingerprint(others[0])?, bench.fingerprint(others[1])?];
        let compound = bench.sharing(&ranges, order, tails)?;
        for step in 0..2 {
            let _ = match step {
                0 => bench.fold(&compound, some)?,
                _ => bench.unfold(&compound, some)?,
            };
            bench.described(some, order)?;
            for (other, fingerprint) in others.into_iter().zip(fingerprints) {
                equal(fingerprint, bench.fingerprint(other)?, "what is beside it")?;
                for frame in corners(bench, other) {
                    keeps(bench, frame, State::of(frame))?;
                }
            }
        }
        bench.costs(bench.pages(range), bench.pages(range))?;
        // Asked for all of it, unfold brings the leaf back, and copies what others have written.
        let _ = bench.unfold(&compound, range)?;
        equal(
            before.frames(),
            bench.audit()?.frames(),
            "frames and tables of the start",
        )?;
        for other in others {
            for frame in corners(bench, other) {
                keeps(bench, frame, State::of(frame))?;
            }
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn tails_in_memory_of_boot_are_initialised_when_it_is_folded<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    // Some of it came online at boot, the rest with the device; used since, by somebody.
    let boot = [bench.blocks(order, 0, 3)?];
    let device = [bench.blocks(order, 3, 5)?];
    for tails in TAILS {
        let early = bench.online(&base_pages(bench, &boot, false)?)?;
        let late = bench.online(&base_pages(bench, &device, false)?)?;
        let page = bench.model.descriptors_per_page();
        let per_compound = bench.model.vmemmap_pages(order);
        for index in (0..bench.pages(range)).filter(|index| index % per_compound != 0) {
            for frame in 0..page {
                let frame = part(range, index * page + frame, 1).start();
                bench.keep(frame, State::of(frame))?;
            }
        }
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        for step in 0..2 {
            let _ = match step {
                0 => bench.fold(&compound, range)?,
                _ => bench.unfold(&compound, range)?,
            };
            bench.described(range, order)?;
            for index in (0..bench.pages(range)).filter(|index| index % per_compound != 0) {
                for frame in 0..page {
                    let frame = part(range, index * page + frame, 1).start();
                    keeps(bench, frame, State::new(true))?;
                }
            }
        }
        let pagemap = base_pages(bench, &ranges, false)?;
        let reshaped = bench.vmemmap.reshape(bench.table, &pagemap, range);
        let at = bench.address(range.start())?;
        bench.expect_at(reshaped, "unfolded pages can be taken apart", at)?;
        bench.described(range, Order::BASE)?;
        bench.offline(early);
        bench.offline(late);
    }
    Ok(())
}
