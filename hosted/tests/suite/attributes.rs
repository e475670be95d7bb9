//! Operations on tables whose entries have attributes: everything is as without them, and every entry
//! has the bits.

use crate::out_of_reach::assert_refused;
use arch_sim::walker::X86_64Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu};
use arch_x86_64::{Choices, FourLevel, MODEL_4_LEVEL};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::DeviceAltmap;
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::{OneRoot, PageTable, RadixTable, Replacement};
use mm_core::vmemmap::{AuditSlot, Vmemmap};
use std::sync::atomic::Ordering;

const NODE: NodeId = NodeId::new(0);
const PRESENT: u64 = 1;
const GLOBAL: u64 = 1 << 8;
const HUGE: u64 = 1 << 7;

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

struct Machine {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: SimMmu<X86_64Walker>,
}

type Table<'m> = RadixTable<FourLevel, &'m SimFrames, &'m SimMemory, &'m SimMmu<X86_64Walker>>;

impl Machine {
    /// RAM from frame 0 on, and `device` memory.
    fn new(device: PfnRange) -> Self {
        let ram = frames(0, 1 << 15);
        let root = frames(1 << 16, 1);
        let memory = SimMemory::new(Granule::Size4K, &[ram, root, device]).unwrap();
        Self {
            frames: SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap(),
            memory,
            root: root.start(),
            mmu: SimMmu::new(Vec::new()).with_replacement(Replacement::Direct),
        }
    }

    fn table(&self, choices: Choices) -> Table<'_> {
        let attributes = choices.attributes().unwrap();
        // SAFETY: 1: there is one root.
        let roots = unsafe { OneRoot::new() };
        // SAFETY: 1: the root is zero at first. 2: the memory has all frames. 3: one thread. 4: there
        // is no CPU. 5: there is one root. 6: there is one allocator.
        // Attributes: 1: the same for each tree. 2: simulated memory
        // is not encrypted.
        unsafe {
            RadixTable::new(self.root, roots, &self.frames, &self.memory, &self.mmu)
                .with_attributes(attributes)
        }
    }

    /// All entries below the root that are not zero, with whether they are leaves; frames are below
    /// `limit`, bits above it are none of theirs.
    fn entries(&self, limit: u32) -> Vec<(bool, u64)> {
        let mut found = Vec::new();
        self.collect(self.root, 4, limit, &mut found);
        found
    }

    fn collect(&self, table: Pfn, level: u32, limit: u32, found: &mut Vec<(bool, u64)>) {
        for word in self.memory.words(table).unwrap() {
            let entry = word.load(Ordering::Relaxed);
            if entry == 0 {
                continue;
            }
            assert!(entry & PRESENT != 0, "{entry:#x}");
            let is_leaf = level == 1 || entry & HUGE != 0;
            found.push((is_leaf, entry));
            if !is_leaf {
                let frame = (entry & ((1 << limit) - 1)) >> 12;
                self.collect(Pfn::new(frame).unwrap(), level - 1, limit, found);
            }
        }
    }
}

