//! What is tried: geometries and policies on ranges.

mod fold;
mod list;
mod neighbours;
mod packed;

pub(crate) use fold::{Fold, described_by_leaf, folds};
pub(crate) use list::CaseList;
pub(crate) use neighbours::{Neighbours, REGIONS};
pub(crate) use packed::{packed_cases, with_packed_heads};

use crate::TableShape;
use crate::padding::pad;
use core::fmt;
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, PagemapError, Piece, Tables, Tails};

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
    /// Where heads are. Where they are packed, tails are shared per order.
    pub heads: Heads,
    /// How tails are shared.
    pub tails: Tails,
    /// Whether tables are.
    pub tables: Tables,
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
            .with_heads(self.heads)
            .with_tables(self.tables)
            .with_huge_leaves(self.leaves == Leaves::Huge)
            .with_piece(self.piece);
        // Base pages have no tails, and to ask for shared ones is reported.
        Ok(match self.order {
            Order::BASE => pagemap,
            _ => pagemap.with_tails(self.tails),
        })
    }

    /// Whether vmemmap pages of tails are one frame. Where that would save nothing it is not done:
    /// where the descriptors of a compound page fill one vmemmap page, or two and the tail
    /// frame is its own.
    pub fn shares_tails(&self, model: &MemoryModel) -> bool {
        let worth = match self.tails {
            Tails::PerCompound => 3,
            Tails::PerOrder => 2,
            _ => return false,
        };
        model.vmemmap_pages(self.order) >= worth
    }

    /// Whether leaf tables of nothing but the same tail are one table: where a compound page's
    /// descriptors fill two tables or more. Stubs run on from page to page, so it is enough that those of the
    /// range fill some.
    pub fn shares_tables(&self, model: &MemoryModel, shape: &TableShape) -> bool {
        if self.heads == Heads::Packed {
            return self.tables == Tables::Shared && packed::whole_tables(self, model, shape) > 0;
        }
        let tables = (self.order.frames() * model.descriptor_bytes()) >> shape.leaf_span();
        self.tables == Tables::Shared && self.shares_tails(model) && tables >= 2
    }

    /// Whether it takes descriptors whose tails are the same for all compound pages of an order.
    pub fn needs_same_tails(&self) -> bool {
        self.tails == Tails::PerOrder
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

/// A policy for tails, as it is printed, and whether heads are packed, which decides on tails too.
pub(crate) struct TailsName(pub(crate) Heads, pub(crate) Tails);

impl fmt::Display for TailsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(heads, tails) = self;
        if *heads == Heads::Packed {
            return f.pad("packed heads");
        }
        f.pad(match tails {
            Tails::None => "none",
            Tails::PerCompound => "per compound",
            Tails::PerOrder => "per order",
            _ => "other",
        })
    }
}

/// A policy for tables, as it is printed.
pub(crate) fn tables_name(tables: Tables) -> &'static str {
    match tables {
        Tables::Shared => "shared",
        _ => "private",
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            "{:<5} {:<13} {:<8} {leaves:<6} {piece:<10}",
            Size(self.page_bytes),
            TailsName(self.heads, self.tails),
            tables_name(self.tables),
        )
    }
}

/// How much has to be populated at a time for huge leaves: a section, unless one leaf describes
/// more.
fn piece_for_huge_leaves(model: &MemoryModel, shape: &TableShape) -> Piece {
    if model.section().frames() * model.descriptor_bytes() < 1 << shape.leaf_span() {
        Piece::Range
    } else {
        Piece::Section
    }
}

/// RAM itself: base pages, mapped by huge leaves.
pub fn ram_case(model: &MemoryModel, shape: &TableShape, range: PfnRange) -> Case {
    Case {
        page_bytes: model.granule().bytes(),
        order: Order::BASE,
        heads: Heads::InPlace,
        tails: Tails::None,
        tables: Tables::Private,
        leaves: Leaves::Huge,
        piece: piece_for_huge_leaves(model, shape),
        range,
    }
}

/// The cases for the device memory `device`, used in base pages and in compound pages of each of
/// `compound` orders.
///
/// Each geometry takes as much of the device as it can. Besides, base pages and the first compound
/// order are tried on a range that starts and ends inside sections, and what is shared further is
/// tried on the memory of one compound page of the largest order too. A compound page that the
/// device is too small for is left out.
pub fn cases<'c>(
    model: &'c MemoryModel,
    shape: &'c TableShape,
    device: PfnRange,
    compound: &'c [Order],
) -> impl Iterator<Item = Case> + Clone + 'c {
    let subsection = model.subsection();
    let of = move |order: Order, range: PfnRange| {
        let unit = order.max(subsection);
        Some(Case {
            page_bytes: order.bytes(model.granule())?,
            order,
            range: whole_blocks(range, unit)?,
            ..ram_case(model, shape, range)
        })
    };
    let odd = move || {
        let device = whole_blocks(device, subsection)?;
        let inner = device.split_at(subsection.frames()).1?;
        let frames = 2 * model.section().frames() + 3 * subsection.frames();
        Some(inner.take_first(frames).0)
    };
    let base_pages = [Some(device), odd()]
        .into_iter()
        .flatten()
        .filter_map(move |range| of(Order::BASE, range))
        .flat_map(|case| [case, with_small_leaves(case)]);
    let compound_pages = compound
        .iter()
        .enumerate()
        .flat_map(move |(index, &order)| {
            let whole = of(order, device);
            let shared = whole.map(with_tails_per_compound);
            let by_subsections = shared.map(|case| Case {
                piece: Piece::Subsection,
                ..case
            });
            let odd = odd().filter(|_| index == 0);
            let odd = odd.and_then(|range| of(order, range));
            let odd = odd.map(with_tails_per_compound);
            [shared, by_subsections, odd, whole].into_iter().flatten()
        });
    let little = compound.iter().filter_map(move |&order| {
        let case = of(order, device)?;
        let frames = compound.iter().max().unwrap_or(&order).frames();
        Some(Case {
            range: case.range.take_first(frames).0,
            ..case
        })
    });
    let little_by_itself = little.clone().map(with_tails_per_compound);
    let all = compound.iter().filter_map(move |&order| of(order, device));
    let shared_further = little.chain(all).flat_map(move |case| {
        let per_compound = with_tails_per_compound(case);
        let per_order = Case {
            tails: Tails::PerOrder,
            ..per_compound
        };
        let with_tables = |case: Case| {
            let case = Case {
                tables: Tables::Shared,
                ..case
            };
            Some(case).filter(|case| case.shares_tables(model, shape))
        };
        let cases = [
            with_tables(per_compound),
            Some(per_order),
            with_tables(per_order),
        ];
        cases.into_iter().flatten()
    });
    base_pages
        .chain(compound_pages)
        .chain(little_by_itself)
        .chain(shared_further)
}

pub(crate) fn with_small_leaves(case: Case) -> Case {
    Case {
        leaves: Leaves::Small,
        piece: Piece::Section,
        ..case
    }
}

pub(crate) fn with_tails_per_compound(case: Case) -> Case {
    Case {
        tails: Tails::PerCompound,
        leaves: Leaves::Small,
        piece: Piece::Section,
        ..case
    }
}

/// The part of `range` that is whole blocks of `unit`.
pub(crate) fn whole_blocks(range: PfnRange, unit: Order) -> Option<PfnRange> {
    let block = unit.frames();
    let start = range.start().get().checked_next_multiple_of(block)?;
    let end = (range.last().get() + 1) & !(block - 1);
    let start = mm_core::addr::Pfn::new(start)?;
    PfnRange::new(start, end.checked_sub(start.get())?).ok()
}
