//! What is tried: geometries and policies on ranges.

use crate::padding::pad;
use core::fmt;
use mm_core::addr::{Granule, Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Piece, Tails};

/// What maps descriptors that are not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Huge leaves where they fit.
    Huge,
    /// Base pages.
    Small,
}

/// One geometry and policy on one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The size of the pages that the memory is used in, in bytes.
    pub page_bytes: u64,
    /// The same, as an order.
    pub order: Order,
    /// How tails are shared.
    pub tails: Tails,
    /// What maps descriptors that are not shared.
    pub leaves: Leaves,
    /// How much is populated at a time.
    pub piece: Piece,
    /// The memory.
    pub range: PfnRange,
}

impl Case {
    /// What the case asks for.
    ///
    /// # Errors
    ///
    /// As for [`DevPagemap::new`].
    pub fn pagemap<'c>(&'c self, model: &MemoryModel) -> Result<DevPagemap<'c>, PagemapError> {
        let ranges = core::slice::from_ref(&self.range);
        let pagemap = DevPagemap::new(model, ranges, Geometry::compound(self.order))?
            .with_huge_leaves(self.leaves == Leaves::Huge)
            .with_piece(self.piece);
        // Base pages have no tails, and to ask for shared ones is reported.
        Ok(match self.order {
            Order::BASE => pagemap,
            _ => pagemap.with_tails(self.tails),
        })
    }

    /// Whether vmemmap pages of tails are one frame. Where the descriptors of a compound page fill two vmemmap pages or
    /// fewer, that would save nothing and is not done.
    pub fn shares_tails(&self, model: &MemoryModel) -> bool {
        self.tails != Tails::None && model.vmemmap_pages(self.order) > 2
    }
}

/// Bytes in the largest unit that divides them.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, 'G'), (20, 'M'), (10, 'K')];
        let unit = units
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((shift, unit)) => pad(f, format_args!("{}{unit}", self.0 >> shift)),
            None => pad(f, format_args!("{}", self.0)),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tails = match self.tails {
            Tails::None => "none",
            Tails::PerCompound => "per compound",
            _ => "other",
        };
        let leaves = match (self.leaves, self.tails) {
            (Leaves::Huge, Tails::None) => "huge",
            _ => "small",
        };
        let piece = match self.piece {
            Piece::Subsection => "subsection",
            Piece::Section => "section",
            Piece::Range => "range",
        };
        write!(
            f,
            "{:<5} {tails:<13} {leaves:<6} {piece:<10}",
            Size(self.page_bytes)
        )
    }
}

/// RAM itself: base pages, mapped by huge leaves.
pub fn ram_case(granule: Granule, range: PfnRange) -> Case {
    Case {
        page_bytes: granule.bytes(),
        order: Order::BASE,
        tails: Tails::None,
        leaves: Leaves::Huge,
        piece: Piece::Section,
        range,
    }
}

/// The cases for the device memory `device`, used in base pages and in compound pages of each of `compound` orders.
///
/// Each geometry takes as much of the device as it can; base pages and the smallest compound page are tried besides on a range
/// that starts and ends inside sections. A compound page that the device is too small for is left out.
pub fn cases<'c>(
    model: &'c MemoryModel,
    device: PfnRange,
    compound: &'c [Order],
) -> impl Iterator<Item = Case> + Clone + 'c {
    let subsection = model.subsection();
    let of = move |order: Order, range: PfnRange| {
        let unit = order.max(subsection);
        Some(Case {
            page_bytes: order.bytes(model.granule())?,
            order,
            tails: Tails::None,
            leaves: Leaves::Huge,
            piece: Piece::Section,
            range: whole_blocks(range, unit)?,
        })
    };
    let odd = move || {
        let device = whole_blocks(device, subsection)?;
        let inner = device.split_at(subsection.frames()).1?;
        let frames = 2 * model.section().frames() + 3 * subsection.frames();
        Some(inner.take_first(frames).0)
    };
    let shared = |case: Case| Case {
        tails: Tails::PerCompound,
        leaves: Leaves::Small,
        ..case
    };
    let base_pages = [Some(device), odd()]
        .into_iter()
        .flatten()
        .filter_map(move |range| of(Order::BASE, range))
        .flat_map(|case| {
            let small = Case {
                leaves: Leaves::Small,
                ..case
            };
            [case, small]
        });
    let compound_pages = compound
        .iter()
        .enumerate()
        .flat_map(move |(index, &order)| {
            let whole = of(order, device);
            let odd = odd().filter(|_| index == 0);
            let odd = odd.and_then(|range| of(order, range)).map(shared);
            let by_subsections = whole.map(|case| Case {
                piece: Piece::Subsection,
                ..shared(case)
            });
            [whole.map(shared), by_subsections, odd, whole]
                .into_iter()
                .flatten()
        });
    base_pages.chain(compound_pages)
}

/// The part of `range` that is whole blocks of `unit`.
fn whole_blocks(range: PfnRange, unit: Order) -> Option<PfnRange> {
    let block = unit.frames();
    let start = range.start().get().checked_next_multiple_of(block)?;
    let end = (range.last().get() + 1) & !(block - 1);
    let start = mm_core::addr::Pfn::new(start)?;
    PfnRange::new(start, end.checked_sub(start.get())?).ok()
}
