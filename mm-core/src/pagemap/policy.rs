//! The policies of a pagemap: the page size, and what is shared. And why a policy may not apply.

use crate::addr::{Granule, Order};
use core::fmt;

/// The size of the pages in which memory is used.
///
/// These are base pages, or compound pages of one order. [`from_bytes`](Self::from_bytes) names the
/// order by its size. With 4 KiB pages the natural sizes are 4 KiB, 2 MiB and 1 GiB. Any power of
/// two between works too.
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
    /// One read-only frame for all compound pages of an order on a node. For descriptors whose
    /// tails are the same for all
    /// ([`TailEncoding::SAME_FOR_ALL`](crate::descriptor::TailEncoding::SAME_FOR_ALL)).
    PerOrder,
}

/// Where the heads of compound pages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Heads {
    /// In the vmemmap, each at the address of its frame: at least one frame for each compound page.
    #[default]
    InPlace,
    /// Side by side in [an array of their own](crate::model::MemoryModel::with_heads). In the vmemmap, all
    /// pages of an order on a node have one read-only frame of *stubs*, which say so. For descriptors whose
    /// encoding [has stubs](crate::descriptor::TailEncoding::HAS_STUBS).
    ///
    /// Tails are a matter of stubs then: what is asked for by [`Tails`] counts only where heads are in place.
    Packed,
}

/// Why heads are not packed as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadsFallback {
    /// Base pages have a descriptor each.
    BasePages,
    /// The descriptors of a compound page do not fill a vmemmap page. What is in the same page is not its.
    NoWholePage {
        /// The order of the compound page.
        order: Order,
    },
}

impl fmt::Display for HeadsFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BasePages => f.write_str("base pages have no heads to pack; heads: in place"),
            Self::NoWholePage { order } => write!(
                f,
                "the descriptors of a compound page of order {order} do not fill a vmemmap page; heads: in place"
            ),
        }
    }
}

/// What is shared between page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tables {
    /// Nothing: every table is linked once.
    Private,
    /// Leaf tables whose entries are all the same tail frame. There is one such table for each tail
    /// frame.
    Shared,
}

/// How much is populated at a time. Where all of a pagemap comes online, compound pages that share their tails and are
/// larger come online whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// A subsection.
    Subsection,
    /// A section, as memory hot-add does.
    Section,
    /// Each range in one go.
    Range,
}

/// Why tails are not shared as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TailsFallback {
    /// Base pages have no tails.
    BasePages,
    /// The descriptors of a compound page fill too few vmemmap pages. A shared page would save
    /// nothing.
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

/// Why tables are not shared as requested.
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
