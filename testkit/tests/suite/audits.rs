//! Audits come to an end, and accuse nobody who has done nothing.

use arch_sim::walker::X86_64Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use arch_x86_64::MODEL_4_LEVEL;
use hosted::{AnyTable, X86_64};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditSlot, Finding, Vmemmap};
use testkit::engine::{EngineParts, WithEngine};

const GIB: u64 = 1 << 30;
const WALKER: X86_64Walker = X86_64Walker::four_level();

struct Machine {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: SimMmu<X86_64Walker>,
}

impl Machine {
    fn new() -> Self {
        let ram = PfnRange::new(Pfn::new(1 << 34).unwrap(), 1 << 16).unwrap();
        let root = ram.last().saturating_add(1 << 10);
        let memory = SimMemory::new(Granule::Size4K, &[ram, PfnRange::single(root)]).unwrap();
        let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
        let cpu = SimTlb::new(WALKER, &memory, root);
        Self {
            memory,
            frames,
            root,
            mmu: SimMmu::new(vec![cpu]),
        }
    }

    fn table(&self) -> AnyTable<'_> {
        let parts = EngineParts {
            root: self.root,
            other_roots: None,
            frames: &self.frames,
            memory: &self.memory,
            mmu: &self.mmu,
        };
        // SAFETY: 1: of the table's, 1: the root was empty at first, and only such tables have written below it.
        // 2: the memory has all frames. 3: there is one at a time. 4: there is one CPU. 5: there is one root. 6:
        // there is one allocator.
        unsafe { X86_64::engine(parts) }
    }

    fn vmemmap(&self, model: MemoryModel) -> Vmemmap<Page<Mask>, &SimFrames, &SimMemory> {
        // SAFETY: 1 to 3: one memory, and one table and one vmemmap at a time.
        unsafe { Vmemmap::new(model, &self.frames, &self.memory) }.unwrap()
    }
}

fn bytes(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K).unwrap()
}

fn gigantic(ranges: &[PfnRange], tails: Tails) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(GIB, Granule::Size4K).unwrap();
    DevPagemap::new(&MODEL_4_LEVEL, ranges, geometry)
        .unwrap()
        .with_tails(tails)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Range)
}

#[test]
fn shared_tables_of_one_tail_are_audited_in_any_scratch_memory() {
    let machine = Machine::new();
    let mut table = machine.table();
    let mut vmemmap = machine.vmemmap(MODEL_4_LEVEL);
    let inspect: [&dyn mm_core::frame::InspectFrames; 1] = [&&machine.frames];
    for cycle in 0..3 {
        let kept = [bytes((100 * cycle + 64) * GIB, GIB)];
        drop(vmemmap.online(&mut table, &gigantic(&kept, Tails::PerOrder)));
        // So many tails of their own push the tail of all out of what the engine remembers, so that
        // it makes another table of it.
        let others = [bytes((100 * cycle + 65) * GIB, 32 * GIB)];
        let pagemap = gigantic(&others, Tails::PerCompound);
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let _ = vmemmap.offline(&mut table, region).unwrap();
    }
    let mut enough = vec![AuditSlot::default(); 1 << 10];
    let report = vmemmap.audit(&table, &inspect, &mut enough).unwrap();
    assert!(report.leaf_tables > 1);
    for slots in [2, 3, 4, 5, 7, 9, 12, 17, 32, 64] {
        let mut scratch = vec![AuditSlot::default(); slots];
        let audit = vmemmap.audit(&table, &inspect, &mut scratch);
        assert_eq!(audit, Ok(report), "{slots} slots");
    }
    for slots in [0, 1] {
        let mut scratch = vec![AuditSlot::default(); slots];
        let audit = vmemmap.audit(&table, &inspect, &mut scratch);
        assert_eq!(audit, Err(Finding::NoScratch), "{slots} slots");
    }
}

#[test]
fn room_for_descriptors_where_no_address_is_translated_is_no_finding() {
    let model = MemoryModel::new(ModelConfig {
        vmemmap_base: VirtAddr::new(0x7ff0_0000_0000),
        frames: 1 << 31,
        ..*MODEL_4_LEVEL.config()
    })
    .unwrap();
    let machine = Machine::new();
    let mut table = machine.table();
    let mut vmemmap = machine.vmemmap(model);
    let inspect: [&dyn mm_core::frame::InspectFrames; 1] = [&&machine.frames];
    let mut scratch = vec![AuditSlot::default(); 1 << 10];
    let memory = [PfnRange::new(Pfn::ZERO, 1 << 15).unwrap()];
    let geometry = Geometry::compound(Order::new(9).unwrap());
    let pagemap = DevPagemap::new(&model, &memory, geometry).unwrap();
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let report = vmemmap.audit(&table, &inspect, &mut scratch).unwrap();
    assert_eq!(report.mapped_pages, 512);
    let all = model.descriptors(model.all_frames()).unwrap();
    assert_eq!(table.first_in_use(all), Some(all.start()));

    // The first frame whose descriptor has no address, and the last that has one.
    let first = (0x8000_0000_0000 - 0x7ff0_0000_0000) / 64;
    let across = [PfnRange::new(Pfn::new(first - 512).unwrap(), 1024).unwrap()];
    let pagemap = DevPagemap::new(&model, &across, geometry).unwrap();
    assert!(vmemmap.online(&mut table, &pagemap).is_err());
    assert_eq!(vmemmap.audit(&table, &inspect, &mut scratch), Ok(report));
    let below = [across[0].take_first(512).0];
    let pagemap = DevPagemap::new(&model, &below, geometry).unwrap();
    let last = vmemmap.online(&mut table, &pagemap).unwrap();
    let more = vmemmap.audit(&table, &inspect, &mut scratch).unwrap();
    assert_eq!(more.mapped_pages, 512 + 8);
    let _ = (
        vmemmap.offline(&mut table, last),
        vmemmap.offline(&mut table, region),
    );
    let none = vmemmap.audit(&table, &inspect, &mut scratch).unwrap();
    assert_eq!((none.frames(), none.mapped_pages), (0, 0));
}
