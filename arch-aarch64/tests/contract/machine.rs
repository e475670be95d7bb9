//! A machine for the tests: memory, frames, two CPUs and a page table of this crate on them, all
//! watched.

use crate::source::{Plan, Source};
use arch_aarch64::{
    Format4K, Format16K, Format64K, MODEL_4K, MODEL_16K, MODEL_64K, PageOperand, Tlb,
    TlbInstructions,
};
use arch_sim::walker::{AArch64Walker, Scanned, Walker};
use arch_sim::{SimFrames, SimMemory, SimTlb};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::frame::{DirectMap, FrameAllocator, Released};
use mm_core::paging::{
    EntryFormat, FlushScope, Leaf, MapStopped, NoRecords, OneRoot, PageTable, RadixTable, Role, Run,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

pub(crate) const NODE: NodeId = NodeId::new(0);

/// The lowest address that TTBR1 translates.
pub(crate) const LOWEST: u64 = 0xffff_0000_0000_0000;

/// A format, and where its vmemmap is.
pub(crate) trait Paging: EntryFormat + 'static {
    const BASE: VirtAddr;
    const PAGE: u64 = Self::GRANULE.bytes();
    const ENTRIES: u64 = Self::GRANULE.bytes() / 8;

    fn walker() -> AArch64Walker {
        AArch64Walker::new(Self::GRANULE)
    }

    /// The order of the leaf next above a page.
    fn huge() -> Order {
        Order::new((Self::GRANULE.shift() - 3) as u8).unwrap()
    }
}

impl Paging for Format4K {
    const BASE: VirtAddr = MODEL_4K.config().vmemmap_base;
}

impl Paging for Format16K {
    const BASE: VirtAddr = MODEL_16K.config().vmemmap_base;
}

impl Paging for Format64K {
    const BASE: VirtAddr = MODEL_64K.config().vmemmap_base;
}

/// Makes a test for each granule of a generic function.
macro_rules! for_each_granule {
    ($(fn $name:ident<$format:ident>() $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn contract<$format: Paging>() $body

            #[test]
            fn with_4k() {
                contract::<arch_aarch64::Format4K>();
            }

            #[test]
            fn with_16k() {
                contract::<arch_aarch64::Format16K>();
            }

            #[test]
            fn with_64k() {
                contract::<arch_aarch64::Format64K>();
            }
        }
    )*};
}
pub(crate) use for_each_granule;

/// What happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    DsbIshst,
    DsbIsh,
    Isb,
    Tlbi(u64),
    TlbiAll,
    /// A run was reported.
    Released,
}

/// Two CPUs in one inner shareable domain. A TLBI has no effect before the DSB behind it.
pub(crate) struct Cpus {
    all: Vec<SimTlb<AArch64Walker>>,
    page: u64,
    pending: Mutex<Vec<Option<VirtRange>>>,
    /// What all CPUs read of their own accord after each instruction.
    speculation: Mutex<Option<VirtRange>>,
    events: Mutex<Vec<Event>>,
}

impl Cpus {
    pub(crate) fn all(&self) -> &[SimTlb<AArch64Walker>] {
        &self.all
    }

    /// Makes all CPUs cache `range`, now and after each instruction.
    pub(crate) fn speculate(&self, range: VirtRange) {
        *self.speculation.lock().unwrap() = Some(range);
        self.all.iter().for_each(|cpu| cpu.fill(range));
    }

    /// The events since the last call.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        if let Some(range) = *self.speculation.lock().unwrap() {
            self.all.iter().for_each(|cpu| cpu.fill(range));
        }
    }
}

// SAFETY: 1: simulated CPUs see memory as it is. 2: all of them forget at the barrier. 3: they read
// nothing ahead.
unsafe impl TlbInstructions for Cpus {
    fn dsb_ishst(&self) {
        self.record(Event::DsbIshst);
    }

    fn dsb_ish(&self) {
        for page in std::mem::take(&mut *self.pending.lock().unwrap()) {
            let scope = match page.as_slice() {
                [] => FlushScope::Everything,
                page => FlushScope::Ranges(page),
            };
            self.all.iter().for_each(|cpu| cpu.forget(scope));
        }
        self.record(Event::DsbIsh);
    }

    fn isb(&self) {
        self.record(Event::Isb);
    }

    fn tlbi_vaae1is(&self, page: PageOperand) {
        let range = VirtRange::new(page.address(), self.page).unwrap();
        self.pending.lock().unwrap().push(Some(range));
        self.record(Event::Tlbi(page.address().get()));
    }

