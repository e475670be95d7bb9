//! A machine for the tests: memory, frames, two harts and a page table of this crate on them, all watched.

use arch_riscv64::{
    Fence, MODEL_SV39, MODEL_SV48, MODEL_SV57, RemoteFences, Sv39, Sv48, Sv57, SvFormat, Tlb,
    TlbInstructions,
};
use arch_sim::walker::{RiscV64Walker, Scanned, Walker};
use arch_sim::{SimFrames, SimMemory, SimTlb};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::{DirectMap, FrameAllocator, Released};
use mm_core::paging::{
    FlushScope, Leaf, MapStopped, Mmu, NoRecords, OneRoot, PageTable, RadixTable, Role, Run,
    RunSource,
};
use std::cell::Cell;
use std::collections::BTreeMap;

const NODE: NodeId = NodeId::new(0);

/// The entries of a table.
pub(crate) const ENTRIES: u64 = 512;

/// A format, and where its vmemmap is.
pub(crate) trait Mode: SvFormat + 'static {
    const BASE: VirtAddr;
    const WALKER: RiscV64Walker;
}

impl Mode for Sv39 {
    const BASE: VirtAddr = MODEL_SV39.config().vmemmap_base;
    const WALKER: RiscV64Walker = RiscV64Walker::sv39();
}

impl Mode for Sv48 {
    const BASE: VirtAddr = MODEL_SV48.config().vmemmap_base;
    const WALKER: RiscV64Walker = RiscV64Walker::sv48();
}

impl Mode for Sv57 {
    const BASE: VirtAddr = MODEL_SV57.config().vmemmap_base;
    const WALKER: RiscV64Walker = RiscV64Walker::sv57();
}

/// Makes a test for each mode of a generic function.
macro_rules! for_each_mode {
    ($(fn $name:ident<$format:ident>() $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn contract<$format: crate::machine::Mode>() $body

            #[test]
            fn in_sv39() {
                contract::<arch_riscv64::Sv39>();
            }

            #[test]
            fn in_sv48() {
                contract::<arch_riscv64::Sv48>();
            }

            #[test]
            fn in_sv57() {
                contract::<arch_riscv64::Sv57>();
            }
        }
    )*};
}
pub(crate) use for_each_mode;

/// Two harts. Both cache entries that are not valid, and a fence with an address reaches leaves only.
pub(crate) struct Harts {
    all: [SimTlb<RiscV64Walker>; 2],
    current: Cell<usize>,
    remote_fences: Cell<u64>,
}

impl Harts {
    pub(crate) fn all(&self) -> &[SimTlb<RiscV64Walker>] {
        &self.all
    }

    /// Makes both cache `range`, what is not valid too.
    pub(crate) fn speculate(&self, range: VirtRange) {
        self.all.iter().for_each(|hart| hart.fill(range));
    }

    /// How often the other hart was made to fence since the last call.
    pub(crate) fn take_remote_fences(&self) -> u64 {
        self.remote_fences.take()
    }

    fn current(&self) -> &SimTlb<RiscV64Walker> {
        &self.all[self.current.get()]
    }
}

// SAFETY: 1 and 2: the simulated hart drops these. 3: it sees stores in the order of the host.
unsafe impl TlbInstructions for Harts {
    fn sfence_vma(&self, at: VirtAddr) {
        let byte = [VirtRange::single(at)];
        self.current().forget_leaves(FlushScope::Leaves(&byte));
    }

    fn sfence_vma_all(&self) {
        self.current().flush_all();
    }

    fn fence(&self) {}
}

// SAFETY: 1: the other hart is the current one for the time of the fence.
unsafe impl RemoteFences for Harts {
    fn on_other_harts(&self, fence: Fence<'_>) {
        self.remote_fences.set(self.remote_fences.get() + 1);
        let current = self.current.get();
        self.current.set(1 - current);
        fence.execute(self);
        self.current.set(current);
    }
}

/// What is mapped: the leaf at each first address.
pub(crate) type Mapped = BTreeMap<VirtAddr, Leaf>;

