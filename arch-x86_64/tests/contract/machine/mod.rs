//! A machine for the tests: memory, frames, two CPUs and a page table of this crate on them, all
//! watched.

mod cpus;
mod source;

pub(crate) use cpus::{Cpus, Event};
pub(crate) use source::{Plan, Source};

use arch_sim::walker::{Scanned, Walker, X86_64Walker};
use arch_sim::{SimFrames, SimMemory};
use arch_x86_64::{FiveLevel, FourLevel, LongModeFormat, MODEL_4_LEVEL, MODEL_5_LEVEL, Tlb};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::frame::{DirectMap, FrameAllocator, Released};
use mm_core::paging::{Leaf, MapStopped, NoRecords, PageTable, RadixTable, Role, Run};
use std::collections::BTreeMap;

pub(crate) const NODE: NodeId = NodeId::new(0);
pub(crate) const PAGE: u64 = 4096;
pub(crate) const HUGE: Order = Order::new(9).unwrap();

/// A format, with the reader that knows it too.
pub(crate) trait Paging: LongModeFormat + 'static {
    const WALKER: X86_64Walker;
    const BASE: VirtAddr;
}

impl Paging for FourLevel {
    const WALKER: X86_64Walker = X86_64Walker::four_level();
    const BASE: VirtAddr = MODEL_4_LEVEL.config().vmemmap_base;
}

impl Paging for FiveLevel {
    const WALKER: X86_64Walker = X86_64Walker::five_level();
    const BASE: VirtAddr = MODEL_5_LEVEL.config().vmemmap_base;
}

/// Makes two tests of a generic function.
macro_rules! for_both_formats {
    ($(fn $name:ident<$format:ident>() $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn contract<$format: Paging>() $body

            #[test]
            fn with_four_levels() {
                contract::<arch_x86_64::FourLevel>();
            }

            #[test]
            fn with_five_levels() {
                contract::<arch_x86_64::FiveLevel>();
            }
        }
    )*};
}
pub(crate) use for_both_formats;

pub(crate) type Table<'m, F> =
    RadixTable<F, &'m SimFrames, &'m SimMemory, Tlb<&'m Cpus, &'m Cpus>, &'m Cpus>;

/// What is mapped: the leaf at each first address.
pub(crate) type Mapped = BTreeMap<VirtAddr, Leaf>;

pub(crate) struct Machine<F> {
    pub(crate) memory: SimMemory,
    pub(crate) frames: SimFrames,
    pub(crate) cpus: Cpus,
    pub(crate) root: Pfn,
    format: std::marker::PhantomData<F>,
}

impl<F: Paging> Machine<F> {
    /// 512 MiB of RAM from frame 0 on; the root is somewhere in the middle, so that frame 0 is
    /// handed out like any other.
    pub(crate) fn new() -> Self {
        let ram = PfnRange::new(Pfn::ZERO, 1 << 17).unwrap();
        let memory = SimMemory::new(Granule::Size4K, &[ram]).unwrap();
        let frames = SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap();
        let root = frames.allocate(HUGE, NODE).unwrap();
        // SAFETY: 1 and 2: the block is this function's; all frames but the last are given back
        // here.
        unsafe {
            frames.split(root);
            frames.release_run(PfnRange::new(root.first(), 511).unwrap());
        }
        let root = root.frames().last();
        // What a frame holds when it is handed out is arbitrary, and here it looks like entries.
        let dirty = memory.clone();
        frames.on_allocate(move |run| {
            let page = dirty.frame_pointer(run.start()).cast::<[u64; 512]>();
            // SAFETY: the frame was handed out just now, and nobody has seen it.
            unsafe { page.write([0x0100_0000_0666_6063; 512]) };
        });
        let cpus = Cpus::new(F::WALKER, &memory, root);
        cpus.all().iter().for_each(|cpu| cpu.watch(&frames));
        Self {
            memory,
            frames,
            cpus,
            root,
            format: std::marker::PhantomData,
        }
    }

