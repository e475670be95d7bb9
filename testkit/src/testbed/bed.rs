//! The machine, its page table, its vmemmap and its altmaps, as one value.

use super::altmap::{TestAltmap, WatchedAltmap};
use super::descriptor::{SeenDescriptor, TestDescriptor};
use super::setup::{Encoding, Setup};
use super::stats::Stats;
use crate::{TestMachine, TestTable};
use arch_sim::{Fault, SimFrames, SimMemory, TableWatch};
use hosted::BackendKind;
use hosted::inspect::{SeenEntry, SeenLeaf};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page, Pointer};
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::Leaf;
use mm_core::vmemmap::{
    AuditReport, AuditSlot, Finding, FoldError, Folded, ListedPage, MarkError, MarkStats, Notes,
    OfflineError, Offlined, OnlineError, Region, ReorderStopped, Reordered, Reserve, Vmemmap,
    Workers,
};
use std::collections::{BTreeMap, BTreeSet};

/// A vmemmap on a machine with the page table of some backend.
///
/// Operations are those of [`Vmemmap`]. What follows from them is in the methods of
/// `dyn Testbed`.
pub trait Testbed<'m> {
    /// The backend's name.
    fn name(&self) -> &'static str;
    /// Where descriptors lie.
    fn model(&self) -> MemoryModel;
    /// Whether there are tables below the root that cost frames.
    fn has_tables(&self) -> bool;
    /// The page table's leaf next in size above a base page.
    fn huge_leaf(&self) -> Option<Order>;
    /// Whether the page table can link a table from several places.
    fn shares_tables(&self) -> bool;
    /// The allocator of RAM.
    fn frames(&self) -> &'m SimFrames;
    /// Physical memory.
    fn memory(&self) -> &'m SimMemory;
    /// What the page table does to its tables.
    fn table_watch(&self) -> &'m TableWatch;
    /// How often the page table made CPUs forget something.
    fn flushes(&self) -> u64;
    /// Whether the library says that an altmap in use reserves `frame`.
    fn is_reserved(&self, frame: Pfn) -> bool;

    /// The altmaps, in the order of the setup.
    fn altmaps(&self) -> Vec<&'m dyn TestAltmap>;

    /// See [`Vmemmap::use_workers`].
    fn use_workers(&mut self, workers: Option<&'static dyn Workers>);
    /// See [`Vmemmap::online`].
    fn online<'p>(&mut self, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, OnlineError>;
    /// See [`Vmemmap::offline`].
    fn offline(&mut self, region: Region<'_>) -> Offlined;
    /// See [`Vmemmap::populate`].
    fn populate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange)
    -> Result<Notes, OnlineError>;
    /// See [`Vmemmap::depopulate`].
    fn depopulate(
        &mut self,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<Offlined, OfflineError>;
    /// See [`Vmemmap::fold`].
    fn fold(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<Folded, FoldError>;
    /// See [`Vmemmap::unfold`].
    fn unfold(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<Folded, FoldError>;
    /// See [`Vmemmap::reshape`].
    fn reshape(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<(), FoldError>;
    /// See [`Vmemmap::reorder`].
    fn reorder(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, ReorderStopped>;
    /// See [`Vmemmap::reorder_step`].
    fn reorder_step(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, FoldError>;
    /// See [`Vmemmap::reserve_needed`].
    fn reserve_needed(&self, pagemap: &DevPagemap<'_>, frames: PfnRange, largest: Order)
    -> Reserve;
    /// See [`Vmemmap::fill_reserve`].
    fn fill_reserve(&mut self, node: NodeId, wanted: Reserve) -> Result<Notes, FoldError>;
    /// See [`Vmemmap::empty_reserve`].
    fn empty_reserve(&mut self);
    /// See [`Vmemmap::reserve`].
    fn reserve(&self, node: NodeId) -> Reserve;
    /// See [`Vmemmap::pages`].
    fn pages(&self, frames: PfnRange) -> Vec<ListedPage>;
    /// See [`Vmemmap::mark`].
    fn mark(&mut self, frame: Pfn, node: NodeId) -> Result<bool, MarkError>;
    /// See [`Vmemmap::unmark`].
    fn unmark(&mut self, frame: Pfn) -> bool;
    /// See [`Vmemmap::is_marked`].
    fn is_marked(&self, frame: Pfn) -> bool;
    /// See [`Vmemmap::marked`]; each frame once.
    fn marked(&self, frames: PfnRange) -> BTreeSet<Pfn>;
    /// See [`Vmemmap::mark_stats`].
    fn mark_stats(&self) -> MarkStats;
    /// See [`Vmemmap::for_each_node`] and [`Vmemmap::stats`].
    fn stats(&self) -> Stats;
    /// See [`Vmemmap::head_of`].
    fn head_of(&self, frame: Pfn) -> Option<Pfn>;
    /// See [`Vmemmap::audit`].
    fn recount_by_library(&mut self) -> Result<AuditReport, Finding>;

    /// Shows every table and every leaf, as a reader of bytes comes to them.
    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry));
    /// The leaf that translates `at`, as a reader of bytes sees it.
    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf>;
    /// Reads the bytes of a descriptor, which lies at `at` in the vmemmap.
    fn read_descriptor(&self, at: VirtAddr, bytes: &[u8]) -> SeenDescriptor;
    /// What a kernel keeps in the descriptor of `frame`; `None` where it is not online.
    fn state_of(&self, frame: Pfn) -> Option<[u64; 4]>;
    /// Keeps something there that follows from `seed`, which is what `state_of` then says.
    fn set_state_of(&self, frame: Pfn, seed: u64);

    /// Makes all CPUs cache the descriptors of `frames`, and all packed heads.
    fn fill_cpus(&self, frames: PfnRange);
    /// How many leaves and tables all CPUs have cached.
    fn cached_by_cpus(&self) -> usize;
    /// Stores at `at` by a CPU; `None` where there are none.
    fn store(&self, at: VirtAddr) -> Option<Result<PhysAddr, Fault>>;
    /// Maps `leaf` at `at` as somebody else would. Says whether there was a place for it.
    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool;
    /// Links empty tables for `at` as somebody else would. Says whether it could.
    fn link_foreign_tables(&mut self, at: VirtAddr) -> bool;
    /// Takes away what somebody else has at `at`, and their tables that are empty then.
    fn unmap_foreign(&mut self, at: VirtAddr);
}

struct Bed<'m, D> {
    machine: &'m TestMachine,
    model: MemoryModel,
    table: TestTable<'m>,
    vmemmap: Vmemmap<D, &'m SimFrames, &'m SimMemory>,
    altmaps: &'m [WatchedAltmap<'m>],
    scratch: Vec<AuditSlot>,
}

impl<D: TestDescriptor> Bed<'_, D> {
    /// The descriptor of `frame` in the frame that holds it: also one that others share, which the
    /// library gives to nobody.
    fn descriptor_of(&self, frame: Pfn) -> Option<&D> {
        let shift = self.model.granule().shift();
        let at = self.model.descriptor_address(frame)?;
        let leaf = self.table.leaf(at).filter(|leaf| leaf.owned)?;
        let page = self
            .machine
            .memory()
            .frame_pointer(leaf.frame_at(at, shift));
        let index = frame.get() % self.model.descriptors_per_page();
        // SAFETY: the library maps the frame as a page of descriptors of this size; they are only
        // shared.
        Some(unsafe { page.cast::<D>().add(index as usize).as_ref() })
    }
}

impl<'m, D: TestDescriptor> Testbed<'m> for Bed<'m, D> {
    fn name(&self) -> &'static str {
        self.machine.facts().name
    }

    fn model(&self) -> MemoryModel {
        self.model
    }

    fn has_tables(&self) -> bool {
        self.machine.facts().has_tables
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.machine.facts().huge_leaf
    }

    fn shares_tables(&self) -> bool {
        self.machine.facts().shares_tables
    }

    fn frames(&self) -> &'m SimFrames {
        self.machine.frames()
    }

    fn memory(&self) -> &'m SimMemory {
        self.machine.memory()
    }

    fn table_watch(&self) -> &'m TableWatch {
        self.machine.table_watch()
    }

    fn flushes(&self) -> u64 {
        self.table.flushes()
    }

    fn altmaps(&self) -> Vec<&'m dyn TestAltmap> {
        let altmaps = self.altmaps.iter();
        altmaps.map(|altmap| altmap as &dyn TestAltmap).collect()
    }

    fn use_workers(&mut self, workers: Option<&'static dyn Workers>) {
        self.vmemmap.use_workers(workers);
    }

    fn online<'p>(&mut self, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, OnlineError> {
        self.vmemmap.online(&mut self.table, pagemap)
    }

    fn offline(&mut self, region: Region<'_>) -> Offlined {
        self.vmemmap.offline(&mut self.table, region).unwrap()
    }

    fn populate(
        &mut self,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<Notes, OnlineError> {
        self.vmemmap.populate(&mut self.table, pagemap, piece)
    }

    fn depopulate(
        &mut self,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<Offlined, OfflineError> {
        self.vmemmap.depopulate(&mut self.table, pagemap, piece)
    }

    fn fold(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<Folded, FoldError> {
        self.vmemmap.fold(&mut self.table, pagemap, frames)
    }

    fn unfold(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<Folded, FoldError> {
        self.vmemmap.unfold(&mut self.table, pagemap, frames)
    }

    fn reshape(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<(), FoldError> {
        self.vmemmap.reshape(&self.table, pagemap, frames)
    }

    fn reorder(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, ReorderStopped> {
        self.vmemmap.reorder(&mut self.table, pagemap, frames)
    }

    fn reorder_step(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, FoldError> {
        self.vmemmap.reorder_step(&mut self.table, pagemap, frames)
    }

    fn reserve_needed(
        &self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        largest: Order,
    ) -> Reserve {
        self.vmemmap
            .reserve_needed(&self.table, pagemap, frames, largest)
    }

    fn fill_reserve(&mut self, node: NodeId, wanted: Reserve) -> Result<Notes, FoldError> {
        self.vmemmap.fill_reserve(&mut self.table, node, wanted)
    }

    fn empty_reserve(&mut self) {
        self.vmemmap.empty_reserve(&mut self.table);
    }

    fn reserve(&self, node: NodeId) -> Reserve {
        self.vmemmap.reserve(node)
    }

    fn pages(&self, frames: PfnRange) -> Vec<ListedPage> {
        self.vmemmap.pages(&self.table, frames).collect()
    }

    fn mark(&mut self, frame: Pfn, node: NodeId) -> Result<bool, MarkError> {
        self.vmemmap.mark(&self.table, frame, node)
    }

    fn unmark(&mut self, frame: Pfn) -> bool {
        self.vmemmap.unmark(frame)
    }

    fn is_marked(&self, frame: Pfn) -> bool {
        self.vmemmap.is_marked(frame)
    }

    fn marked(&self, frames: PfnRange) -> BTreeSet<Pfn> {
        let found: Vec<Pfn> = self.vmemmap.marked(frames).collect();
        let set: BTreeSet<Pfn> = found.iter().copied().collect();
        assert_eq!(set.len(), found.len(), "each marked frame is named once");
        set
    }

    fn mark_stats(&self) -> MarkStats {
        self.vmemmap.mark_stats()
    }

    fn stats(&self) -> Stats {
        let mut nodes = BTreeMap::new();
        self.vmemmap.for_each_node(&mut |node, row| {
            nodes.insert(node, row);
        });
        let stats = Stats { nodes };
        assert_eq!(stats.total(), self.vmemmap.stats(), "node by node, and all");
        stats
    }

    fn is_reserved(&self, frame: Pfn) -> bool {
        self.vmemmap.is_reserved(frame)
    }

    fn head_of(&self, frame: Pfn) -> Option<Pfn> {
        self.vmemmap.head_of(&self.table, frame)
    }

    fn recount_by_library(&mut self) -> Result<AuditReport, Finding> {
        let mut allocators: Vec<&dyn InspectFrames> = vec![self.machine.frames()];
        allocators.extend(self.altmaps.iter().map(|one| one as &dyn InspectFrames));
        let out: u64 = allocators.iter().filter_map(|one| one.outstanding()).sum();
        // Room for a slot for each of these, in a hash table that is not full.
        let slots = 64 + (out + out / 2) as usize;
        if self.scratch.len() < slots {
            self.scratch.resize(slots, AuditSlot::default());
        }
        let scratch = self.scratch.get_mut(..slots).unwrap_or_default();
        self.vmemmap.audit(&self.table, &allocators, scratch)
    }

    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry)) {
        self.table.scan(range, visit);
    }

    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf> {
        self.table.leaf(at)
    }

    fn read_descriptor(&self, at: VirtAddr, bytes: &[u8]) -> SeenDescriptor {
        D::read(at, bytes)
    }

    fn state_of(&self, frame: Pfn) -> Option<[u64; 4]> {
        self.vmemmap.descriptor(&self.table, frame)?;
        self.descriptor_of(frame).map(D::state)
    }

    fn set_state_of(&self, frame: Pfn, seed: u64) {
        self.descriptor_of(frame).unwrap().set_state(seed);
    }

    fn fill_cpus(&self, frames: PfnRange) {
        let range = self.model.descriptors(frames).unwrap();
        self.machine.cpus().fill(range);
        if let Some(heads) = self.model.heads() {
            self.machine.cpus().fill(heads);
        }
    }

    fn cached_by_cpus(&self) -> usize {
        self.machine.cpus().cached()
    }

    fn store(&self, at: VirtAddr) -> Option<Result<PhysAddr, Fault>> {
        self.machine.cpus().access(0, at, true)
    }

    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool {
        self.table.map_foreign(at, leaf)
    }

    fn link_foreign_tables(&mut self, at: VirtAddr) -> bool {
        self.table.link_foreign_tables(at)
    }

    fn unmap_foreign(&mut self, at: VirtAddr) {
        self.table.unmap_foreign(at);
        self.table.prune();
    }
}

/// A test, once.
type Test<'t> = &'t mut dyn FnMut(&mut dyn Testbed<'_>);

/// See [`OnBackend::testbed`](crate::OnBackend::testbed). Compiled once, whatever the test is.
pub fn on_testbed(kind: BackendKind, setup: &Setup, test: Test<'_>) {
    let model = kind.model();
    match setup.encoding {
        Encoding::Mask => on_model::<Page<Mask>>(kind, model, setup, test),
        Encoding::Pointer => on_model::<Page<Pointer>>(kind, model, setup, test),
    }
}

/// Makes the machine of `setup` with the page table of `kind` and a vmemmap of the descriptors `D` in
/// the model `model`, and hands it to `test`, after which nothing may be left of what it did.
pub fn on_model<D: TestDescriptor>(
    kind: BackendKind,
    model: MemoryModel,
    setup: &Setup,
    test: Test<'_>,
) {
    let machine = TestMachine::new(kind, &setup.config(&kind.model())).unwrap();
    let altmaps = setup.altmaps.iter();
    let altmaps: Vec<WatchedAltmap<'_>> = altmaps
        .map(|one| WatchedAltmap::new(&machine, &model, *one))
        .collect();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::<D, _, _>::new(model, machine.frames(), machine.memory()) };
    if let Some(cached) = setup.cached {
        let range = model.descriptors(cached).unwrap();
        machine.cpus().watch(machine.frames(), range);
    } else {
        machine.cpus().watch_frees(machine.frames());
    }
    let mut bed = Bed {
        machine: &machine,
        model,
        table: machine.take_table(setup.foreign(&kind.model())).unwrap(),
        vmemmap: vmemmap.unwrap(),
        altmaps: &altmaps,
        scratch: Vec::new(),
    };
    let bed: &mut dyn Testbed<'_> = &mut bed;
    let before = bed.snapshot();
    test(bed);
    bed.assert_unchanged(&before, "at the end");
    assert_eq!(bed.audit(), AuditReport::default(), "at the end");
}
