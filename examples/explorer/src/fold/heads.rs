//! Whether pages have the heads that they should have, by the descriptors that a kernel sees.

use crate::simulation::MachineVmemmap;
use hosted::AnyTable;
use mm_core::addr::{Order, Pfn, PfnRange};

/// The first frame of `parts` whose head is not that of a page of `order`.
///
/// In each compound page of the order `within` looks at the frames at the ends of what has
/// a descriptor page of its own: the first and the second frame, the first of the second
/// vmemmap page, and the last.
pub(crate) fn first_wrong(
    vmemmap: &MachineVmemmap<'_>,
    table: &AnyTable<'_>,
    parts: impl Iterator<Item = PfnRange>,
    within: Order,
    order: Order,
) -> Option<Pfn> {
    let last = within.frames() - 1;
    let second_page = vmemmap.model().descriptors_per_page().min(last);
    let looked_at = [0, last.min(1), second_page, last];
    parts
        .flat_map(|part| {
            let heads = (0..part.frames()).step_by(within.frames() as usize);
            heads.map(move |offset| part.start().saturating_add(offset))
        })
        .flat_map(|head| looked_at.map(|index| head.saturating_add(index)))
        .find(|frame| vmemmap.head_of(table, *frame) != Some(frame.align_down(order)))
}
