//! Values that are dropped while memory is online.
//!
//! Region, pagemap, page table and vmemmap own nothing that an entry does not: what is mapped is in
//! use by CPUs and stays mapped, and whoever comes next finds it by its entries. The exceptions are
//! what has no entry: frames of marks, which are the vmemmap's, and the figures of
//! [`Vmemmap::stats`], which begin anew.

use arch_sim::walker::X86_64Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use arch_x86_64::MODEL_4_LEVEL;
use hosted::{AnyTable, X86_64};
use mm_core::addr::{Granule, NodeId, Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tables, Tails};
use mm_core::paging::{PageTable, Replacement};
use mm_core::vmemmap::{AuditSlot, OfflineError, Region, Vmemmap};
use testkit::engine::{EngineParts, WithEngine};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const WALKER: X86_64Walker = X86_64Walker::four_level();

type Mmu = SimMmu<X86_64Walker>;
type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

struct Machine {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: Mmu,
}

impl Machine {
    fn new() -> Self {
        let ram = PfnRange::new(Pfn::new(1 << 34).unwrap(), 1 << 16).unwrap();
        let root = ram.last().saturating_add(1 << 10);
        let memory = SimMemory::new(Granule::Size4K, &[ram, PfnRange::single(root)]).unwrap();
        let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
        let cpu = SimTlb::new(WALKER, &memory, root);
        cpu.watch(&frames);
        Self {
            memory,
            frames,
            root,
            mmu: SimMmu::new(vec![cpu]).with_replacement(Replacement::Direct),
        }
    }

    /// A table over the root, whatever is below it.
    fn table(&self) -> AnyTable<'_> {
        let parts = EngineParts {
            root: self.root,
            other_roots: Some(&self.mmu),
            frames: &self.frames,
            memory: &self.memory,
            mmu: &self.mmu,
        };
        // SAFETY: 1: of the table's, 1: the root was empty at first, and only such tables have written below it.
        // 2: the memory has all frames. 3: there is one at a time. 4: there is one CPU. 5: there is one root. 6:
        // there is one allocator.
        unsafe { X86_64::engine(parts) }
    }

    fn vmemmap(&self) -> Array<'_> {
        // SAFETY: 1 to 3: one memory, one table, and this is the first vmemmap. 4: it is the first.
        unsafe { Vmemmap::new(MODEL_4_LEVEL, &self.frames, &self.memory) }.unwrap()
    }

    /// The vmemmap after that.
    fn next_vmemmap(&self) -> Array<'_> {
        // SAFETY: 1: as above. 2: the one before was of the same type. 3: there are no altmaps.
        unsafe { Vmemmap::adopt(MODEL_4_LEVEL, &self.frames, &self.memory) }.unwrap()
    }
}

fn range(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K).unwrap()
}

#[test]
fn tables_and_frames_stay_when_the_values_go_and_are_found_by_the_next() {
    for (align, tails, tables) in [
        (4 << 10, Tails::None, Tables::Private),
        (2 * MIB, Tails::PerCompound, Tables::Private),
        (2 * MIB, Tails::PerOrder, Tables::Private),
        (GIB, Tails::PerCompound, Tables::Shared),
        (GIB, Tails::PerOrder, Tables::Shared),
    ] {
        let machine = Machine::new();
        let ranges = [range(GIB, GIB)];
        let geometry = Geometry::from_bytes(align, Granule::Size4K).unwrap();
        let pagemap = || {
            DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry)
                .unwrap()
                .with_tails(tails)
                .with_tables(tables)
        };
        {
            let (mut table, mut vmemmap) = (machine.table(), machine.vmemmap());
            let _ = vmemmap.online(&mut table, &pagemap()).unwrap();
            let mut scratch = vec![AuditSlot::default(); 1 << 13];
            let audit = vmemmap.audit(&table, &[&machine.frames], &mut scratch);
            assert_eq!(audit.unwrap().frames(), machine.frames.outstanding());
        }
        assert!(machine.frames.outstanding() > 0, "what is mapped is in use");
        let (mut table, mut vmemmap) = (machine.table(), machine.next_vmemmap());
        let head = vmemmap.head_of(&table, ranges[0].last());
        assert_eq!(head, Some(ranges[0].last().align_down(geometry.order())));
        machine.mmu.cpus().iter().for_each(|cpu| {
            cpu.fill(MODEL_4_LEVEL.descriptors(ranges[0]).unwrap());
        });
        vmemmap
            .depopulate(&mut table, &pagemap(), ranges[0])
            .unwrap();
        assert_eq!(machine.frames.outstanding(), 0);
        let mut scratch = vec![AuditSlot::default(); 16];
        let audit = vmemmap.audit(&table, &[&machine.frames], &mut scratch);
        assert_eq!(audit.unwrap().frames(), 0);
        let log = machine.memory.violations();
        assert!(log.is_empty(), "{log}");
    }
}