    pub(crate) fn table(&self) -> Table<'_, F> {
        let mmu = Tlb::new(&self.cpus, &self.cpus);
        // SAFETY: 1: the root is zero at first, and what tests write by hand is well formed. 2: one
        // memory for all. 3: one thread. 4: the CPUs of this machine. 5: there are no other
        // roots; what they would be told is written down. 6: there is one allocator.
        unsafe { RadixTable::new(self.root, &self.cpus, &self.frames, &self.memory, mmu) }
    }

    /// Frames out, the root excluded.
    pub(crate) fn outstanding(&self) -> u64 {
        self.frames.outstanding() - 1
    }

    /// What the independent reader finds in `range`, and how many tables on the way. No table may
    /// be without an entry.
    pub(crate) fn read(&self, range: VirtRange) -> (Mapped, u64) {
        let mut mapped = Mapped::new();
        let mut tables = 0;
        F::WALKER.scan(
            &self.memory,
            self.root,
            range,
            &mut |scanned| match scanned {
                Scanned::Hole(_) => {}
                Scanned::Table(table) => {
                    tables += 1;
                    let bytes = self.memory.page_bytes(table.frame).unwrap();
                    assert!(bytes.iter().any(|byte| *byte != 0), "an empty table stays");
                }
                Scanned::Leaf(leaf) => {
                    let entry = self.memory.read_u64(leaf.entry).unwrap();
                    let block = Block::new(leaf.frame, leaf.order(Granule::Size4K)).unwrap();
                    mapped.insert(
                        leaf.span.start(),
                        Leaf {
                            block,
                            role: role(entry),
                            writable: leaf.writable,
                        },
                    );
                    if role(entry) != Role::Foreign {
                        assert!(leaf.global && !leaf.executable, "{entry:#x}");
                    }
                }
            },
        );
        (mapped, tables)
    }

    /// Where the entry for `at` of the table with `level` (1: base pages) lies; tables down to it
    /// exist.
    pub(crate) fn entry_at(&self, at: VirtAddr, level: u8) -> PhysAddr {
        let walk = F::WALKER.walk(&self.memory, self.root, at);
        let table = walk
            .tables
            .iter()
            .find(|table| table.level == level)
            .unwrap();
        let shift = 12 + 9 * (u32::from(level) - 1);
        let index = (at.get() >> shift) & 511;
        PhysAddr::new(table.frame.base(Granule::Size4K).get() + 8 * index)
    }

    /// Writes an entry, as other parts of the kernel or the hardware would.
    pub(crate) fn write_entry(&self, at: VirtAddr, level: u8, entry: u64) {
        self.memory
            .write_u64(self.entry_at(at, level), entry)
            .unwrap();
    }

    pub(crate) fn read_entry(&self, at: VirtAddr, level: u8) -> u64 {
        self.memory.read_u64(self.entry_at(at, level)).unwrap()
    }

    /// Links a table of somebody else's for `at` in the table with `level`, and answers its frame.
    pub(crate) fn link_foreign_table(&self, at: VirtAddr, level: u8) -> Pfn {
        let frame = self.frames.allocate(Order::BASE, NODE).unwrap().first();
        for word in 0..512 {
            let at = frame.base(Granule::Size4K).get() + 8 * word;
            self.memory.write_u64(PhysAddr::new(at), 0).unwrap();
        }
        self.write_entry(at, level, frame.base(Granule::Size4K).get() | 0x63);
        frame
    }

    /// Maps `plan` into `range`.
    pub(crate) fn map(&self, range: VirtRange, plan: Plan) -> Source<'_> {
        let mut source = Source::new(&self.frames, plan);
        self.map_from(range, &mut source).unwrap();
        source
    }

    pub(crate) fn map_from(
        &self,
        range: VirtRange,
        source: &mut Source<'_>,
    ) -> Result<(), MapStopped<&'static str>> {
        // SAFETY: 1: the source gives frames of its own. 2: nobody uses the addresses.
        unsafe { self.table().map_runs(range, NODE, source, &NoRecords) }
    }

    /// Unmaps `ranges` and gives back what is reported; answers the runs.
    pub(crate) fn unmap(&self, ranges: &[VirtRange]) -> Vec<Run> {
        let mut runs = Vec::new();
        let cpus = self.cpus.all();
        let mut release = |run: Run| {
            self.cpus.record(Event::Released);
            for index in 0..run.count {
                let block = run.block(index).unwrap();
                // A tail may be mapped elsewhere too.
                let alone = cpus.iter().filter(|_| run.leaf.role == Role::Descriptors);
                for cpu in alone {
                    for frame in 0..block.order().frames() {
                        let frame = block.first().checked_add(frame).unwrap();
                        assert!(
                            !cpu.frame_is_cached(frame),
                            "{frame} was reported while cached"
                        );
                    }
                }
                // SAFETY: 1 and 2: the entry's reference, after the flush.
                if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                    // SAFETY: 1: it released the block just now.
                    unsafe { self.frames.free(owned) };
                }
            }
            runs.push(run);
        };
        // SAFETY: 1: nobody uses the addresses. 2: the ranges were mapped.
        unsafe {
            self.table()
                .unmap(ranges.iter().copied(), &mut release, &NoRecords)
        };
        runs
    }

    /// Nothing was done against the rules so far.
    pub(crate) fn assert_no_violations(&self) {
        assert!(
            self.memory.violations().is_empty(),
            "{}",
            self.memory.violations()
        );
    }
}

/// `pages` pages from `at` on.
pub(crate) fn pages(at: u64, pages: u64) -> VirtRange {
    VirtRange::new(VirtAddr::new(at), pages * PAGE).unwrap()
}

/// `pages` pages from `offset` pages after the base of the vmemmap on.
pub(crate) fn vmemmap<F: Paging>(offset: u64, count: u64) -> VirtRange {
    pages(F::BASE.get() + offset * PAGE, count)
}

pub(crate) fn at<F: Paging>(offset: u64) -> VirtAddr {
    vmemmap::<F>(offset, 1).start()
}

/// The role that the software bits of `entry` say.
fn role(entry: u64) -> Role {
    match entry >> 56 & 3 {
        1 => Role::Descriptors,
        3 => Role::Tail,
        _ => Role::Foreign,
    }
}

/// How many leaves the runs have.
pub(crate) fn leaves(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}
