//! Physical frames: allocators, reference counts, and access to contents.
//!
//! Three traits are the kernel's side of the contract:
//!
//! - [`FrameAllocator`]: frames of RAM with reference counts;
//! - [`Altmap`]: the same for frames that come from the device itself;
//! - [`DirectMap`]: where the contents of a frame can be read and written.
//!
//! [`Counted`] adds counts to an allocator that has none ([`PlainAllocator`]). [`DeviceAltmap`] is an [`Altmap`] over a
//! reserved part of a device. The counts are in frames of that part.
//!
//! A kernel that starts has [`EarlyFrames`], and hands over to its allocator by [`BootFrames`].

mod allocator;
mod allocator_or_reserve;
mod altmap;
mod boot;
mod counted;
mod counts;
mod direct_map;
mod early;
mod linear_map;
mod ordered_map;
mod pattern;
mod plain_allocator;
mod reference_counts;
mod shared_counts;
mod spin;
mod stack;
mod word_counts;

pub use allocator::{
    AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
pub(crate) use allocator_or_reserve::{AllocatorOrReserve, FrameReserve};
pub(crate) use altmap::COUNT_BYTES;
pub use altmap::{Altmap, AltmapError, AltmapRecord, DeviceAltmap};
pub use boot::BootFrames;
pub use counted::Counted;
pub use direct_map::DirectMap;
pub use early::{EarlyFrames, EarlyRange};
pub use linear_map::LinearMap;
pub(crate) use ordered_map::{MapMemory, OrderedMap, Words};
pub use pattern::Pattern;
pub use plain_allocator::PlainAllocator;
pub use reference_counts::ReferenceCounts;
pub(crate) use shared_counts::MOST_REFERENCES as MOST_SHARED_REFERENCES;
pub use shared_counts::SharedCounts;
pub(crate) use stack::FrameStack;
pub use word_counts::{TooFewCounts, WordCounts};
