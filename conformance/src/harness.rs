//! What the author of a backend brings.

use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::{Altmap, DirectMap, FrameAllocator, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::paging::{Leaf, PageTable};
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::AuditSlot;

/// A backend under test.
///
/// # For implementers
///
/// [`parts`](Self::parts) is called once for each check. It may give the same page table each time,
/// since a check leaves it as it was. After one that failed, [`renew`](Self::renew) is called.
///
/// Types are chosen so that a kernel can hand over what it has: the page table that it runs on,
/// with nothing mapped in the vmemmap's part of it, its own allocator, and some memory to count in.
pub trait Harness {
    /// The page table.
    type Table: PageTable;
    /// The allocator of RAM. Serves nothing else while a check runs, if its
    /// [`InspectFrames::outstanding`] answers.
    type Frames: FrameAllocator + InspectFrames;
    /// The direct map.
    type DirectMap: DirectMap;
    /// What else the harness can do.
    type Controls: Controls<Self::Table>;

    /// All of it.
    fn parts(&mut self) -> Parts<'_, Self>;

    /// Makes everything anew after a check has failed: a page table in which nothing is mapped, an
    /// allocator, a direct map and an altmap from which nothing is out. Says whether it could. If it
    /// could not, the checks that are left are skipped, since they might find what the failed one left.
    fn renew(&mut self) -> bool {
        false
    }
}

/// What a check works with.
///
/// # What the battery needs
///
/// - *Descriptors* of 64 bytes: they are `Page`, whatever the kernel's own are, so `model` says 64.
/// - *RAM*: enough for the descriptors and tables of what checks bring online at a time, which is
///   three huge leaves' worth of frames where the page table has huge leaves, and else some
///   hundreds. 2^14 frames are enough with leaves of 32 pages, 2^13 with leaves of 512.
/// - *Orders*: single frames, blocks of order 2, and blocks of a huge leaf where the page table has
///   one. Checks that find no block of a huge leaf are skipped; those that find none of order 2
///   fail. Blocks are [split](FrameAllocator::can_split) unless the allocator says that it cannot.
/// - *References*: 2^20 on one frame, or as many as the allocator
///   [counts](FrameAllocator::most_references).
pub struct Parts<'h, H: Harness + ?Sized> {
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// The page table; nothing is mapped in the vmemmap, or all of it is foreign.
    pub table: &'h mut H::Table,
    /// The allocator.
    pub frames: &'h H::Frames,
    /// The direct map.
    pub direct_map: &'h H::DirectMap,
    /// What the harness can do besides.
    pub controls: &'h H::Controls,
    /// Memory whose descriptors checks may bring online. Never accessed itself, but for the
    /// altmap's part. The more there is, and the larger the blocks that it is aligned to, the
    /// fewer checks are skipped: three blocks of eight sections, or of what two leaf tables describe
    /// where that is more, are enough for all.
    pub device: PfnRange,
    /// The node that frames are asked of.
    pub node: NodeId,
    /// An altmap with nothing handed out, over the first subsection of `device`, or a few of them:
    /// at most as many frames as the descriptors of two sections fill. Those frames can be
    /// accessed. Its descriptors are `Page<Mask>`, those of the checks that use it.
    pub altmap: Option<&'h dyn AltmapUnderTest>,
    /// Scratch memory for audits; a slot for each frame that is out is enough.
    pub scratch: &'h mut [AuditSlot],
    /// Whether the first and the last subsection of the vmemmap are free to be brought online.
    pub ends_are_free: bool,
}

/// An altmap whose counts can be read.
pub trait AltmapUnderTest: Altmap + InspectFrames {
    /// The altmap as such.
    fn as_altmap(&self) -> &dyn Altmap;
    /// Its counts.
    fn as_inspect(&self) -> &dyn InspectFrames;
}

impl<T: Altmap + InspectFrames> AltmapUnderTest for T {
    fn as_altmap(&self) -> &dyn Altmap {
        self
    }

    fn as_inspect(&self) -> &dyn InspectFrames {
        self
    }
}

/// A translation as an independent reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The frame.
    pub frame: Pfn,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether instruction fetches are.
    pub executable: bool,
}

/// How often other roots were told of the root's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootChanges {
    /// Of entries that became present.
    pub installed: u64,
    /// Of entries that went.
    pub removed: u64,
}

