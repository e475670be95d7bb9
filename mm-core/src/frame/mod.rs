//! Physical frames: who hands them out, who counts the references to them, how they are reached.
//!
//! Three traits are the embedding kernel's side of the contract:
//!
//! - [`FrameAllocator`]: frames of RAM with reference counts;
//! - [`Altmap`]: the same for frames that come from the device itself;
//! - [`DirectMap`]: where the contents of a frame can be read and written.
//!
//! [`PerNode`] has a row for each NUMA node.
//!
//! A kernel whose allocator keeps no counts wraps it in [`Counted`]. [`DeviceAltmap`] is an
//! [`Altmap`] over a reserved part of a device, which describes and counts itself.

mod allocator;
mod altmap;
mod counted;
mod counts;
mod direct_map;
mod per_node;
mod stack;

pub use allocator::{
    AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
pub use altmap::{Altmap, AltmapError, DeviceAltmap};
pub use counted::{Counted, PlainAllocator};
pub use counts::TooFewCounts;
pub use direct_map::DirectMap;
pub use per_node::PerNode;
pub(crate) use per_node::ROWS;
pub(crate) use stack::FrameStack;