/// Online with huge leaves, folded in part with shared tables, a piece offline, unfolded, offline:
/// after each step, what is out and all entries without the bits that `hidden` names.
fn steps(
    choices: Choices,
    limit: u32,
    hidden: u64,
    check: impl Fn(bool, u64),
) -> Vec<(u64, Vec<u64>)> {
    let machine = Machine::new(frames(1 << 17, 1));
    let mut table = machine.table(choices);
    // SAFETY: 1 to 3: one memory, one table, one vmemmap.
    let vmemmap = unsafe {
        Vmemmap::<Page<Mask>, _, _>::new(MODEL_4_LEVEL, &machine.frames, &machine.memory)
    };
    let mut vmemmap = vmemmap.unwrap();
    let gigantic = frames(1 << 18, 1 << 18);
    let ranges = [gigantic];
    let base = DevPagemap::new(&MODEL_4_LEVEL, &ranges, Geometry::BASE_PAGES).unwrap();
    let compound = |order| {
        let geometry = Geometry::compound(Order::new(order).unwrap());
        let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
        pagemap
            .with_tails(Tails::PerOrder)
            .with_tables(Tables::Shared)
    };
    let mut seen = Vec::new();
    let mut note = |vmemmap: &Vmemmap<Page<Mask>, &SimFrames, &SimMemory>, table: &Table<'_>| {
        let entries = machine.entries(limit);
        entries
            .iter()
            .for_each(|(leaf, entry)| check(*leaf, *entry));
        let entries = entries.into_iter().map(|(_, entry)| entry & !hidden);
        seen.push((machine.frames.outstanding(), entries.collect()));
        let mut scratch = vec![AuditSlot::default(); 1 << 15];
        let report = vmemmap
            .audit(table, &[&machine.frames], &mut scratch)
            .unwrap();
        assert_eq!(report.frames(), machine.frames.outstanding());
    };
    let region = vmemmap.online(&mut table, &base).unwrap();
    note(&vmemmap, &table);
    let folded = vmemmap.fold(&mut table, &compound(18), gigantic).unwrap();
    assert_eq!(folded.changed, 1);
    note(&vmemmap, &table);
    let unfolded = vmemmap.unfold(&mut table, &compound(18), gigantic).unwrap();
    assert_eq!(unfolded.changed, 1);
    note(&vmemmap, &table);
    let part = frames((1 << 18) + (1 << 15), 1 << 15);
    let folded = vmemmap.fold(&mut table, &compound(9), part).unwrap();
    assert_eq!(folded.changed, 64);
    note(&vmemmap, &table);
    vmemmap.depopulate(&mut table, &base, part).unwrap();
    note(&vmemmap, &table);
    vmemmap.offline(&mut table, region).unwrap();
    note(&vmemmap, &table);
    assert_eq!(machine.frames.outstanding(), 0);
    seen
}

#[test]
fn every_operation_is_the_same_with_attributes_and_every_entry_has_them() {
    let plain = steps(Choices::new(), 52, GLOBAL, |leaf, entry| {
        assert_eq!(entry & GLOBAL != 0, leaf);
    });
    let c_bit = 47;
    let encrypted = steps(
        Choices::new().encrypted(c_bit).not_global(),
        c_bit,
        1 << c_bit | GLOBAL,
        |_, entry| {
            assert_eq!((entry >> c_bit & 1, entry & GLOBAL), (1, 0), "{entry:#x}");
        },
    );
    assert!(plain == encrypted);
    let private = steps(Choices::new().private(51), 51, GLOBAL, |_, entry| {
        assert_eq!(entry >> 51 & 1, 0);
    });
    assert!(plain == private);
}

/// An altmap whose frames are out of reach: its device is, and the RAM of its tables is not.
#[test]
fn frames_of_an_altmap_behind_the_last_are_refused() {
    // Frames from 2^24 on need bit 36 of an address.
    let device = frames(1 << 24, 1 << 12);
    let machine = Machine::new(device);
    let reserved = device.take_first(1 << 9).0;
    // SAFETY: 1 to 3: simulated memory, for this altmap alone, one vmemmap and one thread.
    let altmap = unsafe { DeviceAltmap::new(&MODEL_4_LEVEL, &machine.memory, reserved, NODE) };
    let altmap = altmap.unwrap();
    let ranges = [device];
    for order in [0, 9] {
        let geometry = Geometry::compound(Order::new(order).unwrap());
        let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
        let pagemap = pagemap.with_altmap(&altmap).unwrap();
        let mut table = machine.table(Choices::new().private(36));
        // SAFETY: 1 to 3: one memory, one table, one vmemmap at a time.
        let vmemmap = unsafe {
            Vmemmap::<Page<Mask>, _, _>::new(MODEL_4_LEVEL, &machine.frames, &machine.memory)
        };
        let mut vmemmap = vmemmap.unwrap();
        let refused = vmemmap.online(&mut table, &pagemap).unwrap_err();
        assert_refused(refused, table.last_frame());
        assert_eq!(machine.frames.outstanding(), 0);
        assert_eq!(machine.entries(36), []);
        // With all address bits, it comes online.
        let mut table = machine.table(Choices::new());
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let at = vmemmap.descriptor_address(device.start()).unwrap();
        assert!(table.lookup(at).mapping().is_some());
        vmemmap.offline(&mut table, region).unwrap();
        assert_eq!(machine.frames.outstanding(), 0);
    }
}
