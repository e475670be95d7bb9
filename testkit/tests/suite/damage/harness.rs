//! A machine with something damaged, as the battery's harness.

use super::frames::{DamagedAltmap, DamagedFrames};
use super::kinds::Damage;
use super::table::DamagedTable;
use arch_sim::SimMemory;
use conformance::{AltmapUnderTest, Controls, Harness, Outcome, Parts, RootChanges, Seen, checks};
use hosted::inspect::Foreign;
use hosted::{Backend, Machine, SimCpus, X86_64};
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::DeviceAltmap;
use mm_core::paging::Leaf;
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::AuditSlot;
use testkit::HostedHarness;

/// What the machine can do besides, which is not damaged.
struct Tools<'m> {
    machine: &'m Machine<X86_64>,
    foreign: Foreign<'m, X86_64>,
    damage: Damage,
    online_root: Vec<OnlineEntry>,
}

impl<'m> Controls<DamagedTable<'m>> for Tools<'m> {
    fn translate(&self, _table: &DamagedTable<'m>, at: VirtAddr) -> Option<Option<Seen>> {
        let granule = X86_64::MODEL.granule();
        let seen = X86_64::translate(self.machine, at).and_then(|translation| {
            Some(Seen {
                frame: translation.address(at, granule).frame(granule)?,
                writable: translation.writable,
                executable: translation.executable,
            })
        });
        Some(seen)
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        match n {
            Some(n) => self.machine.frames().fail_after(n),
            None => self.machine.frames().no_more_faults(),
        }
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.machine.frames().fail_blocks(fail);
        true
    }

    fn map_foreign(&self, _table: &mut DamagedTable<'m>, at: VirtAddr, leaf: Leaf) -> bool {
        let block = leaf.block;
        self.foreign.map(at, block.first(), block.order())
    }

    fn unmap_foreign(&self, _table: &mut DamagedTable<'m>, at: VirtAddr) {
        self.foreign.unmap(at);
        self.foreign.prune();
    }

    fn link_foreign_tables(&self, _table: &mut DamagedTable<'m>, at: VirtAddr) -> bool {
        self.foreign.link_tables(at)
    }

    fn unlink_foreign_tables(&self, _table: &mut DamagedTable<'m>, _at: VirtAddr) -> bool {
        let linked = self.foreign.tables_are_linked();
        self.foreign.prune();
        linked
    }

    fn plant_reserved(&self, _table: &mut DamagedTable<'m>, at: VirtAddr, order: Order) -> bool {
        self.foreign.reserve(at, order)
    }

    fn take_reserved(&self, _table: &mut DamagedTable<'m>, _at: VirtAddr) -> bool {
        let whole = self.foreign.take_reserved();
        self.foreign.prune();
        whole
    }

    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        Some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    fn access(&self, _table: &DamagedTable<'m>, at: VirtAddr) -> Option<Option<Pfn>> {
        testkit::access(self.machine.cpus(), X86_64::MODEL.granule(), at)
    }

    fn read(&self, at: VirtAddr) -> Option<Option<Pfn>> {
        testkit::access(self.machine.cpus(), X86_64::MODEL.granule(), at)
    }

    fn online_root(&self) -> Option<&[OnlineEntry]> {
        Some(&self.online_root)
    }

    fn speculate(&self, _table: &DamagedTable<'m>, range: VirtRange) {
        let all = self.machine.cpus().all().iter();
        all.for_each(|cpu| cpu.fill(range));
    }

    fn flushes(&self, _table: &DamagedTable<'m>) -> Option<u64> {
        Some(self.machine.cpus().flushes())
    }

    fn root_changes(&self) -> Option<RootChanges> {
        let (installed, removed) = self.machine.cpus().root_changes()?;
        Some(RootChanges { installed, removed })
    }

    // As on a kernel, where nobody watches what CPUs have cached.
    fn violations(&self) -> u64 {
        match self.damage {
            Damage::FlushesLeavesOnly => 0,
            _ => self.machine.violations().total(),
        }
    }
}

struct Damaged<'m> {
    table: DamagedTable<'m>,
    frames: DamagedFrames<'m>,
    memory: &'m SimMemory,
    tools: Tools<'m>,
    altmap: DamagedAltmap<'m>,
    device: PfnRange,
    scratch: Vec<AuditSlot>,
}

impl<'m> Harness for Damaged<'m> {
    type Table = DamagedTable<'m>;
    type Frames = DamagedFrames<'m>;
    type DirectMap = SimMemory;
    type Controls = Tools<'m>;

    fn parts(&mut self) -> Parts<'_, Self> {
        let altmap: &dyn AltmapUnderTest = &self.altmap;
        Parts {
            model: X86_64::MODEL,
            table: &mut self.table,
            frames: &self.frames,
            direct_map: self.memory,
            controls: &self.tools,
            device: self.device,
            node: Machine::<X86_64>::NODES[0],
            altmap: Some(altmap),
            scratch: &mut self.scratch,
            ends_are_free: true,
        }
    }
}

/// What comes of the check `name` on a machine of its own with `damage`.
pub(crate) fn outcome(damage: Damage, name: &str) -> Option<Outcome> {
    let model = &X86_64::MODEL;
    let machine = Machine::<X86_64>::new(&HostedHarness::config(model)).ok()?;
    let (reserved, device) = (HostedHarness::reserved(model), HostedHarness::device(model));
    let node = Machine::<X86_64>::NODES[0];
    // SAFETY: 1 to 3: the machine has memory there, for this altmap and one vmemmap alone.
    let altmap = unsafe { DeviceAltmap::new(model, machine.memory(), reserved, node) };
    let cpus = machine.cpus();
    cpus.watch(machine.frames(), model.descriptors(device)?);
    let mut harness = Damaged {
        table: DamagedTable::new(&machine, damage),
        frames: DamagedFrames {
            frames: machine.frames(),
            damage,
            for_tables: false,
        },
        memory: machine.memory(),
        tools: Tools {
            machine: &machine,
            foreign: Foreign::new(&machine, HostedHarness::foreign(model)),
            damage,
            online_root: testkit::new_root(model),
        },
        altmap: DamagedAltmap {
            altmap: altmap.ok()?,
            damage,
        },
        device,
        scratch: vec![AuditSlot::default(); 1 << 15],
    };
    let check = checks().find(|check| check.name() == name)?;
    Some(conformance::run_one(&mut harness, &check))
}

/// The names of all checks.
pub(crate) fn names() -> Vec<&'static str> {
    checks::<Damaged<'_>>().map(|check| check.name()).collect()
}
