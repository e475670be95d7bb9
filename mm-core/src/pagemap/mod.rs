//! The request to bring memory online: ranges, size of compound pages, policies.

mod altmap;
mod error;
mod pieces;
mod policy;
mod ranges;
mod shared_frames;

pub use error::PagemapError;
pub use policy::{
    Geometry, Heads, HeadsFallback, Piece, Tables, TablesFallback, Tails, TailsFallback,
};

use crate::addr::{NodeId, Order, PfnRange};
use crate::frame::Altmap;
use crate::model::MemoryModel;
use core::fmt;
use pieces::{Pieces, aligned_part};
use ranges::Ranges;

/// Device memory to bring online, and how.
///
/// A pagemap is made for one [`MemoryModel`]. Its ranges are checked against the model once, when
/// it is made.
#[derive(Clone, Copy)]
pub struct DevPagemap<'p> {
    model: MemoryModel,
    ranges: Ranges<'p>,
    geometry: Geometry,
    heads: Heads,
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
            .field("ranges", &self.ranges())
            .field("geometry", &self.geometry)
            .field("heads", &self.heads)
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
    /// The defaults, which the `with_` methods change: heads are in place; tails are shared per compound page
    /// (base pages have none); tables are private; base pages are mapped by huge leaves where these are
    /// aligned; memory is populated section by section, from node 0, without an altmap.
    ///
    /// # Errors
    ///
    /// [`PagemapError`] where there are no ranges, or where a range is not whole subsections and
    /// whole compound pages, overlaps another, or lies outside the model, or where the compound
    /// pages are too large.
    pub fn new(
        model: &MemoryModel,
        ranges: &'p [PfnRange],
        geometry: Geometry,
    ) -> Result<Self, PagemapError> {
        Self::checked(model, Ranges::Many(ranges), geometry)
    }

    /// As [`new`](Self::new), for one range, which is kept in the pagemap itself: so it borrows
    /// nothing, and a region can live in a `static`.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn of_range(
        model: &MemoryModel,
        range: PfnRange,
        geometry: Geometry,
    ) -> Result<Self, PagemapError> {
        Self::checked(model, Ranges::One(range), geometry)
    }

    fn checked(
        model: &MemoryModel,
        all: Ranges<'p>,
        geometry: Geometry,
    ) -> Result<Self, PagemapError> {
        let ranges = all.as_slice();
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
            ranges: all,
            geometry,
            heads: Heads::InPlace,
            tails,
            tables: Tables::Private,
            huge_leaves: true,
            piece: Piece::Section,
            node: NodeId::default(),
            altmap: None,
        })
    }

    /// Has heads where `heads` says.
    pub const fn with_heads(self, heads: Heads) -> Self {
        Self { heads, ..self }
    }

    /// Shares tails as `tails` says.
    pub const fn with_tails(self, tails: Tails) -> Self {
        Self { tails, ..self }
    }

    /// Shares tables as `tables` says.
    pub const fn with_tables(self, tables: Tables) -> Self {
        Self { tables, ..self }
    }

    /// Maps the vmemmap of base pages by huge leaves, or never does. A huge leaf is used where a
    /// piece covers all that it describes. With an altmap, the reserved part or the rest of its
    /// range has to cover it, and a pagemap of compound pages that share tails uses none.
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

    /// Takes frames from `node`, where the memory is expected to be.
    pub const fn with_node(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    /// The model that the pagemap was checked against.
    pub const fn model(&self) -> &MemoryModel {
        &self.model
    }

    /// The memory.
    pub const fn ranges(&self) -> &[PfnRange] {
        self.ranges.as_slice()
    }

    /// The size of the pages in which the memory is used.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How tables are to be shared, as requested.
    pub const fn tables(&self) -> Tables {
        self.tables
    }

    /// How tables are shared on a page table that can share them, or cannot; and the reason if that
    /// is not as requested.
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
        } else if self.heads().0 == Heads::InPlace && self.model.vmemmap_pages(order) < 2 * table {
            // The first table has the head. (Stubs run on from one page to the next.)
            TablesFallback::NoWholeTable { order }
        } else {
            return (self.tables, None);
        };
        (Tables::Private, Some(fallback))
    }

    /// Whether [steps](Self::steps) are smaller than what a leaf table describes.
    pub(crate) fn steps_are_smaller_than_a_table(&self) -> bool {
        let table = self.model.granule().entries_per_table() as u64;
        let describes = table * self.model.descriptors_per_page();
        self.step_order()
            .is_some_and(|step| step.frames() < describes)
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

    /// Where heads are, and the reason if that is not as requested.
    pub fn heads(&self) -> (Heads, Option<HeadsFallback>) {
        let order = self.geometry.order();
        let fallback = match self.heads {
            Heads::InPlace => return (Heads::InPlace, None),
            Heads::Packed if order == Order::BASE => HeadsFallback::BasePages,
            Heads::Packed if order < self.model.vmemmap_page_order() => {
                HeadsFallback::NoWholePage { order }
            }
            Heads::Packed => return (Heads::Packed, None),
        };
        (Heads::InPlace, Some(fallback))
    }

    /// Whether heads are to be packed where pages are large enough for that.
    pub(crate) fn packs_heads(&self) -> bool {
        self.heads == Heads::Packed
    }

    /// How tails are shared, and the reason if that is not as requested. Where heads are packed, so are
    /// stubs: per order.
    pub fn tails(&self) -> (Tails, Option<TailsFallback>) {
        match self.heads().0 {
            Heads::InPlace => self.tails_of(self.geometry.order()),
            Heads::Packed => (Tails::PerOrder, None),
        }
    }

    /// How tails of pages of `order` are shared, if they are as requested for all orders.
    pub(crate) fn tails_of(&self, order: Order) -> (Tails, Option<TailsFallback>) {
        if self.tails == Tails::None {
            return (Tails::None, None);
        }
        let vmemmap_pages = self.model.vmemmap_pages(order);
        // The head's page always has a frame. A tail frame for one compound page is a second.
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

    /// The range that contains all of `frames`, if there is one.
    pub fn range_of(&self, frames: PfnRange) -> Option<PfnRange> {
        let mut ranges = self.ranges.iter();
        ranges.find(|range| range.contains_range(frames))
    }

    /// The size of the pieces, unless they are whole ranges.
    fn piece_order(&self) -> Option<Order> {
        match self.piece {
            Piece::Subsection => Some(self.model.subsection()),
            Piece::Section => Some(self.model.section()),
            Piece::Range => None,
        }
    }

    /// Whether the ranges have room for huge leaves of vmemmap, of the order `leaf`, but the pieces
    /// are smaller than what each describes.
    pub(crate) fn pieces_are_smaller_than(&self, leaf: Order) -> bool {
        let describes = leaf.get() + self.model.vmemmap_page_order().get();
        let Some(describes) = Order::new(describes) else {
            return false;
        };
        let has_room = |range: PfnRange| aligned_part(range, describes).is_some();
        self.piece_order().is_some_and(|piece| piece < describes)
            && self.ranges.iter().any(has_room)
    }

    /// The pieces in which the ranges are populated, range by range.
    ///
    /// [`Vmemmap::online`](crate::vmemmap::Vmemmap::online) takes those of one compound page that shares its
    /// tails together.
    pub fn pieces(&self) -> impl Iterator<Item = PfnRange> + Clone + use<'p> {
        let unit = self.piece_order();
        self.ranges
            .iter()
            .flat_map(move |range| Pieces::new(range, unit))
    }

    /// The size of the steps in which all of it comes online, unless they are whole ranges: pieces, or compound
    /// pages that share their tails, where these are larger. Who populates piece by piece looks for the tails
    /// of other pieces, and who does all of them has no need to.
    fn step_order(&self) -> Option<Order> {
        let piece = self.piece_order()?;
        match self.tails().0 {
            Tails::None => Some(piece),
            Tails::PerCompound | Tails::PerOrder => Some(piece.max(self.geometry.order())),
        }
    }

    /// The steps in which all of `range`, one of the ranges, comes online.
    pub(crate) fn steps_of(&self, range: PfnRange) -> impl Iterator<Item = PfnRange> + use<> {
        Pieces::new(range, self.step_order())
    }

    /// The steps in which all of it comes online, range by range.
    pub(crate) fn steps(&self) -> impl Iterator<Item = PfnRange> + Clone + use<'p> {
        let unit = self.step_order();
        let ranges = self.ranges.iter();
        ranges.flat_map(move |range| Pieces::new(range, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Granule, Pfn, VirtAddr};
    use crate::error::ErrorKind;
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
    fn a_range_of_its_own_is_as_good_as_one_of_the_callers() {
        let range = frames(1 << 15, 1 << 16);
        let ranges = [range];
        let borrowed = DevPagemap::new(&MODEL, &ranges, geometry(2 << 20)).unwrap();
        let own: DevPagemap<'static> =
            DevPagemap::of_range(&MODEL, range, geometry(2 << 20)).unwrap();
        assert_eq!(own.ranges(), borrowed.ranges());
        assert!(own.pieces().eq(borrowed.pieces()));
        assert_eq!(own.range_of(frames(1 << 15, 512)), Some(range));
        let misaligned = DevPagemap::of_range(&MODEL, frames(512, 511), Geometry::BASE_PAGES);
        assert_eq!(misaligned.unwrap_err(), refusal(&[frames(512, 511)], 4096));
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
    fn heads_are_packed_where_pages_fill_a_vmemmap_page() {
        let ranges = [frames(0, 512)];
        let with = |bytes| {
            let pagemap = DevPagemap::new(&MODEL, &ranges, geometry(bytes)).unwrap();
            let packed = pagemap.with_heads(Heads::Packed).with_tails(Tails::None);
            (packed.heads(), packed.tails())
        };
        let in_place = |fallback| ((Heads::InPlace, Some(fallback)), (Tails::None, None));
        let packed = ((Heads::Packed, None), (Tails::PerOrder, None));
        let order = Order::new(5).unwrap();
        assert_eq!(with(4096), in_place(HeadsFallback::BasePages));
        assert_eq!(
            with(128 << 10),
            in_place(HeadsFallback::NoWholePage { order })
        );
        assert_eq!(with(256 << 10), packed);
        assert_eq!(with(2 << 20), packed);
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
