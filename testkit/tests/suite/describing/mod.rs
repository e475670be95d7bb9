//! How much memory is described at once: by stores past the caches, and by CPUs that help.

mod streams;
mod workers;

use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};

/// From how many bytes on others are asked.
const SHARED: u64 = 1 << 20;

/// Pages whose descriptors fill eight vmemmap pages.
fn compound(model: &MemoryModel) -> Order {
    Order::new(model.vmemmap_page_order().get() + 3).unwrap()
}

/// Memory in pages of `order` that needs `frames` frames for descriptors, from its second section on.
fn memory(model: &MemoryModel, order: Order, tails: Tails, frames: u64) -> PfnRange {
    let each = match tails {
        Tails::None => model.vmemmap_pages(order),
        Tails::PerCompound => 2,
        _ => 1,
    };
    let described = model.vmemmap_pages(order) * model.descriptors_per_page();
    let start = Pfn::new(model.section().frames().max(described)).unwrap();
    PfnRange::new(start, frames / each * described).unwrap()
}

fn pagemap<'p>(
    model: &'p MemoryModel,
    ranges: &'p [PfnRange],
    order: Order,
    tails: Tails,
) -> DevPagemap<'p> {
    let geometry = match order {
        Order::BASE => Geometry::BASE_PAGES,
        order => Geometry::compound(order),
    };
    let pagemap = DevPagemap::new(model, ranges, geometry).unwrap();
    pagemap.with_tails(tails).with_piece(Piece::Range)
}
