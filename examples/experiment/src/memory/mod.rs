//! The kernel's memory: what there is, and its allocators.
//!
//! ```text
//!   MemoryMap ──▶ EarlyFrames ──▶ Bitmap ─▶ Limited ─▶ Counted
//! ```

mod bitmap;
mod early;
mod limited;
mod map;
mod setup;

pub use bitmap::Bitmap;
pub use early::EarlyFrames;
pub use limited::Limited;
pub use map::{MemoryMap, RangeList};
pub(crate) use setup::{allocator, early_range, early_slice};

use mm_core::frame::{Counted, WordCounts};

/// The kernel's frames, with reference counts.
pub type Frames<'m> = Counted<Limited<Bitmap<'m>>, WordCounts<'m>>;