pub(crate) type Table<'m, F, U> = RadixTable<F, &'m SimFrames, &'m SimMemory, U>;

pub(crate) struct Machine<F> {
    pub(crate) memory: SimMemory,
    pub(crate) frames: SimFrames,
    pub(crate) harts: Harts,
    pub(crate) root: Pfn,
    format: std::marker::PhantomData<F>,
}

impl<F: Mode> Machine<F> {
    /// RAM from frame 0 on. The root lies above, and is no frame of the allocator's.
    pub(crate) fn new() -> Self {
        let ram = PfnRange::new(Pfn::ZERO, 8 * ENTRIES).unwrap();
        let root = ram.last().checked_add(7).unwrap();
        let chunks = [ram, PfnRange::single(root)];
        let memory = SimMemory::new(Granule::Size4K, &chunks).unwrap();
        let frames = SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap();
        // What a frame holds when it is handed out is arbitrary, and here it looks like entries.
        let dirty = memory.clone();
        frames.on_allocate(move |run| {
            let page = dirty.frame_pointer(run.start()).cast::<u64>();
            for entry in 0..ENTRIES as usize {
                // SAFETY: the frame was handed out just now, and nobody has seen it.
                unsafe { page.add(entry).write(0x2_8000 | 0x1e7) };
            }
        });
        let hart = |_| {
            let hart = SimTlb::new(F::WALKER, &memory, root);
            hart.cache_holes();
            hart.watch(&frames);
            hart
        };
        let harts = Harts {
            all: std::array::from_fn(hart),
            current: Cell::new(0),
            remote_fences: Cell::new(0),
        };
        Self {
            memory,
            frames,
            harts,
            root,
            format: std::marker::PhantomData,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        NODE
    }

    pub(crate) fn walker(&self) -> RiscV64Walker {
        F::WALKER
    }

    pub(crate) fn table(&self) -> Table<'_, F, Tlb<&Harts, &Harts>> {
        self.table_with(Tlb::new(&self.harts, &self.harts))
    }

    /// The page table, with another MMU.
    pub(crate) fn table_with<U: Mmu<F>>(&self, mmu: U) -> Table<'_, F, U> {
        // SAFETY: 1: the harts translate by one root.
        let roots = unsafe { OneRoot::new() };
        // SAFETY: 1: the root is zero at first, and what tests write by hand is well formed. 2: one memory for all. 3: one thread. 4: the
        // harts of this machine; what a flawed MMU leaves cached is what its test is about. 5: one root. 6: there is one allocator.
        unsafe { RadixTable::new(self.root, roots, &self.frames, &self.memory, mmu) }
    }

    pub(crate) fn source(&self, plan: Plan) -> Source<'_> {
        Source {
            frames: &self.frames,
            plan,
            mapped: Mapped::new(),
        }
    }

    /// What the independent reader finds in `range`, and how many tables on the way.
    pub(crate) fn read(&self, range: VirtRange) -> (Mapped, u64) {
        let mut mapped = Mapped::new();
        let mut tables = 0;
        F::WALKER.scan(
            &self.memory,
            self.root,
            range,
            &mut |scanned| match scanned {
                Scanned::Hole(_) => {}
                Scanned::Table(_) => tables += 1,
                Scanned::Leaf(leaf) => {
                    let entry = self.memory.read_u64(leaf.entry).unwrap();
                    let read = Leaf {
                        block: Block::new(leaf.frame, leaf.order(Granule::Size4K)).unwrap(),
                        role: match entry >> 8 & 3 {
                            1 => Role::Descriptors,
                            3 => Role::Tail,
                            _ => Role::Foreign,
                        },
                        writable: leaf.writable,
                    };
                    assert!(!leaf.executable, "{entry:#x}");
                    mapped.insert(leaf.span.start(), read);
                }
            },
        );
        (mapped, tables)
    }

    /// Maps `plan` into `range`, and answers what was given for it.
    pub(crate) fn map(&self, range: VirtRange, plan: Plan) -> Mapped {
        self.map_with(&mut self.table(), range, plan).unwrap()
    }

    pub(crate) fn map_with(
        &self,
        table: &mut impl PageTable,
        range: VirtRange,
        plan: Plan,
    ) -> Result<Mapped, MapStopped<&'static str>> {
        let mut source = self.source(plan);
        // SAFETY: 1: the source gives frames of its own. 2: nobody uses the addresses.
        unsafe { table.map_runs(range, NODE, &mut source, &NoRecords) }?;
        Ok(source.mapped)
    }

    /// Unmaps `range`, and gives back what is reported.
    pub(crate) fn unmap(&self, range: VirtRange) {
        self.unmap_with(&mut self.table(), range);
    }

    pub(crate) fn unmap_with(&self, table: &mut impl PageTable, range: VirtRange) {
        let mut release = |run: Run| {
            for index in 0..run.count {
                let block = run.block(index).unwrap();
                // SAFETY: 1 and 2: the entry's reference, after the flush.
                if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                    // SAFETY: 1: it released the block just now.
                    unsafe { self.frames.free(owned) };
                }
            }
        };
        // SAFETY: 1: nobody uses the addresses. 2: the range was mapped.
        unsafe { table.unmap([range].into_iter(), &mut release, &NoRecords) };
    }

    /// What each hart has cached for `range` is what the tables say.
    pub(crate) fn recheck(&self, range: VirtRange) {
        self.harts.all.iter().for_each(|hart| hart.recheck(range));
    }

    /// Nothing is out and nothing was done against the rules.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.frames.outstanding(), 0);
        let violations = self.memory.violations();
        assert!(violations.is_empty(), "{violations}");
    }
}

