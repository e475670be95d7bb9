//! Compound-page vmemmap for kernels.
//!
//! A kernel keeps a descriptor for every page frame, in one virtually contiguous array, the
//! *vmemmap*:
//!
//! ```text
//! descriptor(pfn) = base + pfn * size of a descriptor
//! ```
//!
//! This library maps parts of that array when memory comes online. It uses as few frames as the use
//! of the memory allows: all vmemmap pages that hold only tail descriptors of a compound page are
//! mapped to one frame.
//!
//! # Where to start
//!
//! - To embed it: implement [`frame::FrameAllocator`], or [`frame::PlainAllocator`] and wrap it in
//!   [`frame::Counted`]. Implement [`frame::DirectMap`]. Use [`paging::RadixTable`] with an
//!   architecture's entry format, or implement [`paging::PageTable`] over your own tables. Then
//!   make a [`vmemmap::Vmemmap`]. The README has a complete example, and the repository's book
//!   goes through all of it.
//! - To bring memory online: make a [`pagemap::DevPagemap`] and call [`vmemmap::Vmemmap::online`].
//! - To look at descriptors: [`vmemmap::LiveDescriptors`] finds them without a lock, where memory stays
//!   online. Where it may go, and for references to pages: [`readers`].
//! - To port it to an architecture: implement [`paging::EntryFormat`] and [`paging::Mmu`].
//!
//! # Modules, from the bottom up
//!
//! | module | what it knows |
//! |---|---|
//! | [`addr`] | physical and virtual addresses, frame numbers, ranges |
//! | [`model`] | page, section and descriptor sizes; where descriptors lie |
//! | [`descriptor`] | what a descriptor is and how a tail names its head |
//! | [`frame`] | allocators of frames, and reference counts |
//! | [`paging`] | page tables |
//! | [`pagemap`] | what to bring online, and how |
//! | [`readers`] | what every CPU may ask without a lock, and how the writer waits for that |
//! | [`vmemmap`] | bringing it online, and taking it offline |
//!
//! # Locks
//!
//! The page table and the [`Vmemmap`](vmemmap::Vmemmap) are passed by `&mut`: the kernel holds its
//! locks for them. Allocators take `&self` and have a lock of their own, which is the innermost.
//! CPUs walk the tables at all times, without any lock.
#![no_std]
#![deny(missing_docs)]
// What is copied from the documentation compiles without a warning.
#![doc(test(attr(deny(warnings), allow(dead_code))))]

pub mod addr;
pub mod descriptor;
pub mod error;
pub mod frame;
pub mod model;
pub mod pagemap;
pub mod paging;
pub mod readers;
pub mod vmemmap;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