/// What a harness can control and observe: faults, foreign mappings, translations, flushes.
///
/// Every method has a default body that says that it cannot. What a kernel cannot do is skipped
/// there.
pub trait Controls<T> {
    /// What `at` translates to, read by other code than the page table's own: the hardware's (a
    /// load, `AT S1E1R`) or a reader of bytes. The outer `None`: cannot.
    fn translate(&self, table: &T, at: VirtAddr) -> Option<Option<Seen>> {
        let _ = (table, at);
        None
    }

    /// Makes all allocations after the next `n` fail; `None` ends that. Says whether it could.
    fn fail_after(&self, n: Option<u64>) -> bool {
        let _ = n;
        false
    }

    /// Makes allocations of more than one frame fail, as in fragmented memory, or succeed again.
    /// Says whether it could.
    fn fail_blocks(&self, fail: bool) -> bool {
        let _ = fail;
        false
    }

    /// Maps `leaf` at `at` as other code of the kernel would. Says whether it could.
    fn map_foreign(&self, table: &mut T, at: VirtAddr, leaf: Leaf) -> bool {
        let _ = (table, at, leaf);
        false
    }

    /// Removes what `map_foreign` has mapped at `at`, and the tables that it made for that.
    fn unmap_foreign(&self, table: &mut T, at: VirtAddr) {
        let _ = (table, at);
    }

    /// Links tables of other code's, with nothing in them, down to that of base pages for `at`. Says
    /// whether it could.
    fn link_foreign_tables(&self, table: &mut T, at: VirtAddr) -> bool {
        let _ = (table, at);
        false
    }

    /// Unlinks what `link_foreign_tables` has linked for `at`. Says whether it was linked still.
    fn unlink_foreign_tables(&self, table: &mut T, at: VirtAddr) -> bool {
        let _ = (table, at);
        true
    }

    /// Puts something into the entry for `at` of a leaf of `order`: not zero, not present, and none
    /// of this library's, as other code of the kernel may keep something there. Says whether it
    /// could.
    fn plant_reserved(&self, table: &mut T, at: VirtAddr, order: Order) -> bool {
        let _ = (table, at, order);
        false
    }

    /// Takes out what `plant_reserved` has put there. Says whether it was there, as it had been.
    fn take_reserved(&self, table: &mut T, at: VirtAddr) -> bool {
        let _ = (table, at);
        true
    }

    /// An address that the CPUs do not translate by the tables, and that has the same place in
    /// each table as `at`: one that differs from it in the bits above those that index the root.
    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        let _ = at;
        None
    }

    /// What an access at `at` leads to on a CPU that has cached whatever it could. The outer `None`:
    /// cannot tell.
    fn access(&self, table: &T, at: VirtAddr) -> Option<Option<Pfn>> {
        let _ = (table, at);
        None
    }

    /// In which frame a CPU finds `at`, an address of the vmemmap, when it reads there now. Unlike the
    /// others it is asked in the midst of calls of the page table, at every flush, when the CPU may have
    /// cached what was mapped before. The outer `None`: nobody reads beside the writer here.
    fn read(&self, at: VirtAddr) -> Option<Option<Pfn>> {
        let _ = at;
        None
    }

    /// A root for the readers' map of what is online, [with as many entries as the model
    /// needs](MemoryModel::online_entries). All of them are new when the harness is, and nobody else uses
    /// them. `None`: there are no readers.
    ///
    /// Checks beside readers take a stack of 48 KiB. 32 are enough for all others.
    fn online_root(&self) -> Option<&[OnlineEntry]> {
        None
    }

    /// Makes every CPU cache all that is mapped in `range`, as speculation may.
    fn speculate(&self, table: &T, range: VirtRange) {
        let _ = (table, range);
    }

    /// How many flushes the CPUs have done so far, as counted where they are started: one for each
    /// [`Flush`](mm_core::paging::Flush) that was met, however many addresses it was about.
    fn flushes(&self, table: &T) -> Option<u64> {
        let _ = table;
        None
    }

    /// How many changes of the root's entries other roots were told.
    fn root_changes(&self) -> Option<RootChanges> {
        None
    }

    /// How many rules were broken so far, by the log of whoever watches: frames freed twice, or
    /// while cached.
    fn violations(&self) -> u64 {
        0
    }
}
