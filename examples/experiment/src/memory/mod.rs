//! The kernel's memory: what there is, and who hands it out.
//!
//! ```text
//!   MemoryMap ──▶ EarlyFrames ──▶ Bitmap ─▶ Rationed ─▶ Counted
//! ```

mod bitmap;
mod books;
mod early;
mod linear;
mod map;
mod ration;

pub use bitmap::Bitmap;
pub(crate) use books::{early_range, early_slice, frames};
pub use early::EarlyFrames;
pub use linear::LinearMap;
pub use map::{MemoryMap, RangeList};
pub use ration::Rationed;

use mm_core::frame::Counted;

/// The kernel's frames, with reference counts.
pub type Frames<'m> = Counted<'m, Rationed<Bitmap<'m>>>;
