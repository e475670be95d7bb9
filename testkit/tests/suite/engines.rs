//! A page table has no state of its own: kernels make one each time that they take their lock, and
//! several may be for one tree, one after the other.

use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use hosted::AnyTable;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::error::ErrorKind;
use mm_core::frame::{FrameAllocator, InspectFrames, Released};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use testkit::engine::{EngineParts, WithEngine};
use testkit::on_radix_backends;
use testkit::testbed::Sizes;

struct Machine<R: WithEngine> {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: SimMmu<R::Walker>,
}

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

impl<R: WithEngine> Machine<R> {
    fn new() -> Self {
        // Above all memory of the tests.
        let ram = PfnRange::new(Pfn::new(1 << 30).unwrap(), 1 << 12).unwrap();
        let root = ram.last().saturating_add(1 << 10);
        let granule = R::RADIX_MODEL.granule();
        let memory = SimMemory::new(granule, &[ram, PfnRange::single(root)]).unwrap();
        let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
        let cpu = SimTlb::new(R::walker(), &memory, root);
        cpu.watch(&frames);
        let mmu = SimMmu::new(vec![cpu]);
        Self {
            memory,
            frames,
            root,
            mmu,
        }
    }

    /// An engine, for one call or for several.
    fn table(&self) -> AnyTable<'_> {
        let parts = EngineParts {
            root: self.root,
            other_roots: None,
            frames: &self.frames,
            memory: &self.memory,
            mmu: &self.mmu,
        };
        // SAFETY: 1: of the table's, 1: the root is zero at first, and only such tables write below it. 2: the
        // memory has all frames. 3: one is used at a time. 4: there is one CPU. 5: there is one root. 6: there
        // is one allocator.
        unsafe { R::engine(parts) }
    }

    fn vmemmap(&self, model: MemoryModel) -> Array<'_> {
        // SAFETY: 1 to 4: one memory, one tree, and one vmemmap in each part of the addresses.
        unsafe { Vmemmap::new(model, &self.frames, &self.memory) }.unwrap()
    }

    fn audit(&self, vmemmap: &Array<'_>) -> AuditReport {
        let mut scratch = vec![AuditSlot::default(); 1 << 13];
        let audit = vmemmap.audit(&self.table(), &[&self.frames], &mut scratch);
        assert!(self.memory.violations().is_empty());
        audit.unwrap()
    }
}

/// Takes every frame once, and writes to it, so that whoever uses one that is free is found out.
fn reuse_all_frames<R: WithEngine>(machine: &Machine<R>) {
    let mut taken = Vec::new();
    while let Ok(run) = machine.frames.allocate_run(1 << 10, NodeId::new(0)) {
        for index in 0..run.frames() {
            let words = machine.memory.words(run.start().saturating_add(index));
            for word in words.unwrap() {
                word.store(0xdead_beef_dead_beef, std::sync::atomic::Ordering::Relaxed);
            }
        }
        taken.push(run);
    }
    for run in taken {
        // SAFETY: 1 and 2: allocated just now, and not mapped.
        unsafe { machine.frames.release_run(run) };
    }
}

/// What is online through one engine goes offline through another; the frames of what was shared are
/// somebody else's then. The first engine must not link them.
fn what_one_engine_shares_another_may_free<R: WithEngine>() {
    let model = R::RADIX_MODEL;
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.gigantic(), 2, 2)];
    let gigantic = Geometry::compound(sizes.gigantic());
    for tails in [Tails::PerOrder, Tails::PerCompound] {
        let machine = Machine::<R>::new();
        let mut vmemmap = machine.vmemmap(model);
        let pagemap = DevPagemap::new(&model, &ranges, gigantic).unwrap();
        let pagemap = pagemap.with_tails(tails).with_tables(Tables::Shared);
        let pagemap = pagemap.with_piece(Piece::Range);
        let (mut first, mut second) = (machine.table(), machine.table());
        let region = vmemmap.online(&mut first, &pagemap).unwrap();
        let cost = machine.audit(&vmemmap);
        vmemmap.offline(&mut second, region).unwrap();
        assert_eq!(machine.frames.outstanding(), 0);
        let table = machine
            .frames
            .allocate(mm_core::addr::Order::BASE, NodeId::new(0));
        let table = table.unwrap();
        let region = vmemmap.online(&mut first, &pagemap).unwrap();
        assert_eq!(machine.frames.references(table.first()), Some(1));
        // SAFETY: 1 and 2: allocated above, and not mapped.
        if let Released::Last(owned) = unsafe { machine.frames.release(table, 1) } {
            // SAFETY: 1: the allocator released it just now.
            unsafe { machine.frames.free(owned) };
        }
        assert_eq!(machine.audit(&vmemmap), cost);
        vmemmap.offline(&mut second, region).unwrap();
        reuse_all_frames(&machine);
        let region = vmemmap.online(&mut second, &pagemap).unwrap();
        assert_eq!(machine.audit(&vmemmap), cost);
        vmemmap.offline(&mut first, region).unwrap();
        assert_eq!(machine.audit(&vmemmap), AuditReport::default());
    }
}

