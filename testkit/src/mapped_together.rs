//! What a page table maps together: by a huge leaf, or by a table that is linked elsewhere too.

use mm_core::addr::{Order, VirtRange};
use mm_core::paging::{PageTable, Visit};
use std::ops::ControlFlow;

/// Whether `page` is mapped together with others.
pub(crate) fn maps_together(table: &impl PageTable, page: VirtRange) -> bool {
    let found = table.visit(page, &mut |visit| match visit {
        Visit::SharedTable { .. } => ControlFlow::Break(()),
        Visit::Leaves { run, .. } if run.leaf.block.order() > Order::BASE => ControlFlow::Break(()),
        Visit::Leaves { .. } | Visit::Table { .. } => ControlFlow::Continue(()),
    });
    found.is_break()
}