/// By its page table: it has mapped none itself.
#[test]
fn the_next_value_knows_of_packed_heads_when_pages_change_their_order() {
    let machine = Machine::new();
    let memory = range(GIB, GIB);
    let pages = |bytes| {
        let pages = Geometry::from_bytes(bytes, Granule::Size4K).unwrap();
        let pagemap = DevPagemap::of_range(&MODEL_4_LEVEL, memory, pages).unwrap();
        pagemap
            .with_tails(Tails::PerOrder)
            .with_tables(Tables::Shared)
    };
    let packed = pages(GIB).with_heads(Heads::Packed);
    let _ = machine
        .vmemmap()
        .online(&mut machine.table(), &packed)
        .unwrap();
    let (mut table, mut vmemmap) = (machine.table(), machine.next_vmemmap());
    let heads = MODEL_4_LEVEL.heads().unwrap();
    assert!(table.first_in_use(heads).is_some());
    let (in_place, largest) = (pages(2 * MIB), packed.geometry().order());
    let needed = vmemmap.reserve_needed(&table, &in_place, memory, largest);
    let _ = vmemmap
        .fill_reserve(&mut table, NodeId::new(0), needed)
        .unwrap();
    let done = vmemmap.reorder(&mut table, &in_place, memory).unwrap();
    assert_eq!(done.rest, None);
    assert_eq!(table.first_in_use(heads), None, "old heads are left");
    vmemmap.empty_reserve(&mut table);
    vmemmap.depopulate(&mut table, &in_place, memory).unwrap();
    assert_eq!(machine.frames.outstanding(), 0);
}

#[test]
fn with_nothing_online_and_nothing_marked_there_is_nothing_to_lose() {
    let machine = Machine::new();
    let (mut table, mut vmemmap) = (machine.table(), machine.vmemmap());
    let ranges = [range(GIB, 8 * MIB)];
    let geometry = Geometry::from_bytes(2 * MIB, Granule::Size4K).unwrap();
    let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let frame = ranges[0].last();
    assert_eq!(vmemmap.mark(&table, frame, NodeId::new(0)), Ok(true));
    let offlined = vmemmap.offline(&mut table, region).unwrap();
    assert_eq!(offlined.marked, 1);
    assert_eq!(machine.frames.outstanding(), 0);
}

/// A region that a `static` could hold: its range is in the pagemap.
fn region_of(machine: &Machine, memory: PfnRange) -> Region<'static> {
    let geometry = Geometry::from_bytes(2 * MIB, Granule::Size4K).unwrap();
    let pagemap = DevPagemap::of_range(&MODEL_4_LEVEL, memory, geometry).unwrap();
    let (mut table, mut vmemmap) = (machine.table(), machine.vmemmap());
    vmemmap.online(&mut table, &pagemap).unwrap()
}

#[test]
fn a_region_is_found_again_by_its_pagemap_and_goes_offline_as_a_whole() {
    let machine = Machine::new();
    let memory = range(GIB, 8 * MIB);
    let pagemap = *region_of(&machine, memory).pagemap();
    let (mut table, mut vmemmap) = (machine.table(), machine.next_vmemmap());
    let found = vmemmap.region(&table, &pagemap).unwrap();
    let offlined = vmemmap.offline(&mut table, found).unwrap();
    assert_eq!(offlined.kept, 0);
    assert_eq!(machine.frames.outstanding(), 0);
}

#[test]
fn what_is_not_online_as_a_whole_is_no_region() {
    let machine = Machine::new();
    let memory = range(GIB, 8 * MIB);
    let pagemap = *region_of(&machine, memory).pagemap();
    let (mut table, mut vmemmap) = (machine.table(), machine.next_vmemmap());
    let unit = MODEL_4_LEVEL.subsection().frames();
    let (first, _) = memory.take_first(unit);
    vmemmap.depopulate(&mut table, &pagemap, first).unwrap();
    let at = MODEL_4_LEVEL.descriptors(first).unwrap().start();
    assert_eq!(
        vmemmap.region(&table, &pagemap).unwrap_err(),
        OfflineError::NotOnline { at }
    );
    vmemmap.populate(&mut table, &pagemap, first).unwrap();
    let found = vmemmap.region(&table, &pagemap).unwrap();
    vmemmap.offline(&mut table, found).unwrap();
    assert_eq!(machine.frames.outstanding(), 0);
}
