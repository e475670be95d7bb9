//! What is to be brought online, and how: ranges, compound size, policies.

mod altmap;

use crate::addr::{Granule, NodeId, Order, PfnRange, RangeError};
use crate::error::ErrorKind;
use crate::frame::Altmap;
use crate::model::MemoryModel;
use core::fmt;

/// The size of the pages that memory is used in.
///
/// Base pages, or compound pages of one order. [`from_bytes`](Self::from_bytes) names it by size: with 4 KiB
/// pages the natural ones are 4 KiB, 2 MiB and 1 GiB, and any power of two between works too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Geometry(Order);

impl Geometry {
    /// Base pages.
    pub const BASE_PAGES: Self = Self(Order::BASE);

    /// Compound pages of `order`; base pages for [`Order::BASE`].
    pub const fn compound(order: Order) -> Self {
        Self(order)
    }

    /// Pages of `bytes` bytes on `granule`; `None` where that is not a power of two of base pages.
    pub const fn from_bytes(bytes: u64, granule: Granule) -> Option<Self> {
        match Order::from_bytes(bytes, granule) {
            Some(order) => Some(Self(order)),
            None => None,
        }
    }

    /// The order of each page.
    pub const fn order(self) -> Order {
        self.0
    }
}

/// What is shared between the vmemmap pages that hold only tail descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tails {
    /// Nothing: every vmemmap page has a frame of its own.
    None,
    /// One frame for each compound page.
    PerCompound,
    /// One read-only frame for all compound pages of an order on a node. For descriptors whose tails are the same for all
    /// ([`TailEncoding::SAME_FOR_ALL`](crate::descriptor::TailEncoding::SAME_FOR_ALL)).
    PerOrder,
}

/// What is shared between page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tables {
    /// Nothing: every table is linked once.
    Private,
    /// Leaf tables all of whose entries are the same tail frame: there is one for each tail frame.
    Shared,
}

/// How much is populated at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// A subsection.
    Subsection,
    /// A section, as memory hot-add does.
    Section,
    /// Each range in one go.
    Range,
}

/// Why a policy was not applied as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TailsFallback {
    /// Base pages have no tails.
    BasePages,
    /// The descriptors of a compound page fill too few vmemmap pages for a shared one to save any.
    NothingToSave {
        /// The order of the compound page.
        order: Order,
        /// How many vmemmap pages its descriptors fill.
        vmemmap_pages: u64,
    },
}

impl fmt::Display for TailsFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BasePages => f.write_str("base pages have no tails to share; tails: none"),
            Self::NothingToSave {
                order,
                vmemmap_pages,
            } => write!(
                f,
                "the descriptors of a compound page of order {order} fill {vmemmap_pages} vmemmap pages, too few to share tails; populated as base pages"
            ),
        }
    }
}

/// Why tables are not shared as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TablesFallback {
    /// No tails are shared, so no table is like another.
    NoSharedTails,
    /// The page table cannot link a table twice.
    NotSupported,
    /// The tails of a compound page do not fill a leaf table.
    NoWholeTable {
        /// The order of the compound page.
        order: Order,
    },
}

impl fmt::Display for TablesFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSharedTails => {
                f.write_str("no tails are shared, so neither are tables; tables: private")
            }
            Self::NotSupported => {
                f.write_str("the page table cannot share tables; tables: private")
            }
            Self::NoWholeTable { order } => write!(
                f,
                "the tails of a compound page of order {order} do not fill a leaf table; tables: private"
            ),
        }
    }
}

