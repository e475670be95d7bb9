//! Operations.

use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::Reserve;

/// What a pagemap is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The ranges.
    pub ranges: Vec<PfnRange>,
    /// The order of compound pages.
    pub order: Order,
    /// How tails are shared, where they can be.
    pub tails: Tails,
    /// Whether tails per order and packed heads are asked for also of an encoding that has none.
    pub insists: bool,
    /// Whether heads are packed, where they can be. Without an altmap.
    pub packed: bool,
    /// How tables are shared, where they can be.
    pub tables: Tables,
    /// Whether huge leaves are used.
    pub huge_leaves: bool,
    /// How much at a time.
    pub piece: Piece,
    /// The node: 0 or 1.
    pub node: u32,
    /// How many frames at the start of the first range are an altmap, if it comes online as a
    /// whole; 0 for none.
    pub reserved: u64,
}

impl Request {
    /// What is an altmap.
    pub(super) fn altmap(&self) -> Option<PfnRange> {
        let first = self.ranges.first()?;
        PfnRange::new(first.start(), self.reserved).ok()
    }

    /// What is used in base pages because there is an altmap.
    pub(super) fn base_pages(&self) -> Option<PfnRange> {
        let altmap = self.altmap()?;
        let frames = altmap.frames().next_multiple_of(self.order.frames());
        PfnRange::new(altmap.start(), frames).ok()
    }
}

/// Which allocations fail from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// All after so many.
    After(u64),
    /// One after so many.
    Nth(u64),
    /// Those of blocks.
    Blocks,
    /// Those of a node, which is full.
    Node(u32),
    /// All, of both nodes.
    BothNodes,
}

/// How memory that is online is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its tails are shared.
    Fold,
    /// Its tails get frames of their own.
    Unfold,
    /// Its descriptors become those of other pages.
    Reshape,
}

/// Which memory is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A region: the one with this number, of those that are left.
    Region(usize),
    /// Some range.
    Range(PfnRange),
}

/// What is wrong with the frames that are to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// Nothing.
    Not,
    /// They start within a page of the order.
    Start,
    /// They end within one.
    End,
    /// They reach beyond the pagemap.
    Beyond,
}

/// A change of memory that is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Which change.
    pub change: Change,
    /// Of what.
    pub target: Target,
    /// To pages of which order; of the one that they have, if it is not said.
    pub order: Option<Order>,
    /// How tails are shared.
    pub tails: Tails,
    /// How tables are shared.
    pub tables: Tables,
    /// Whether huge leaves are used.
    pub huge_leaves: bool,
    /// The node.
    pub node: u32,
    /// Whether the pagemap has the region's altmap, if it has one.
    pub altmap: bool,
    /// Whether it asks for packed heads, and so for nothing that there is.
    pub packed: bool,
    /// Where in the target the frames start and how many they are.
    pub part: [u8; 2],
    /// Whether they are moved to where they can be changed.
    pub aims: bool,
    /// What is wrong with them.
    pub odd: Odd,
    /// Whether they are frozen first, where there are readers, and how.
    pub frozen: Option<Frozen>,
}

/// What becomes of memory that is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is dropped, and nothing changes.
    Dropped,
    /// What it was frozen for is done, after a grace period.
    Committed,
    /// The same in one call, which freezes and waits itself.
    AtOnce,
}

/// How pages are frozen to be changed beside readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// How many references each has afterwards.
    pub references: u32,
    /// What becomes of them.
    pub ending: Ending,
}

/// How pages change their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With all in reserve that it can take.
    Prepared,
    /// With what is there.
    Unprepared,
    /// Prepared, and frozen first, beside readers.
    Frozen(Frozen),
}

/// A change of the order of memory that is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// Where it starts.
    pub at: One,
    /// How many pages of the order it is about.
    pub count: u64,
    /// Whether it is about all of the pages that it would be about a part of.
    pub whole: bool,
    /// To pages of which order; of the one that is there, if it is not said.
    pub order: Option<Order>,
    /// How tails are shared.
    pub tails: Tails,
    /// How tables are shared.
    pub tables: Tables,
    /// Whether huge leaves are used, and may be large.
    pub huge_leaves: bool,
    /// Whether it may write as much as a huge leaf maps.
    pub much: bool,
    /// The node.
    pub node: u32,
    /// Whether the pagemap has the region's altmap, if there is one.
    pub altmap: bool,
    /// Whether heads are packed, where they can be. Without an altmap.
    pub packed: bool,
    /// How.
    pub how: How,
    /// How many steps it takes at most.
    pub steps: u64,
}

/// One frame: of a page of the vmemmap, the one with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct One {
    /// The page, counted from the window's first.
    pub page: u64,
    /// Which of the frames that it describes.
    pub index: u64,
    /// Whether it is the next page that is mapped instead.
    pub aims: bool,
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Brings a pagemap online.
    Online(Request),
    /// Brings a piece online, by the pagemap of the region with an altmap that it is in, or by one
    /// that has none.
    Populate(Request, PfnRange, bool),
    /// Takes a piece offline, by the pagemap of the region with an altmap that it is in, or by one
    /// that has none.
    Depopulate(Request, PfnRange, bool),
    /// Takes a piece of a region offline: the one with this number, of those that are left.
    Shrink {
        /// The region.
        region: usize,
        /// Where in its first range the piece starts and how long it is, as for a random piece.
        piece: [u8; 2],
    },
    /// Takes a region offline: the one with this number, of those that are left.
    Offline(usize),
    /// Folds, unfolds or reshapes.
    Fold(Fold),
    /// Changes the order of pages.
    Reorder(Reorder),
    /// Fills the reserve of a node.
    Fill(u32, Reserve),
    /// Gives all of the reserve back.
    EmptyReserve,
    /// A reader takes a reference to the page of a frame, and keeps it.
    Hold(One),
    /// It gives one back: the one with this number, of those that are left.
    GiveBack(usize),
    /// Freezes the pages that so many vmemmap pages are about, to take them offline.
    Freeze {
        /// The first of them.
        at: One,
        /// How many.
        pages: u64,
        /// What becomes of them.
        ending: Ending,
    },
    /// Marks a frame, with memory from a node.
    Mark(One, u32),
    /// Takes the mark off a frame.
    Unmark(One),
    /// The kernel writes into the descriptor of a frame, if it has one of its own.
    Write(One, u64),
    /// Makes allocations fail.
    Fault(Fault),
    /// Maps something foreign at a page of the vmemmap: a page, or a huge leaf.
    Plant {
        /// The page, counted from the window's first.
        page: u64,
        /// Whether it is a huge leaf.
        huge: bool,
    },
    /// Links foreign tables, with nothing in them, for a page of the vmemmap.
    PlantTables {
        /// The page.
        page: u64,
    },
    /// Takes a foreign leaf away: the one with this number, of those that are left.
    Uproot(usize),
    /// Unlinks the foreign tables in which there is nothing.
    Prune,
    /// Reads or writes the descriptor of a frame on one of the CPUs.
    Access {
        /// The frame.
        one: One,
        /// The CPU.
        cpu: usize,
        /// Whether it is a store.
        store: bool,
    },
    /// Makes all CPUs cache all that is mapped.
    Speculate,
}

/// A script: where its memory lies, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Whether there are readers.
    pub has_readers: bool,
    /// Whether some heads are packed.
    pub packs: bool,
    /// The memory.
    pub window: PfnRange,
    /// What is done.
    pub ops: Vec<Op>,
}