    fn tlbi_vmalle1is(&self) {
        self.pending.lock().unwrap().push(None);
        self.record(Event::TlbiAll);
    }
}

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
    /// RAM from frame 0 on, with room for a few of the largest leaves. The root lies above, and is
    /// no frame of the allocator's.
    pub(crate) fn new() -> Self {
        let ram = PfnRange::new(Pfn::ZERO, 4 * F::huge().frames()).unwrap();
        let root = ram.last().checked_add(7).unwrap();
        let chunks = [ram, PfnRange::single(root)];
        let memory = SimMemory::new(F::GRANULE, &chunks).unwrap();
        let frames = SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap();
        // What a frame holds when it is handed out is arbitrary, and here it looks like
        // descriptors.
        let dirty = memory.clone();
        frames.on_allocate(move |run| {
            let page = dirty.frame_pointer(run.start()).cast::<u64>();
            for entry in 0..F::ENTRIES as usize {
                // SAFETY: the frame was handed out just now, and nobody has seen it.
                unsafe { page.add(entry).write(0x0160_0000_0a00_0703) };
            }
        });
        let cpu = |_| SimTlb::new(F::walker(), &memory, root);
        let cpus = Cpus {
            all: (0..2).map(cpu).collect(),
            page: F::PAGE,
            pending: Mutex::default(),
            speculation: Mutex::default(),
            events: Mutex::default(),
        };
        cpus.all().iter().for_each(|cpu| cpu.watch(&frames));
        Self {
            memory,
            frames,
            cpus,
            root,
            format: std::marker::PhantomData,
        }
    }

    pub(crate) fn table(&self) -> RadixTable<F, &SimFrames, &SimMemory, Tlb<F, &Cpus>> {
        let mmu = Tlb::new(&self.cpus);
        // SAFETY: 1: the CPUs translate by one root.
        let roots = unsafe { OneRoot::new() };
        // SAFETY: 1: the root is zero at first, and what tests write by hand is well formed. 2: one
        // memory for all. 3: one thread. 4: the CPUs of this machine. 5: one root.
        // 6: there is one allocator.
        unsafe { RadixTable::new(self.root, roots, &self.frames, &self.memory, mmu) }
    }

    /// What the independent reader finds in `range`, and how many tables on the way. No table may
    /// be without an entry.
    pub(crate) fn read(&self, range: VirtRange) -> (Mapped, u64) {
        let mut mapped = Mapped::new();
        let mut tables = 0;
        let mut visit = |scanned| match scanned {
            Scanned::Hole(_) => {}
            Scanned::Table(table) => {
                tables += 1;
                let bytes = self.memory.page_bytes(table.frame).unwrap();
                assert!(bytes.iter().any(|byte| *byte != 0), "an empty table stays");
            }
            Scanned::Leaf(leaf) => {
                let entry = self.memory.read_u64(leaf.entry).unwrap();
                let role = match entry >> 56 & 3 {
                    1 => Role::Descriptors,
                    3 => Role::Tail,
                    _ => Role::Foreign,
                };
                if role != Role::Foreign {
                    assert!(leaf.global && !leaf.executable, "{entry:#x}");
                }
                let leaf_read = Leaf {
                    block: Block::new(leaf.frame, leaf.order(F::GRANULE)).unwrap(),
                    role,
                    writable: leaf.writable,
                };
                mapped.insert(leaf.span.start(), leaf_read);
            }
        };
        F::walker().scan(&self.memory, self.root, range, &mut visit);
        (mapped, tables)
    }

    /// Where the entry for `at` of the table with `level` (1: the last) lies; tables down to it
    /// exist.
    pub(crate) fn entry_at(&self, at: VirtAddr, level: u8) -> PhysAddr {
        let walk = F::walker().walk(&self.memory, self.root, at);
        let mut tables = walk.tables.iter();
        let table = tables.find(|table| table.level == level).unwrap();
        let level = F::LEVELS[F::LEVELS.len() - usize::from(level)];
        let index = at.get() >> level.shift & ((1 << level.index_bits) - 1);
        PhysAddr::new(table.frame.base(F::GRANULE).get() + 8 * index)
    }

    /// Writes an entry, as other parts of the kernel would.
    pub(crate) fn write_entry(&self, at: VirtAddr, level: u8, entry: u64) {
        let entry_at = self.entry_at(at, level);
        self.memory.write_u64(entry_at, entry).unwrap();
    }

    pub(crate) fn read_entry(&self, at: VirtAddr, level: u8) -> u64 {
        self.memory.read_u64(self.entry_at(at, level)).unwrap()
    }

    /// Maps `plan` into `range`, and answers what was given for it.
    pub(crate) fn map(&self, range: VirtRange, plan: Plan) -> Mapped {
        let mut source = Source::<F>::new(&self.frames, plan);
        self.map_from(range, &mut source).unwrap();
        source.mapped
    }

    pub(crate) fn map_from(
        &self,
        range: VirtRange,
        source: &mut Source<'_, F>,
    ) -> Result<(), MapStopped<&'static str>> {
        // SAFETY: 1: the source gives frames of its own. 2: nobody uses the addresses.
        unsafe { self.table().map_runs(range, NODE, source, &NoRecords) }
    }

    /// Unmaps `ranges`, gives back what is reported, and answers the runs.
    pub(crate) fn unmap(&self, ranges: &[VirtRange]) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut release = |run: Run| {
            self.cpus.record(Event::Released);
            for index in 0..run.count {
                let block = run.block(index).unwrap();
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

    /// Nothing is out and nothing was done against the rules.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.frames.outstanding(), 0);
        let violations = self.memory.violations();
        assert!(violations.is_empty(), "{violations}");
    }
}

/// `count` pages from `at` on.
pub(crate) fn pages<F: Paging>(at: u64, count: u64) -> VirtRange {
    VirtRange::new(VirtAddr::new(at), count * F::PAGE).unwrap()
}

/// `count` pages, the first of them `offset` pages after the base of the vmemmap.
pub(crate) fn vmemmap<F: Paging>(offset: u64, count: u64) -> VirtRange {
    pages::<F>(F::BASE.get() + offset * F::PAGE, count)
}

/// The address `offset` pages after the base of the vmemmap.
pub(crate) fn at<F: Paging>(offset: u64) -> VirtAddr {
    vmemmap::<F>(offset, 1).start()
}
