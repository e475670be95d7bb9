//! Who lives next door.

use super::{Sizes, Testbed};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::{Leaf, Role};

/// What is mapped in the vmemmap beside the memory under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Nothing.
    Nobody,
    /// A base page of somebody else's.
    ForeignPage,
    /// A huge leaf of somebody else's.
    ForeignHugeLeaf,
    /// Somebody else's tables, with nothing in them.
    ForeignTables,
    /// Base pages of this library's.
    BasePages,
    /// Compound pages of another order.
    OtherOrder,
    /// Compound pages on another node.
    OtherNode,
}

impl Neighbour {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Nobody,
        Self::ForeignPage,
        Self::ForeignHugeLeaf,
        Self::ForeignTables,
        Self::BasePages,
        Self::OtherOrder,
        Self::OtherNode,
    ];

    /// Moves in to `frames`, which are [`Sizes::small`] blocks; a huge leaf takes all that the leaf
    /// table that describes them does, and whoever else needs less moves to the last of them.
    pub fn move_in(self, bed: &mut dyn Testbed<'_>, frames: PfnRange) -> OnlineNeighbour {
        let tenant = OnlineNeighbour { kind: self, frames };
        let at = bed.address_of(frames.last());
        let model = bed.model();
        let page = model.granule().shift();
        match self {
            Self::Nobody => {}
            Self::ForeignPage => {
                let leaf = foreign(Order::BASE);
                assert!(
                    bed.map_foreign(at.align_down(page), leaf),
                    "a place for a page"
                );
            }
            Self::ForeignHugeLeaf => {
                let leaf = foreign(bed.huge_leaf().unwrap_or(Sizes::of(model).natural()));
                let span = page + u32::from(leaf.block.order().get());
                let planted = bed.map_foreign(at.align_down(span), leaf);
                assert!(planted, "a place for a huge leaf");
            }
            Self::ForeignTables => {
                let planted = bed.link_foreign_tables(at);
                assert_eq!(planted, bed.has_tables(), "a place for tables");
            }
            Self::BasePages | Self::OtherOrder | Self::OtherNode => {
                tenant.with_pagemap(bed, |bed, pagemap| {
                    bed.populate(pagemap, frames).map(drop).unwrap();
                });
            }
        }
        tenant
    }
}

/// Frame 7, or the block that has it: memory that nobody looks into.
fn foreign(order: Order) -> Leaf {
    let first = Pfn::ZERO.saturating_add(7).align_down(order);
    Leaf {
        block: mm_core::addr::Block::new(first, order).unwrap(),
        role: Role::Foreign,
        writable: true,
    }
}

/// What a neighbour has online.
#[derive(Debug)]
#[must_use = "it has to go offline before the end"]
pub struct OnlineNeighbour {
    kind: Neighbour,
    frames: PfnRange,
}

impl OnlineNeighbour {
    fn with_pagemap(
        &self,
        bed: &mut dyn Testbed<'_>,
        act: impl FnOnce(&mut dyn Testbed<'_>, &DevPagemap<'_>),
    ) {
        let model = bed.model();
        let ranges = [self.frames];
        let order = match self.kind {
            Neighbour::BasePages => Order::BASE,
            _ => Sizes::of(model).small(),
        };
        let node = match self.kind {
            Neighbour::OtherNode => NodeId::new(1),
            _ => NodeId::new(0),
        };
        let pagemap = DevPagemap::new(&model, &ranges, Geometry::compound(order));
        let pagemap = pagemap.unwrap().with_node(node).with_huge_leaves(false);
        act(bed, &pagemap);
    }

    /// Moves out again. What it had in the vmemmap has to be as it was.
    pub fn move_out(self, bed: &mut dyn Testbed<'_>) {
        let at = bed.address_of(self.frames.last());
        match self.kind {
            Neighbour::Nobody => {}
            Neighbour::ForeignPage | Neighbour::ForeignHugeLeaf => {
                let leaf = bed.leaf(at);
                assert!(leaf.is_some_and(|leaf| !leaf.owned), "{leaf:?}");
                bed.unmap_foreign(at);
            }
            Neighbour::ForeignTables => bed.unmap_foreign(at),
            Neighbour::BasePages | Neighbour::OtherOrder | Neighbour::OtherNode => {
                let order = match self.kind {
                    Neighbour::BasePages => Order::BASE,
                    _ => Sizes::of(bed.model()).small(),
                };
                bed.assert_described(self.frames, order);
                self.with_pagemap(bed, |bed, pagemap| {
                    bed.depopulate(pagemap, self.frames).unwrap();
                });
            }
        }
    }
}
