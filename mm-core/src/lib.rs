//! Compound-page vmemmap for kernels.
//!
//! A kernel keeps a descriptor for every page frame, in one virtually contiguous array, the
//! *vmemmap*:
//!
//! ```text
//! descriptor(pfn) = base + pfn * size of a descriptor
//! ```
//!
//! This library brings parts of that array into being when memory comes online, and spends as few
//! frames on it as the use of the memory allows: all vmemmap pages that hold only the tail
//! descriptors of a compound page are mapped to one frame.
//!
//! # Where to start
//!
//! - Embedding: implement [`frame::FrameAllocator`] (or [`frame::PlainAllocator`] and wrap it in
//!   [`frame::Counted`]) and [`frame::DirectMap`]; take [`paging::RadixTable`] with an
//!   architecture's entry format, or implement [`paging::PageTable`] over your own tables; make a
//!   [`vmemmap::Vmemmap`]. The README has a complete example.
//! - Bringing memory online: a [`pagemap::DevPagemap`], then [`vmemmap::Vmemmap::online`].
//! - Porting to an architecture: [`paging::EntryFormat`] and [`paging::Mmu`].
//!
//! # Modules, from the bottom up
//!
//! | module | what it knows |
//! |---|---|
//! | [`addr`] | physical and virtual addresses, frame numbers, ranges |
//! | [`model`] | page, section and descriptor sizes; where descriptors lie |
//! | [`descriptor`] | what a descriptor is and how a tail names its head |
//! | [`frame`] | who hands out frames and counts references |
//! | [`paging`] | page tables |
//! | [`pagemap`] | what is to be brought online, and how |
//! | [`vmemmap`] | how that is done, and undone |
//!
//! # Locks
//!
//! The page table and the [`Vmemmap`](vmemmap::Vmemmap) are handed over by `&mut`: the kernel holds
//! its locks for them. Allocators take `&self` and bring their own lock, which is the innermost.
//! CPUs walk the tables at all times without any.
#![no_std]
#![deny(missing_docs)]
// What is copied from the documentation compiles without a warning.
#![doc(test(attr(deny(warnings))))]

pub mod addr;
pub mod descriptor;
pub mod error;
pub mod frame;
pub mod model;
pub mod pagemap;
pub mod paging;
pub mod vmemmap;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
