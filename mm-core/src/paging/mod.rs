//! Page tables: the trait that the algorithm works on, and an engine that implements it.
//!
//! [`PageTable`] is the contract with the embedding kernel. A kernel that has page-table code of
//! its own implements the trait over it; one that has none takes [`RadixTable`], says what its
//! entries look like ([`EntryFormat`]) and what its MMU needs to be told ([`Mmu`]).
//!
//! ```text
//!   RunSource ──runs──▶ PageTable::map_runs ──▶ entries
//!   entries ──▶ PageTable::replace: other entries ▶ flush ──runs──▶ released   (Exchange)
//!   entries ──▶ PageTable::unmap: invalidate ▶ flush ▶ reclaim ──runs──▶ released
//! ```

mod exchange;
mod flush;
mod format;
mod mmu;
mod page_table;
mod radix;
mod run;

pub use exchange::{Exchange, ReplaceError, Replaced, Replacement};
pub use flush::{Flush, FlushScope};
pub use format::{Entry, EntryFormat, Level, Link};
pub use mmu::Mmu;
pub use page_table::{MapError, MapStopped, Mapping, PageTable, TableStats, Visit};
pub use radix::RadixTable;
pub use run::{Leaf, Role, Run, RunSource, Step};