/// Which runs a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// As many frames that follow each other as are asked for.
    Distinct,
    /// One read-only frame for all.
    Tails,
    /// Huge leaves where they fit, single frames elsewhere.
    Huge,
}

/// A source whose frames come from the machine.
pub(crate) struct Source<'m> {
    frames: &'m SimFrames,
    plan: Plan,
    pub(crate) mapped: Mapped,
}

impl RunSource for Source<'_> {
    type Error = &'static str;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, Self::Error> {
        let no_frame = |_| "no frame";
        let run = match self.plan {
            Plan::Distinct => {
                let frames = self.frames.allocate_run(pages, NODE).map_err(no_frame)?;
                Run::each(frames, Role::Descriptors)
            }
            Plan::Tails => {
                let tail = self.frames.allocate(Order::BASE, NODE).map_err(no_frame)?;
                let tail = tail.first();
                if pages > 1 {
                    // SAFETY: 1: from this allocator. 2: given back with the entries.
                    unsafe { self.frames.acquire(tail, pages - 1) }.unwrap();
                }
                let mut run = Run::repeat(tail, pages, Role::Tail);
                run.leaf.writable = false;
                run
            }
            Plan::Huge => {
                let block = self.frames.allocate(largest, NODE).map_err(no_frame)?;
                Run::once(Leaf {
                    block,
                    role: Role::Descriptors,
                    writable: true,
                })
            }
        };
        for index in 0..run.count {
            let block = run.block(index).unwrap();
            let offset = (index * block.order().frames()) << 12;
            let leaf = Leaf { block, ..run.leaf };
            self.mapped.insert(at.checked_add(offset).unwrap(), leaf);
        }
        Ok(run)
    }

    fn return_unused(&mut self, run: Run) {
        for index in (0..run.count).rev() {
            let block = run.block(index).unwrap();
            self.mapped.pop_last().unwrap();
            // SAFETY: 1 and 2: given by this source, with a reference for each leaf.
            if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                // SAFETY: 1: it released the block just now.
                unsafe { self.frames.free(owned) };
            }
        }
    }
}

/// `count` pages from `at` on.
pub(crate) fn pages(at: u64, count: u64) -> VirtRange {
    VirtRange::new(VirtAddr::new(at), count << 12).unwrap()
}

/// `count` pages, the first of them `offset` pages after the base of the vmemmap.
pub(crate) fn vmemmap<F: Mode>(offset: u64, count: u64) -> VirtRange {
    pages(F::BASE.get() + (offset << 12), count)
}
