//! What is tried beside readers.

use super::PARTS;
use crate::case::{whole_blocks, with_packed_heads, with_small_leaves, with_tails_per_compound};
use crate::{Case, TableShape, ram_case};
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Tables, Tails};

/// Base pages, and pages of each of `compound`, with each policy: memory of `device` in parts that come
/// and go as a whole. What the device is too small for is left out.
///
/// Base pages are few, since the owner writes to each of them.
pub(super) fn reader_cases<'c>(
    model: &'c MemoryModel,
    shape: &'c TableShape,
    device: PfnRange,
    compound: &'c [Order],
) -> impl Iterator<Item = Case> + Clone + 'c {
    let of = move |order: Order, part: u64| {
        let device = whole_blocks(device, order.max(model.section()))?;
        let frames = part.checked_mul(PARTS)?;
        let range = device.take_first(frames).0;
        let case = Case {
            page_bytes: order.bytes(model.granule())?,
            order,
            range,
            ..ram_case(model, shape, range)
        };
        Some(case).filter(|_| range.frames() == frames)
    };
    // Parts of a huge leaf, which is split by the first that goes.
    let huge = of(Order::BASE, model.section().frames() / PARTS);
    let small = of(Order::BASE, model.subsection().frames()).map(with_small_leaves);
    let compound = compound.iter().flat_map(move |&order| {
        let whole = of(order, order.max(model.section()).frames());
        let per_compound = whole.map(with_tails_per_compound);
        let per_order = per_compound.map(|case| Case {
            tails: Tails::PerOrder,
            ..case
        });
        let with_tables = |case: Option<Case>| {
            let shared = case.map(|case| Case {
                tables: Tables::Shared,
                ..case
            });
            shared.filter(|case| case.shares_tables(model, shape))
        };
        let packed = whole.filter(|case| model.can_pack_heads(case.order));
        let packed = packed.map(with_packed_heads);
        [
            whole,
            whole.map(with_small_leaves),
            per_compound,
            with_tables(per_compound),
            per_order,
            with_tables(per_order),
            packed,
            with_tables(packed),
        ]
    });
    [huge, small].into_iter().chain(compound).flatten()
}
