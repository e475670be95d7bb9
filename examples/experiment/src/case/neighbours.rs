//! Regions of several geometries and policies side by side.

use super::{
    Case, CaseList, Leaves, described_by_leaf, ram_case, with_small_leaves, with_tails_per_compound,
};
use crate::TableShape;
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tails};

/// How many regions there are.
pub(crate) const REGIONS: usize = 7;

/// Memory of somebody else's, in units of the smallest compound page that shares tails.
const FOREIGN: u64 = 10;

/// A region, in units.
struct Place {
    first: u64,
    units: u64,
    /// How much larger its compound pages are than a unit, as an order, and how tails are shared;
    /// `None` for base pages.
    compound: Option<(u8, Tails)>,
}

const fn place(first: u64, units: u64, compound: Option<(u8, Tails)>) -> Place {
    Place {
        first,
        units,
        compound,
    }
}

/// ```text
///   0    1     2           4                       8           10      11   12
///   |base| 1 c |    2 o    |          4 c          | 1 o | 1 o |foreign|base|    c: tails per compound page
///                                                                                o: one for all of the order
/// ```
const LAYOUT: [Place; REGIONS - 1] = [
    place(0, 1, None),
    place(1, 1, Some((0, Tails::PerCompound))),
    place(2, 2, Some((1, Tails::PerOrder))),
    place(4, 4, Some((2, Tails::PerCompound))),
    place(8, 2, Some((0, Tails::PerOrder))),
    place(11, 1, None),
];

/// How much the first unit is aligned to, and all of them together, as orders more than a unit's.
const ALIGNED: u8 = 2;
const UNITS: u64 = 12;

/// The regions, and memory between them that is somebody else's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbours {
    pub(crate) regions: CaseList<REGIONS>,
    pub(crate) foreign: PfnRange,
}

impl Neighbours {
    /// On memory of `device`; `None` where that is too little. Behind the others is base pages
    /// mapped by a huge leaf, where there is memory for one.
    pub(crate) fn of(model: &MemoryModel, shape: &TableShape, device: PfnRange) -> Option<Self> {
        let unit = smallest_sharing(model)?;
        let aligned = super::whole_blocks(device, larger(unit, ALIGNED)?)?;
        let units = |first: u64, count: u64| {
            let range = aligned
                .split_at(first * unit.frames())
                .1
                .or(Some(aligned))?;
            let range = range.take_first(count * unit.frames()).0;
            (range.frames() == count * unit.frames()).then_some(range)
        };
        let base = |range| with_small_leaves(ram_case(model, shape, range));
        let mut regions = CaseList::new(base(units(0, UNITS)?));
        for Place {
            first,
            units: count,
            compound,
        } in LAYOUT
        {
            let base = base(units(first, count)?);
            regions.add(match compound {
                None => base,
                Some((more, tails)) => {
                    let order = larger(unit, more)?;
                    let page_bytes = order.bytes(model.granule())?;
                    Case {
                        page_bytes,
                        order,
                        tails,
                        ..with_tails_per_compound(base)
                    }
                }
            });
        }
        let behind = aligned.split_at(UNITS * unit.frames()).1;
        let leaf = described_by_leaf(model, shape)?;
        if let Some(range) = behind.and_then(|behind| super::whole_blocks(behind, leaf)) {
            regions.add(Case {
                leaves: Leaves::Huge,
                piece: Piece::Range,
                ..base(range.take_first(leaf.frames()).0)
            });
        }
        Some(Self {
            regions,
            foreign: units(FOREIGN, 1)?,
        })
    }
}

fn larger(order: Order, more: u8) -> Option<Order> {
    Order::new(order.get().checked_add(more)?)
}

/// The smallest compound pages of whole subsections that share tails of their own.
fn smallest_sharing(model: &MemoryModel) -> Option<Order> {
    let mut order = model.subsection();
    while model.vmemmap_pages(order) < 4 {
        order = larger(order, 1)?;
    }
    Some(order)
}