/// With an engine for each call memory costs what it costs with one for all.
fn an_engine_for_each_call_shares_as_one_for_all_does<R: WithEngine>() {
    let model = R::RADIX_MODEL;
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.gigantic(), 2, 2)];
    let gigantic = Geometry::compound(sizes.gigantic());
    let pagemap = DevPagemap::new(&model, &ranges, gigantic).unwrap();
    let pagemap = pagemap.with_tails(Tails::PerOrder);
    let pagemap = pagemap.with_tables(Tables::Shared);
    let machine = Machine::<R>::new();
    let mut vmemmap = machine.vmemmap(model);
    let region = vmemmap.online(&mut machine.table(), &pagemap).unwrap();
    let at_once = machine.audit(&vmemmap);
    vmemmap.offline(&mut machine.table(), region).unwrap();
    let table = sizes.table().frames();
    let pieces = || {
        let start = ranges[0].start();
        (0..ranges[0].frames() / table)
            .map(move |index| PfnRange::new(start.saturating_add(index * table), table).unwrap())
    };
    for piece in pieces() {
        let populated = vmemmap.populate(&mut machine.table(), &pagemap, piece);
        assert!(populated.unwrap().is_empty());
    }
    assert_eq!(machine.audit(&vmemmap), at_once);
    for piece in pieces() {
        let gone = vmemmap.depopulate(&mut machine.table(), &pagemap, piece);
        gone.unwrap();
    }
    assert_eq!(machine.audit(&vmemmap), AuditReport::default());
}

/// Two vmemmaps, for two arrays in one tree.
fn a_region_of_another_vmemmap_is_refused<R: WithEngine>() {
    let model = R::RADIX_MODEL;
    let config = *model.config();
    // As far away as the first one is large, or at the start of its addresses if it is first there.
    let bytes = config.frames * config.descriptor_bytes;
    let quarter = Order::new((config.frames / 4).ilog2() as u8).unwrap();
    let config = ModelConfig {
        max_order: config.max_order.min(quarter),
        ..config
    };
    let other = MemoryModel::new(ModelConfig {
        frames: config.frames / 4,
        vmemmap_base: VirtAddr::new(config.vmemmap_base.get() + bytes / 2),
        ..config
    });
    let this = MemoryModel::new(ModelConfig {
        frames: config.frames / 4,
        ..config
    });
    let (this, other) = (this.unwrap(), other.unwrap());
    let machine = Machine::<R>::new();
    let (mut vmemmap, mut others) = (machine.vmemmap(this), machine.vmemmap(other));
    let sizes = Sizes::of(this);
    let ranges = [sizes.blocks(sizes.small(), 3, 2)];
    let small = Geometry::compound(sizes.small());
    let (ours, theirs) = (
        DevPagemap::new(&this, &ranges, small).unwrap(),
        DevPagemap::new(&other, &ranges, small).unwrap(),
    );
    let mut table = machine.table();
    let region = vmemmap.online(&mut table, &ours).unwrap();
    let stranger = others.online(&mut table, &theirs).unwrap();
    let out = machine.frames.outstanding();
    let refused = vmemmap.offline(&mut table, stranger).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(machine.frames.outstanding(), out);
    for (vmemmap, frame) in [(&vmemmap, ranges[0].start()), (&others, ranges[0].last())] {
        assert!(vmemmap.is_valid(&table, frame));
    }
    // It goes by pieces where it is, or as the other's region.
    others.depopulate(&mut table, &theirs, ranges[0]).unwrap();
    vmemmap.offline(&mut table, region).unwrap();
    assert_eq!(machine.frames.outstanding(), 0);
}

on_radix_backends!(
    what_one_engine_shares_another_may_free,
    an_engine_for_each_call_shares_as_one_for_all_does,
    a_region_of_another_vmemmap_is_refused,
);
