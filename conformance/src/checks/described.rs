//! What descriptors say at first.

use super::fold::TAILS;
use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, equal, fail};
use mm_core::addr::Order;
use mm_core::descriptor::Mask;
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::pagemap::Tails;

/// Writes all over frames that are then free again, so that the next to be handed out have
/// something in them.
fn soil_free_frames<H: Harness>(bench: &Bench<'_, H, Mask>) -> Verdict {
    let mut taken = [None; 64];
    for slot in &mut taken {
        let Ok(run) = bench.frames.allocate_run(8, bench.node) else {
            return fail("there are frames");
        };
        *slot = Some(run);
    }
    for run in taken.into_iter().flatten() {
        for index in 0..run.frames() {
            let page = bench
                .direct_map
                .frame_pointer(run.start().saturating_add(index));
            // SAFETY: the frame was allocated just now, and the direct map reaches it.
            unsafe { page.write_bytes(0xa5, bench.model.granule().bytes() as usize) };
        }
        // SAFETY: 1 and 2: allocated above, one reference each, and mapped nowhere.
        let _ = unsafe { bench.frames.release_run(run) };
    }
    Ok(())
}

pub(super) fn descriptors_are_blank_whatever_their_frames_held<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    let range = bench.blocks(small, 0, 3)?;
    let ranges = [range];
    let pair = Order::new(1).unwrap_or(small);
    for (order, tails) in [
        (Order::BASE, Tails::None),
        (pair, Tails::None),
        (small, Tails::None),
        (small, Tails::PerCompound),
        (small, Tails::PerOrder),
    ] {
        soil_free_frames(bench)?;
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let region = bench.online(&pagemap.with_huge_leaves(false))?;
        bench.described_as_new(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn tails_beside_memory_of_boot_are_initialised<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    // Some subsections of a section came online at boot, as base pages; the device has the others.
    let boot = [bench.blocks(order, 0, 1)?, bench.blocks(order, 4, 1)?];
    let device = [bench.blocks(order, 1, 3)?, bench.blocks(order, 5, 2)?];
    let pagemap = bench.pagemap(&boot, Order::BASE)?.with_huge_leaves(false);
    let early = bench.online(&pagemap)?;
    let pictures = [bench.picture(boot[0])?, bench.picture(boot[1])?];
    for tails in TAILS {
        for piece in super::online::PIECES {
            soil_free_frames(bench)?;
            let pagemap = bench.sharing(&device, order, tails)?.with_piece(piece);
            let late = bench.online(&pagemap)?;
            for range in device {
                bench.described_as_new(range, order)?;
            }
            for (boot, picture) in boot.into_iter().zip(pictures) {
                bench.described_as_new(boot, Order::BASE)?;
                equal(picture, bench.picture(boot)?, "memory of boot")?;
            }
            bench.offline(late);
        }
    }
    bench.offline(early);
    Ok(())
}
