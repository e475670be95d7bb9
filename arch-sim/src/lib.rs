//! A machine to test memory management on, hosted.
//!
//! For whoever writes or ports a backend of `mm-core`, or uses one: all that the library asks of a
//! kernel and of hardware, made of ordinary memory, and stricter than either.
//!
//! ```text
//!   SimFrames ──frames of──▶ SimMemory ◀──reads── Walker (X86_64Walker, AArch64Walker)
//!      │ on_allocate, on_free                        ▲
//!      └──────────────▶ SimTlb, SimTlb ... ──────────┘
//!                          └── SimMmu                        all of them ──▶ Violations
//! ```
//!
//! The modules use each other in one direction only; [`FlatTable`] uses none of them:
//!
//! ```text
//!   tlb ──▶ frames, walker, table_map ──▶ memory ──▶ violations ──▶ translation
//! ```
//!
//! - [`SimMemory`]: physical memory, sparse, any size; the
//!   [`DirectMap`](mm_core::frame::DirectMap);
//! - [`TableMap`]: the same for a page table, and a [`TableWatch`] that counts what that does;
//! - [`SimFrames`]: a NUMA [`FrameAllocator`](mm_core::frame::FrameAllocator) that can be told to
//!   fail;
//! - [`SimTlb`], [`SimMmu`]: CPUs that translate by stale entries for as long as they may, and the
//!   [`Mmu`](mm_core::paging::Mmu) that tells them to forget;
//! - [`walker`]: what the hardware would read in the tables, byte by byte;
//! - [`FlatTable`]: the oracle, a [`PageTable`](mm_core::paging::PageTable) that is a plain map;
//! - [`Violations`]: what went wrong. A test ends with this log empty.
//!
//! # Example
//!
//! A kernel frees a page before it has told the CPU that the mapping is gone:
//!
//! ```
//! use arch_sim::walker::X86_64Walker;
//! use arch_sim::{SimFrames, SimMemory, SimTlb};
//! use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr};
//! use mm_core::frame::{FrameAllocator, Released};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeId::new(0);
//! let ram = PfnRange::new(Pfn::ZERO, 1 << 18)?; // 1 GiB
//! let memory = SimMemory::new(Granule::Size4K, &[ram])?;
//! let frames = SimFrames::new(&memory, &[(node, &[ram])])?;
//!
//! // Four tables and a page, linked by hand.
//! let run = frames.allocate_run(5, node)?;
//! let base = |index| run.start().saturating_add(index).base(Granule::Size4K).get();
//! for level in 0..4 {
//!     memory.write_u64(PhysAddr::new(base(level)), base(level + 1) | 0x3);
//! }
//!
//! let cpu = SimTlb::new(X86_64Walker::four_level(), &memory, run.start());
//! cpu.watch(&frames);
//! assert_eq!(cpu.access(VirtAddr::new(0x123))?.get(), base(4) + 0x123);
//!
//! // The entry is cleared, but the CPU does not know, and the page is freed all the same.
//! memory.write_u64(PhysAddr::new(base(3)), 0);
//! // SAFETY: the page's one reference is this example's, and it breaks its promise to flush.
//! unsafe { frames.release_run(PfnRange::single(run.last())) };
//! assert_eq!(
//!     memory.violations().to_string(),
//!     "frame 0x4 was freed while a CPU still had it cached as a mapped page\n"
//! );
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod walker;

mod flat;
mod frames;
mod memory;
mod table_map;
mod tlb;
mod translation;
mod violations;

pub use flat::{FlatTable, OneByOne};
pub use frames::{AllocatorCalls, SimFrames};
pub use memory::{ReadMemory, SimMemory};
pub use table_map::{TableMap, TableWatch};
pub use tlb::{Fault, MmuRecord, SimMmu, SimTlb, TlbCounts};
pub use violations::{CachedAs, Violation, Violations};