/// Why a [`DevPagemap`] is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PagemapError {
    /// There are no ranges.
    NoRanges,
    /// A range is not whole subsections, or not whole compound pages.
    Misaligned {
        /// The range.
        range: PfnRange,
        /// The order that start and length have to be multiples of.
        order: Order,
        /// The part of the range that could be brought online.
        aligned: Option<PfnRange>,
    },
    /// Two ranges have frames in common.
    Overlap {
        /// One range.
        first: PfnRange,
        /// The other.
        second: PfnRange,
    },
    /// The vmemmap has no room for a range.
    OutOfModel {
        /// The range.
        range: PfnRange,
        /// The frames that there is room for.
        room: PfnRange,
    },
    /// Compound pages larger than the model's largest.
    UnsupportedOrder {
        /// Their order.
        order: Order,
        /// The largest.
        max: Order,
    },
    /// The reserved part of an altmap is not the start of the first range.
    AltmapElsewhere {
        /// The reserved part.
        reserved: PfnRange,
        /// The first range.
        range: PfnRange,
    },
    /// The altmap, and what lies between it and the next multiple of the compound size, fill the first range.
    NoCompoundPage {
        /// How many frames are reserved.
        reserved: u64,
        /// The first range.
        range: PfnRange,
    },
    /// The first range is too small for an altmap.
    AltmapTooLarge {
        /// How many frames have to be reserved.
        reserved: u64,
        /// The first range.
        range: PfnRange,
    },
}

impl PagemapError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRanges => ErrorKind::Empty,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
            Self::Overlap { .. } => ErrorKind::Overlap,
            Self::OutOfModel { .. } => ErrorKind::OutOfRange,
            Self::UnsupportedOrder { .. } => ErrorKind::UnsupportedOrder,
            Self::AltmapElsewhere { .. } | Self::AltmapTooLarge { .. } => ErrorKind::OutOfRange,
            Self::NoCompoundPage { .. } => ErrorKind::NoCompoundPage,
        }
    }
}

impl fmt::Display for PagemapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRanges => f.write_str("no ranges; give at least one"),
            Self::Misaligned {
                range,
                order,
                aligned,
            } => {
                let frames = order.frames();
                write!(
                    f,
                    "{range} do not start and end at multiples of {frames:#x} frames; "
                )?;
                match aligned {
                    Some(part) => write!(f, "the aligned part is {part}"),
                    None => f.write_str("no part of them does"),
                }
            }
            Self::Overlap { first, second } => {
                write!(f, "{first} and {second} overlap; give each frame once")
            }
            Self::OutOfModel { range, room } => {
                write!(f, "{range} are outside the vmemmap, which is for {room}")
            }
            Self::UnsupportedOrder { order, max } => write!(
                f,
                "compound pages of order {order} are larger than the model's largest, order {max}"
            ),
            Self::AltmapElsewhere { reserved, range } => write!(
                f,
                "{reserved}, reserved for the altmap, are not the start of the first range, {range}"
            ),
            Self::NoCompoundPage { reserved, range } => write!(
                f,
                "an altmap of {reserved:#x} frames leaves no whole compound page of {range}; make the range larger or the compound pages smaller"
            ),
            Self::AltmapTooLarge { reserved, range } => write!(
                f,
                "an altmap of {reserved:#x} frames is larger than the first range, {range}"
            ),
        }
    }
}

impl core::error::Error for PagemapError {}

impl RangeError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Empty,
            Self::Overflow => ErrorKind::OutOfRange,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
        }
    }
}

/// Device memory to bring online, and how.
///
/// Made for one [`MemoryModel`], against which the ranges are checked once.
#[derive(Clone, Copy)]
pub struct DevPagemap<'p> {
    model: MemoryModel,
    ranges: &'p [PfnRange],
    geometry: Geometry,
    tails: Tails,
    tables: Tables,
    huge_leaves: bool,
    piece: Piece,
    node: NodeId,
    altmap: Option<&'p dyn Altmap>,
}

impl fmt::Debug for DevPagemap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevPagemap")
            .field("ranges", &self.ranges)
            .field("geometry", &self.geometry)
            .field("tails", &self.tails)
            .field("tables", &self.tables)
            .field("huge_leaves", &self.huge_leaves)
            .field("piece", &self.piece)
            .field("node", &self.node)
            .field("altmap", &self.altmap.map(Altmap::reserved))
            .finish_non_exhaustive()
    }
}

