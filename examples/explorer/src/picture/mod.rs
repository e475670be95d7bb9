//! Pictures of a vmemmap: what is mapped to what, with repeats folded.
//!
//! ```text
//!   machine or dump ─▶ Look ─▶ of_look ─┐
//!                                       ├─▶ Picture ─▶ svg | text
//!                  request ─▶ of_plan ──┘
//! ```
//!
//! A [`Picture`] is plain data: panels of alike pages, each with strips of cells, and frames that the cells lead to. It knows neither where
//! it comes from nor how it is drawn.
//!
//! - [`fold`]: what repeats, once;
//! - [`of_look`], [`of_plan`]: where pictures come from;
//! - [`svg`], [`text`]: how they are drawn.

pub mod fold;
pub mod of_look;
pub mod of_plan;
pub mod svg;
pub mod text;

/// What a cell leads to, or a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A frame with descriptors of its own: of base pages, or of a page whose tails are not shared.
    Own,
    /// A frame with the head of a compound page and its first tails.
    Head,
    /// The tail frame of one compound page.
    Tail,
    /// The tail frame of all compound pages of an order.
    OrderTail,
    /// The frame of stubs of all compound pages of an order, whose heads are packed.
    Stub,
    /// A frame of packed heads.
    Packed,
    /// A block of frames that a huge leaf maps.
    Block,
    /// A leaf table.
    Table,
    /// A leaf table that is linked more than once.
    SharedTable,
    /// A table above leaf tables.
    Upper,
}

impl Kind {
    /// One letter for it.
    pub const fn letter(self) -> char {
        match self {
            Self::Own => 'D',
            Self::Head => 'H',
            Self::Tail | Self::OrderTail => 'T',
            Self::Stub => 's',
            Self::Packed => 'h',
            Self::Block => 'B',
            Self::Table => 'L',
            Self::SharedTable => 'S',
            Self::Upper => 'U',
        }
    }

    /// Its name in a class of a style sheet.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Head => "head",
            Self::Tail => "tail",
            Self::OrderTail => "order",
            Self::Stub => "stub",
            Self::Packed => "packed",
            Self::Block => "block",
            Self::Table => "table",
            Self::SharedTable => "shared",
            Self::Upper => "upper",
        }
    }

    /// What it is, of one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "descriptors",
            Self::Head => "head",
            Self::Tail => "tails",
            Self::OrderTail => "tails",
            Self::Stub => "stubs",
            Self::Packed => "heads",
            Self::Block => "block",
            Self::Table => "leaf table",
            Self::SharedTable => "shared table",
            Self::Upper => "upper table",
        }
    }

    /// What it is, in a legend.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Own => "a frame with descriptors of its own",
            Self::Head => "a frame with a head and its first tails",
            Self::Tail => "the tail frame of one compound page",
            Self::OrderTail => "the read-only tail frame of all pages of a size",
            Self::Stub => "the read-only frame of stubs of all pages of a size",
            Self::Packed => "a frame with packed heads, side by side",
            Self::Block => "a block of frames that a huge leaf maps",
            Self::Table => "a leaf table",
            Self::SharedTable => "a leaf table that is linked, not copied",
            Self::Upper => "a table above these",
        }
    }
}

/// A part of a strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// An entry, or a page of the vmemmap.
    One {
        /// What it leads to.
        kind: Kind,
        /// Which one, if that is drawn: an index into the strips, for a table, or into the frames.
        to: Option<usize>,
    },
    /// What is left out.
    Gap {
        /// What that is.
        text: String,
    },
    /// Between one page and the next.
    Space,
}

/// Cells side by side: the entries of a table, or pages of the vmemmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strip {
    /// What it is.
    pub kind: Kind,
    /// What is written beside it.
    pub label: String,
    /// Its cells.
    pub cells: Vec<Cell>,
}

/// A frame, or a block of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// What is written on it: its number; nothing where frames have none yet.
    pub label: String,
}

/// An array of descriptors, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Array {
    /// What is written above it.
    pub title: String,
    /// The tables from the root on that lead there, in words; none where there are no tables.
    pub way: Vec<String>,
    /// Tables above leaf tables. Their cells lead to leaf tables, or to blocks.
    pub upper: Vec<Strip>,
    /// Leaf tables, or what would be in them.
    pub strips: Vec<Strip>,
    /// What their cells lead to.
    pub frames: Vec<Frame>,
}

/// Pages that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panel {
    /// What they are.
    pub title: String,
    /// Their vmemmap, and packed heads where there are some.
    pub arrays: Vec<Array>,
}

/// A line of the legend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Of what.
    pub kind: Kind,
    /// How many; `None` where nobody knows.
    pub count: Option<u64>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// What else is to be known.
    pub subtitle: String,
    /// The pages.
    pub panels: Vec<Panel>,
    /// What its colours mean, and how many there are of each.
    pub legend: Vec<Counted>,
    /// What it comes to, in a line.
    pub total: String,
}
