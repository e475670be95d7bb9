//! A machine with something damaged, as the battery's harness.

use super::frames::{DamagedAltmap, DamagedFrames};
use super::kinds::Damage;
use super::table::DamagedTable;
use any_table::{AnyPageTable, says_the_same};
use conformance::{Outcome, Seen};
use hosted::inspect::Foreign;
use hosted::{Backend, Machine, SimCpus, X86_64};
use mm_core::addr::{Order, VirtAddr};
use mm_core::frame::DeviceAltmap;
use mm_core::paging::Leaf;
use testkit::machine::WithForeign;
use testkit::{HostedControls, HostedHarness, MachineParts};

/// A damaged page table, and what others map in it, which is not damaged.
struct Damaged<'m> {
    table: DamagedTable<'m>,
    machine: &'m Machine<X86_64>,
    foreign: Foreign<'m, X86_64>,
}

// SAFETY: 1: the field of that name. 2: asked when it is compiled.
unsafe impl WithForeign for Damaged<'_> {
    fn table(&self) -> &dyn AnyPageTable {
        const { assert!(says_the_same::<DamagedTable<'static>>()) };
        &self.table
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        &mut self.table
    }

    fn seen(&self, at: VirtAddr) -> Option<Seen> {
        let granule = X86_64::MODEL.granule();
        let translation = X86_64::translate(self.machine, at)?;
        Some(Seen {
            frame: translation.address(at, granule).frame(granule)?,
            writable: translation.writable,
            executable: translation.executable,
        })
    }

    fn flushes(&self) -> u64 {
        self.machine.cpus().flushes()
    }

    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool {
        let block = leaf.block;
        self.foreign.map(at, block.first(), block.order())
    }

    fn link_foreign_tables(&self, at: VirtAddr) -> bool {
        self.foreign.link_tables(at)
    }

    fn foreign_tables_are_linked(&self) -> bool {
        self.foreign.tables_are_linked()
    }

    fn reserve_entry(&self, at: VirtAddr, order: Order) -> bool {
        self.foreign.reserve(at, order)
    }

    fn take_reserved(&self) -> bool {
        self.foreign.take_reserved()
    }

    fn unmap_foreign(&mut self, at: VirtAddr) {
        self.foreign.unmap(at);
    }

    fn prune(&self) {
        self.foreign.prune();
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
    let altmap = DamagedAltmap {
        altmap: altmap.ok()?,
        damage,
    };
    let frames = DamagedFrames {
        frames: machine.frames(),
        damage,
        for_tables: false,
    };
    let controls = HostedControls::new(model, machine.frames(), cpus);
    let table = Damaged {
        table: DamagedTable::new(&machine, damage),
        machine: &machine,
        foreign: Foreign::new(&machine, HostedHarness::foreign(model)),
    };
    let mut harness = HostedHarness::of(MachineParts {
        model: *model,
        table: Box::new(table),
        frames: &frames,
        memory: machine.memory(),
        controls: match damage {
            // As on a kernel, where nobody watches what CPUs have cached.
            Damage::FlushesLeavesOnly => controls,
            _ => controls.watched(machine.violations()),
        },
        altmap: &altmap,
    });
    harness.run_one(name)
}