impl<'p> DevPagemap<'p> {
    /// The frames of `ranges`, in any order, used in pages of `geometry`.
    ///
    /// Tails are shared per compound page where there are any, tables are private, base pages are mapped by huge leaves where aligned, populated
    /// section by section, from node 0, without an altmap; the `with_` methods change that.
    ///
    /// # Errors
    ///
    /// [`PagemapError`] where there are no ranges, or one is not whole subsections and whole compound
    /// pages, overlaps another, or lies outside the model, or the compound pages are too large.
    pub fn new(
        model: &MemoryModel,
        ranges: &'p [PfnRange],
        geometry: Geometry,
    ) -> Result<Self, PagemapError> {
        let order = geometry.order();
        if order > model.max_order() {
            return Err(PagemapError::UnsupportedOrder {
                order,
                max: model.max_order(),
            });
        }
        if ranges.is_empty() {
            return Err(PagemapError::NoRanges);
        }
        let unit = order.max(model.subsection());
        let room = model.all_frames();
        for (index, &range) in ranges.iter().enumerate() {
            if !room.contains_range(range) {
                return Err(PagemapError::OutOfModel { range, room });
            }
            if !range.is_aligned(unit) {
                return Err(PagemapError::Misaligned {
                    range,
                    order: unit,
                    aligned: aligned_part(range, unit),
                });
            }
            let earlier = ranges.iter().take(index);
            if let Some(&first) = earlier
                .copied()
                .find(|other| other.overlaps(range))
                .as_ref()
            {
                return Err(PagemapError::Overlap {
                    first,
                    second: range,
                });
            }
        }
        let tails = if order == Order::BASE {
            Tails::None
        } else {
            Tails::PerCompound
        };
        Ok(Self {
            model: *model,
            ranges,
            geometry,
            tails,
            tables: Tables::Private,
            huge_leaves: true,
            piece: Piece::Section,
            node: NodeId::default(),
            altmap: None,
        })
    }

    /// Shares tails as `tails` says.
    pub const fn with_tails(self, tails: Tails) -> Self {
        Self { tails, ..self }
    }

    /// Shares tables as `tables` says.
    pub const fn with_tables(self, tables: Tables) -> Self {
        Self { tables, ..self }
    }

    /// Maps base pages by huge leaves of vmemmap, where a piece covers a whole one, or never. With an altmap, where the reserved part or the rest
    /// of its range covers a whole one, and not in a pagemap of compound pages that share tails.
    pub const fn with_huge_leaves(self, huge_leaves: bool) -> Self {
        Self {
            huge_leaves,
            ..self
        }
    }

    /// Populates in pieces of this size.
    pub const fn with_piece(self, piece: Piece) -> Self {
        Self { piece, ..self }
    }

    /// Takes frames from `node`, and expects the memory to be there.
    pub const fn with_node(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    /// The model that it was checked against.
    pub const fn model(&self) -> &MemoryModel {
        &self.model
    }

    /// The frames.
    pub const fn ranges(&self) -> &'p [PfnRange] {
        self.ranges
    }

    /// The page size that they are used in.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How tables are to be shared.
    pub const fn tables(&self) -> Tables {
        self.tables
    }

    /// How tables are shared on a page table that can share them or not, and why it is not as asked where
    /// it is not.
    pub fn tables_on(&self, can_share: bool) -> (Tables, Option<TablesFallback>) {
        if self.tables == Tables::Private {
            return (Tables::Private, None);
        }
        let order = self.geometry.order();
        let table = self.model.granule().entries_per_table() as u64;
        let fallback = if self.tails().0 == Tails::None {
            TablesFallback::NoSharedTails
        } else if !can_share {
            TablesFallback::NotSupported
        } else if self.model.vmemmap_pages(order) < 2 * table {
            // The first table has the head.
            TablesFallback::NoWholeTable { order }
        } else {
            return (self.tables, None);
        };
        (Tables::Private, Some(fallback))
    }

