//! Compound pages whose heads are packed.

use super::{Case, whole_blocks, with_tails_per_compound};
use crate::{TableShape, ram_case};
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Heads, Piece, Tables, Tails};

/// The same with packed heads.
pub(crate) fn with_packed_heads(case: Case) -> Case {
    Case {
        heads: Heads::Packed,
        tails: Tails::PerOrder,
        ..with_tails_per_compound(case)
    }
}

/// Pages of each of `compound` on as much of `device` as they fill, in private tables and, where stubs fill some, in
/// shared ones; at once, and in the smallest pieces.
pub(crate) fn packed_cases<'c>(
    model: &'c MemoryModel,
    shape: &'c TableShape,
    device: PfnRange,
    compound: &'c [Order],
) -> impl Iterator<Item = Case> + 'c {
    let orders = compound
        .iter()
        .filter(|order| model.can_pack_heads(**order));
    let whole = orders.filter_map(move |&order| {
        let range = whole_blocks(device, order.max(model.subsection()))?;
        Some(with_packed_heads(Case {
            page_bytes: order.bytes(model.granule())?,
            order,
            ..ram_case(model, shape, range)
        }))
    });
    whole.flat_map(move |case| {
        let shared = Case {
            tables: Tables::Shared,
            ..case
        };
        let cases = [
            Some(case),
            Some(shared).filter(|case| case.shares_tables(model, shape)),
        ];
        let pieces =
            |case: Case| [Piece::Range, Piece::Subsection].map(|piece| Case { piece, ..case });
        cases.into_iter().flatten().flat_map(pieces)
    })
}

/// How many leaf tables map nothing but stubs of the case.
pub(super) fn whole_tables(case: &Case, model: &MemoryModel, shape: &TableShape) -> u64 {
    let bytes = model.descriptor_bytes();
    let (first, end) = (
        case.range.start().get() * bytes,
        (case.range.last().get() + 1) * bytes,
    );
    // The vmemmap begins where an entry of the root does.
    (end >> shape.leaf_span()).saturating_sub(first.div_ceil(1 << shape.leaf_span()))
}
