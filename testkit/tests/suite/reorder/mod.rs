//! Pages that are online become pages of another order.

mod contents;
mod mixture;
mod orders;
mod parts;
mod reserve;

use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::vmemmap::{ReorderStopped, Reordered};
use testkit::testbed::{Testbed, Used, pagemap};

const NODE: NodeId = NodeId::new(0);

/// How memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    order: Order,
    tails: Tails,
    tables: Tables,
    huge_leaves: bool,
}

impl Form {
    fn new(order: Order, tails: Tails, tables: Tables) -> Self {
        Self {
            order,
            tails,
            tables,
            huge_leaves: true,
        }
    }

    fn pagemap<'p>(&self, model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
        pagemap(model, ranges, self.order, self.tails)
            .with_tables(self.tables)
            .with_piece(Piece::Range)
            .with_huge_leaves(self.huge_leaves)
    }

    fn used(&self, frames: PfnRange) -> Used {
        Used {
            frames,
            order: self.order,
            tails: self.tails,
            huge_leaves: self.huge_leaves,
        }
    }
}

/// Fills the reserve with what is needed, changes orders with an allocator that refuses everything, and
/// empties the reserve.
fn reorder(
    bed: &mut dyn Testbed<'_>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
    largest: Order,
) -> Result<Reordered, ReorderStopped> {
    let needed = bed.reserve_needed(pagemap, frames, largest);
    let notes = bed.fill_reserve(NODE, needed).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let done = without_allocator(bed, |bed| bed.reorder(pagemap, frames));
    bed.empty_reserve();
    done
}

/// What `work` does while the allocator refuses everything. It must not be asked for anything, and must
/// get nothing back.
fn without_allocator<T>(
    bed: &mut dyn Testbed<'_>,
    work: impl FnOnce(&mut dyn Testbed<'_>) -> T,
) -> T {
    let before = (bed.frames().allocations(), bed.frames().outstanding());
    bed.frames().fail_after(0);
    let done = work(bed);
    bed.frames().no_more_faults();
    let after = (bed.frames().allocations(), bed.frames().outstanding());
    assert_eq!(before, after, "nothing is allocated, and nothing freed");
    done
}