    /// Whether pieces are smaller than what a leaf table describes.
    pub(crate) fn pieces_are_smaller_than_a_table(&self) -> bool {
        let table = self.model.granule().entries_per_table() as u64;
        let describes = table * self.model.descriptors_per_page();
        self.piece_order()
            .is_some_and(|piece| piece.frames() < describes)
    }

    /// Whether base pages are mapped by huge leaves.
    pub const fn huge_leaves(&self) -> bool {
        self.huge_leaves
    }

    /// How much is populated at a time.
    pub const fn piece(&self) -> Piece {
        self.piece
    }

    /// The node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The altmap.
    pub const fn altmap(&self) -> Option<&'p dyn Altmap> {
        self.altmap
    }

    /// How tails are shared, and why it is not as asked where it is not.
    pub fn tails(&self) -> (Tails, Option<TailsFallback>) {
        if self.tails == Tails::None {
            return (Tails::None, None);
        }
        let order = self.geometry.order();
        let vmemmap_pages = self.model.vmemmap_pages(order);
        // The head's page is always there, and a tail frame of one's own costs a second.
        let needed = match self.tails {
            Tails::PerOrder => 1,
            Tails::PerCompound | Tails::None => 2,
        };
        let fallback = if order == Order::BASE {
            TailsFallback::BasePages
        } else if vmemmap_pages <= needed {
            TailsFallback::NothingToSave {
                order,
                vmemmap_pages,
            }
        } else {
            return (self.tails, None);
        };
        (Tails::None, Some(fallback))
    }

    /// The range that `frames` lie in, if all of them lie in one.
    pub fn range_of(&self, frames: PfnRange) -> Option<PfnRange> {
        self.ranges
            .iter()
            .copied()
            .find(|range| range.contains_range(frames))
    }

    /// The size of the pieces, unless they are whole ranges.
    fn piece_order(&self) -> Option<Order> {
        match self.piece {
            Piece::Subsection => Some(self.model.subsection()),
            Piece::Section => Some(self.model.section()),
            Piece::Range => None,
        }
    }

    /// Whether huge leaves of vmemmap of the order `leaf` would have a place in the ranges, if only the pieces were not smaller
    /// than what each describes.
    pub(crate) fn pieces_are_smaller_than(&self, leaf: Order) -> bool {
        let describes = leaf.get() + self.model.vmemmap_page_order().get();
        let Some(describes) = Order::new(describes) else {
            return false;
        };
        let has_room = |&range: &PfnRange| aligned_part(range, describes).is_some();
        self.piece_order().is_some_and(|piece| piece < describes)
            && self.ranges.iter().any(has_room)
    }

    /// The pieces that the ranges are populated in, range by range.
    pub fn pieces(&self) -> impl Iterator<Item = PfnRange> + Clone + use<'p> {
        let unit = self.piece_order();
        self.ranges
            .iter()
            .flat_map(move |&range| Pieces::new(range, unit))
    }

    /// The compound pages of `order` that the ranges consist of.
    pub(crate) fn compound_pages(&self, order: Order) -> impl Iterator<Item = PfnRange> + use<'p> {
        self.ranges
            .iter()
            .flat_map(move |&range| Pieces::new(range, Some(order)))
    }
}

/// The parts of a range between multiples of a block.
#[derive(Clone)]
struct Pieces {
    rest: Option<PfnRange>,
    unit: Option<Order>,
}

impl Pieces {
    fn new(range: PfnRange, unit: Option<Order>) -> Self {
        Self {
            rest: Some(range),
            unit,
        }
    }
}

impl Iterator for Pieces {
    type Item = PfnRange;

    fn next(&mut self) -> Option<PfnRange> {
        let rest = self.rest?;
        let frames = match self.unit {
            Some(unit) => unit.frames() - (rest.start().get() & (unit.frames() - 1)),
            None => rest.frames(),
        };
        let (piece, rest) = rest.take_first(frames);
        self.rest = rest;
        Some(piece)
    }
}

