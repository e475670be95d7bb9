//! Page tables: the trait that the library works on, and an engine that implements it.
//!
//! [`PageTable`] is the contract with the kernel. A kernel that has page-table code implements the
//! trait over it. Any other kernel uses [`RadixTable`]. It provides the format of its entries
//! ([`EntryFormat`]) and the operations of its MMU ([`Mmu`]).
//!
//! ```text
//!   RunSource ──runs──▶ PageTable::map_runs ──▶ entries
//!   entries ──▶ InUse::replace: other entries ▶ flush ──runs──▶ released   (Exchange)
//!   entries ──▶ PageTable::unmap: invalidate ▶ flush ▶ reclaim ──runs──▶ RunSink
//! ```

mod attributes;
mod entry_lines;
mod exchange;
mod flush;
mod format;
mod groups;
mod lookup;
mod mmu;
mod page_table;
mod radix;
mod records;
mod replace;
mod roots;
mod run;
mod seen_bits;
mod sink;

pub use attributes::Attributes;
pub use entry_lines::EntryLines;
pub use exchange::{Exchange, ReplaceError, Replaced, Replacement, Span};
pub use flush::{Flush, FlushScope};
pub use format::{Entry, EntryFormat, Level, Link};
pub use groups::{GroupTails, Groups};
pub use lookup::{Lookup, Mapping};
pub use mmu::Mmu;
pub use page_table::{FrameOutOfReach, MapError, MapStopped, PageTable, Visit};
pub use radix::{ByRuns, FillRootError, RadixTable};
pub use records::{NoRecords, TableRecords, TableReserve};
pub use replace::{BreakBeforeMake, BreakLeaf, Direct, ExchangeLeaf, InUse, Refuse, Replace};
pub use roots::{OneRoot, Roots};
pub use run::{Leaf, Role, Run, RunSource, Step};
pub use seen_bits::SeenBits;
pub use sink::RunSink;
