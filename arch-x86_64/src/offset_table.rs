//! The tables of a kernel on the `x86_64` crate: the engine over its [`OffsetPageTable`].
//!
//! The engine does not go through the crate's `Mapper`. That links tables before it zeroes them, has no
//! way to exchange an entry, and frees tables before anybody has flushed. It works on the same tables
//! beside it, by the root and the offset.

use crate::instructions::TlbInstructions;
use crate::shootdown::Shootdown;
use crate::{FourLevelTable, Tlb};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr};
use mm_core::frame::{DirectMap, FrameAllocator, LinearMap};
use mm_core::paging::Roots;
use x86_64::structures::paging::{OffsetPageTable, PageTable};

/// The level-4 table is not where the offset says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootNotByOffset {
    /// The address that the table is reached by.
    pub table: VirtAddr,
    /// Where physical address 0 is.
    pub offset: VirtAddr,
}

impl fmt::Display for RootNotByOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the level-4 table at {} is no frame of the physical memory that is mapped from {} on; make the `OffsetPageTable` with its address there",
            self.table, self.offset
        )
    }
}

impl core::error::Error for RootNotByOffset {}

/// The memory that an [`OffsetPageTable`] reaches. While it lives, so does the borrow of the table.
#[derive(Clone, Copy, Debug)]
pub struct OffsetMap<'t> {
    map: LinearMap,
    table: PhantomData<&'t PageTable>,
}

// SAFETY: 1 to 3: those of the `LinearMap`.
unsafe impl DirectMap for OffsetMap<'_> {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.map.frame_pointer(frame)
    }
}

/// The physical memory that `table` reaches, as a direct map for a
/// [`Vmemmap`](mm_core::vmemmap::Vmemmap).
///
/// # Safety
///
/// 1. The kernel maps all of its RAM there, and every device whose memory an altmap lies in, for good.
pub unsafe fn linear_map_of(table: &OffsetPageTable<'_>) -> LinearMap {
    let offset = VirtAddr::new(table.phys_offset().as_u64());
    // SAFETY: 1: the caller's. 2: an address of 0 would be that of the frame at minus `offset`, which is
    // none; with an offset of 0, nobody hands out frame 0, to which no reference of Rust's leads.
    unsafe { LinearMap::new(offset, Granule::Size4K) }
}

/// The engine over the tables of `table`, which is borrowed as long as the engine is used. All
/// operations are possible, fold included. Tables of the library's are told from the crate's by software
/// bits, and the crate's `Mapper` leaves them alone.
///
/// To make one is to fill a few words. So a kernel makes one each time that it takes its lock.
///
/// # Errors
///
/// [`RootNotByOffset`] where the level-4 table was reached by another address than its place behind the
/// offset.
///
/// # Safety
///
/// 1. The offset is the one that all tables are reached by, as `OffsetPageTable::new` asks.
/// 2. All RAM of `frames` is mapped there, too.
/// 3. Tables that this library has linked came from `frames`. The crate's `clean_up` and
///    `clean_up_addr_range` are not called for the vmemmap: they would free its tables.
/// 4. `tlb` reaches all CPUs that use the tables, and they are set up as the [crate](crate) says.
/// 5. `roots` stands for all other level-4 tables with copies of entries for the vmemmap.
pub unsafe fn engine_over<'t, A, I, S, R>(
    table: &'t mut OffsetPageTable<'_>,
    roots: R,
    frames: A,
    tlb: Tlb<I, S>,
) -> Result<FourLevelTable<A, OffsetMap<'t>, Tlb<I, S>, R>, RootNotByOffset>
where
    A: FrameAllocator,
    I: TlbInstructions,
    S: Shootdown,
    R: Roots,
{
    let offset = VirtAddr::new(table.phys_offset().as_u64());
    let root = ptr::from_mut(table.level_4_table_mut()).expose_provenance() as u64;
    let not_by_offset = RootNotByOffset {
        table: VirtAddr::new(root),
        offset,
    };
    let address = root.checked_sub(offset.get()).ok_or(not_by_offset)?;
    let address = x86_64::PhysAddr::try_new(address).map_err(|_| not_by_offset)?;
    if !address.is_aligned(Granule::Size4K.bytes()) {
        return Err(not_by_offset);
    }
    let root = PhysAddr::new(address.as_u64()).frame(Granule::Size4K);
    let root = root.ok_or(not_by_offset)?;
    let map = OffsetMap {
        // SAFETY: 1: the caller's duty 2.
        map: unsafe { linear_map_of(table) },
        table: PhantomData,
    };
    // SAFETY: 1: `OffsetPageTable` is over a table of this format, whose own duties the caller of
    // `OffsetPageTable::new` has; the caller's duty 3. 2: the caller's duties 1 and 2. 3: the table is
    // borrowed. 4 and 5: the caller's duties 4 and 5.
    Ok(unsafe { FourLevelTable::new(root, roots, frames, map, tlb) })
}