/// The largest part of `range` that starts and ends at multiples of a block of `unit`.
fn aligned_part(range: PfnRange, unit: Order) -> Option<PfnRange> {
    let start = range
        .start()
        .get()
        .checked_next_multiple_of(unit.frames())?;
    let end = (range.last().get() + 1) & !(unit.frames() - 1);
    PfnRange::new(crate::addr::Pfn::new(start)?, end.checked_sub(start)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Pfn, VirtAddr};
    use crate::model::ModelConfig;

    pub(super) const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
        frames: 1 << 34,
        section: Order::new(15).unwrap(),
        subsection: Order::new(9).unwrap(),
        max_order: Order::new(18).unwrap(),
    }) {
        Ok(model) => model,
        Err(_) => panic!(),
    };

    pub(super) fn frames(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    pub(super) fn geometry(bytes: u64) -> Geometry {
        Geometry::from_bytes(bytes, Granule::Size4K).unwrap()
    }

    fn refusal(ranges: &[PfnRange], bytes: u64) -> PagemapError {
        DevPagemap::new(&MODEL, ranges, geometry(bytes)).unwrap_err()
    }

    #[test]
    fn what_cannot_be_brought_online_is_refused_by_name() {
        assert_eq!(refusal(&[], 4096), PagemapError::NoRanges);
        assert_eq!(
            refusal(&[frames(512, 511)], 4096),
            PagemapError::Misaligned {
                range: frames(512, 511),
                order: Order::new(9).unwrap(),
                aligned: None,
            }
        );
        assert_eq!(
            refusal(&[frames(512, 1 << 19)], 1 << 30),
            PagemapError::Misaligned {
                range: frames(512, 1 << 19),
                order: Order::new(18).unwrap(),
                aligned: Some(frames(1 << 18, 1 << 18)),
            }
        );
        let overlapping = [frames(0, 1024), frames(2048, 512), frames(512, 1024)];
        assert_eq!(
            refusal(&overlapping, 2 << 20),
            PagemapError::Overlap {
                first: overlapping[0],
                second: overlapping[2],
            }
        );
        assert_eq!(
            refusal(&[frames((1 << 34) - 512, 1024)], 4096).kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!(
            refusal(&[frames(0, 1 << 19)], 2 << 30).kind(),
            ErrorKind::UnsupportedOrder
        );
    }

    #[test]
    fn pieces_end_at_multiples_of_their_size_and_cover_the_ranges() {
        let ranges = [frames(1 << 15, 1 << 16), frames(512, (1 << 14) + 512)];
        let pagemap = DevPagemap::new(&MODEL, &ranges, Geometry::BASE_PAGES).unwrap();
        let sections: [PfnRange; 3] = [
            frames(1 << 15, 1 << 15),
            frames(1 << 16, 1 << 15),
            frames(512, (1 << 14) + 512),
        ];
        assert!(pagemap.pieces().eq(sections));
        let whole = pagemap.with_piece(Piece::Range);
        assert!(whole.pieces().eq(ranges));
        let small = pagemap.with_piece(Piece::Subsection);
        assert_eq!(small.pieces().count(), 128 + 33);
        assert!(small.pieces().all(|piece| piece.frames() == 512));
    }

    #[test]
    fn a_policy_that_cannot_apply_says_why() {
        let ranges = [frames(0, 512)];
        let with = |bytes| {
            DevPagemap::new(&MODEL, &ranges, geometry(bytes))
                .unwrap()
                .with_tails(Tails::PerCompound)
                .tails()
        };
        assert_eq!(with(4096), (Tails::None, Some(TailsFallback::BasePages)));
        assert_eq!(
            with(512 << 10),
            (
                Tails::None,
                Some(TailsFallback::NothingToSave {
                    order: Order::new(7).unwrap(),
                    vmemmap_pages: 2
                })
            )
        );
        assert_eq!(with(1 << 20), (Tails::PerCompound, None));
        assert_eq!(with(2 << 20), (Tails::PerCompound, None));
    }
}
