//! What can be damaged.

use mm_core::paging::{NoRecords, TableRecords};

/// One thing that is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Nothing: what fails with the others passes with this.
    None,
    /// The page table does not give one of the runs back that it unmaps.
    ForgetsARelease,
    /// It gives frames back first, and CPUs forget them afterwards.
    FreesBeforeItFlushes,
    /// It flushes each page by itself.
    FlushesByThePage,
    /// It leaves the last page of what it unmaps.
    LeavesTheLastPage,
    /// It maps tails to the tail frame of the compound page that came first.
    LinksTheWrongTail,
    /// It lets tails be written to that all compound pages share.
    MapsTailsWritable,
    /// It does not give back what it has taken from a source and not mapped.
    KeepsWhatItTook,
    /// It says that nothing was mapped when it stopped half-way.
    HidesWhatItMapped,
    /// It enters leaves over others.
    OverwritesLeaves,
    /// It finds nothing in use, ever.
    FindsEverythingFree,
    /// It takes foreign leaves for the library's.
    OwnsForeignLeaves,
    /// It never brings a huge leaf back.
    BringsNoLeafBack,
    /// It gives back what entries in use pointed at, and flushes afterwards.
    ExchangesBeforeItFlushes,
    /// It keeps the entries that it is to exchange, and gives back what was to replace them.
    KeepsWhatItShouldExchange,
    /// It takes the right to store from the page behind those that it exchanges.
    ReachesBeyondAnExchange,
    /// It does not give the first run back that it exchanges.
    ForgetsWhatItExchanged,
    /// It does not ask what becomes of all that one entry of a link translates.
    NeverAsksForSpans,
    /// It allocates tables that it was to take from the reserve.
    AllocatesDespiteTheReserve,
    /// It does not give back tables that were taken ahead.
    LosesSpareTables,
    /// It does not give back the reference of one of several links to a table.
    LosesTheReleaseOfASharedTable,
    /// It does not give back tables.
    LeaksTables,
    /// It has no table counted that it makes.
    MiscountsTables,
    /// Other roots are not told of the root's entries.
    TellsNoRoots,
    /// They are told twice.
    TellsRootsTwice,
    /// It clears a page in the middle of a huge leaf by giving back the page's frame, and keeps the
    /// leaf.
    ClearsAPageOfAHugeLeaf,
    /// It keeps the tables of the last leaf that was cleared.
    KeepsClearedTables,
    /// It takes entries that are not present for free ones.
    TakesReservedForFree,
    /// It stores huge leaves over empty tables of somebody else's.
    StoresOverTables,
    /// It takes tables from the first node, whichever it is told.
    TablesFromTheFirstNode,
    /// It looks at the bits of an address only by which tables are indexed.
    MapsAliases,
    /// CPUs forget leaves, and keep what they know of the tables above.
    FlushesLeavesOnly,
    /// The allocator counts in 16 bits.
    CountsIn16Bits,
    /// The allocator frees blocks as one page.
    FreesBlocksAsOnePage,
    /// It lets references be added to a dead frame.
    RevivesTheDead,
    /// It takes blocks back only whole, and says so. No damage, but for what it is asked for.
    TakesBlocksBackWhole,
    /// It counts a block that was split as one still.
    SplitsNothing,
    /// It adds one reference where several are asked for.
    CountsOneForAll,
    /// The altmap does not know its own frames, so that they go to RAM.
    DisownsItsFrames,
    /// It keeps what is freed.
    KeepsItsFrames,
    /// It hands out a frame of its counts where it has no other.
    HandsOutItsCounts,
}

impl Damage {
    /// The records that calls get with this damage.
    pub(crate) fn records(self, records: &dyn TableRecords) -> &dyn TableRecords {
        match self {
            Self::MiscountsTables => &NoRecords,
            _ => records,
        }
    }
}
