//! The conformance battery on what the kernel has: its live table, its allocator and its direct
//! map.

use super::{Experiment, Subject};
use crate::{Frames, Machine, Probe, Report};
use conformance::{AltmapUnderTest, Controls, Failure, Harness, Outcome, Parts, RootChanges, Seen};
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::frame::{DeviceAltmap, DirectMap};
use mm_core::paging::{Flush, InUse, Leaf, NoRecords, PageTable, Replacement};
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::AuditSlot;

/// How the names end of checks that are about a page table which refuses to exchange entries in
/// use.
const OF_REFUSALS: &str = "_where_entries_in_use_cannot_be_exchanged";

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// Runs the battery with descriptors of the device's memory, while nothing is online: what it
    /// has for a page table that exchanges entries in use, or for one that refuses to, as this one
    /// does. What it cannot do here is printed with the reason.
    pub fn run_battery(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        let refuses = self.table.replacement() == Replacement::Refused;
        let wanted = |name: &str| name.ends_with(OF_REFUSALS) == refuses;
        self.run_checks(subject, wanted, report);
    }

    fn run_checks(
        &mut self,
        subject: &Subject<'_>,
        wanted: impl Fn(&str) -> bool,
        report: &mut Report<'_>,
    ) {
        let on = self.on;
        let reserved = subject.device.take_first(on.model.subsection().frames()).0;
        // SAFETY: 1: the device's memory is nobody else's, and nothing of it is online. 2: the
        // direct map reaches it (duty 3 of `Experiment::new`). 3: checks have one vmemmap at a
        // time. 4: there is one thread.
        let altmap =
            unsafe { DeviceAltmap::new(&on.model, on.direct_map, reserved, NodeId::new(0)) };
        let altmap = altmap.inspect_err(|error| report.check("altmap", Err(error)));
        let altmap = altmap.as_ref().ok();
        let mut battery = Battery {
            on,
            table: &mut self.table,
            controls: Live {
                on,
                contradictions: Cell::new(0),
                online_root: subject.online_root,
            },
            device: addresses(subject.device, &on),
            altmap: altmap.map(|altmap| altmap as &dyn AltmapUnderTest),
            scratch: self.scratch,
        };
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        conformance::run_some(&mut battery, &wanted, &mut |name, outcome| {
            match outcome {
                Outcome::Passed => {
                    passed += 1;
                    report.check::<Failure>(name, Ok(()));
                    report.line(format_args!("passed   {name}"));
                }
                Outcome::Failed(failure) => {
                    failed += 1;
                    report.check(name, Err(failure));
                }
                Outcome::Skipped(why) => {
                    skipped += 1;
                    report.skip(format_args!("{name}"), format_args!("{why}"));
                }
            }
            let _ = report.end_row();
        });
        let some = (passed + failed + skipped > 0).then_some(());
        report.check("there are checks", some.ok_or("none has such a name"));
        report.line(format_args!(
            "conformance: {passed} passed, {failed} failed, {skipped} skipped"
        ));
    }
}

/// `device`, and addresses behind its memory up to the end of three blocks of what two leaf tables
/// describe: checks bring descriptors of them online, and access nothing but the altmap. Not where
/// RAM has no room for the descriptors of a huge leaf, its copy and some more.
fn addresses<P, M>(device: PfnRange, on: &Machine<'_, P, M>) -> PfnRange {
    let leaf = 1 << on.shape.leaf_span();
    if on.frames.allocator().allocator().free_frames() < 3 * (leaf >> on.shape.granule.shift()) {
        return device;
    }
    let tables = 2 * leaf / on.model.descriptor_bytes();
    let end = (device.last().get() + 1).next_multiple_of(tables) + 3 * tables;
    let end = end.min(on.model.all_frames().last().get());
    PfnRange::new(device.start(), end - device.start().get()).unwrap_or(device)
}

/// What the battery works with.
struct Battery<'b, 'm, P, T, M> {
    on: Machine<'m, P, M>,
    table: &'b mut T,
    controls: Live<'b, 'm, P, M>,
    device: PfnRange,
    altmap: Option<&'b dyn AltmapUnderTest>,
    scratch: &'b mut [AuditSlot],
}

impl<'b, 'm, P: Probe, T: PageTable, M: DirectMap + Sync> Harness for Battery<'b, 'm, P, T, M> {
    type Table = T;
    type Frames = Frames<'m>;
    type DirectMap = M;
    type Controls = Live<'b, 'm, P, M>;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: self.on.model,
            table: self.table,
            frames: self.on.frames,
            direct_map: self.on.direct_map,
            controls: &self.controls,
            device: self.device,
            node: NodeId::new(0),
            altmap: self.altmap,
            scratch: self.scratch,
            // The vmemmap is the experiment's alone.
            ends_are_free: true,
        }
    }
}

/// What a running CPU, the kernel's allocator and its tables by hand can do besides.
struct Live<'b, 'm, P, M> {
    on: Machine<'m, P, M>,
    /// How often the MMU and the tables did not agree.
    contradictions: Cell<u64>,
    online_root: &'b [OnlineEntry],
}

impl<P: Probe, M> Live<'_, '_, P, M> {
    /// Whether the MMU sees what the tables say: by its own word, where an instruction asks for it,
    /// or else by a load.
    fn agrees(&self, at: VirtAddr, seen: Option<Seen>) -> bool {
        let shift = self.on.model.granule().shift();
        let frame = seen.map(|seen| seen.frame.get());
        match self.on.probe.ask(at) {
            Some(hardware) => {
                let frame_of = |address: PhysAddr| address.get() >> shift;
                let writable = frame.filter(|_| seen.is_some_and(|seen| seen.writable));
                hardware.load.map(frame_of) == frame && hardware.store.map(frame_of) == writable
            }
            None => self.on.probe.load(at.align_down(3)).is_ok() == seen.is_some(),
        }
    }
}

/// Makes CPUs forget the page at `at`, whatever there is now.
fn forget<T: PageTable>(table: &mut T, at: VirtAddr) {
    let mut flush = Flush::nothing();
    if let Ok(page) = VirtRange::new(at, 1) {
        flush.add(page);
    }
    table.flush(flush, &NoRecords);
}

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Controls<T> for Live<'_, '_, P, M> {
    fn translate(&self, _table: &T, at: VirtAddr) -> Option<Option<Seen>> {
        let seen = self.on.raw_tables.translate(at);
        if !self.agrees(at, seen) {
            self.contradictions.set(self.contradictions.get() + 1);
        }
        Some(seen)
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        self.on.frames.allocator().set_call_limit(n);
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.on.frames.allocator().refuse_blocks(fail);
        true
    }

    fn map_foreign(&self, table: &mut T, at: VirtAddr, leaf: Leaf) -> bool {
        let mapped = self.on.raw_tables.map_foreign(at, leaf.block);
        // Makes the entry visible to walks.
        forget(table, at);
        mapped
    }

    fn unmap_foreign(&self, table: &mut T, at: VirtAddr) {
        self.on.raw_tables.clear_leaf(at);
        forget(table, at);
        self.on.raw_tables.unlink_empty();
        forget(table, at);
    }

    fn link_foreign_tables(&self, table: &mut T, at: VirtAddr) -> bool {
        let linked = self.on.raw_tables.link_tables(at);
        forget(table, at);
        linked
    }

    fn unlink_foreign_tables(&self, table: &mut T, at: VirtAddr) -> bool {
        let linked = self.on.raw_tables.tables_are_linked();
        self.on.raw_tables.unlink_empty();
        forget(table, at);
        linked
    }

    fn plant_reserved(&self, table: &mut T, at: VirtAddr, order: Order) -> bool {
        let planted = self.on.raw_tables.reserve(at, order);
        forget(table, at);
        planted
    }

    fn take_reserved(&self, table: &mut T, at: VirtAddr) -> bool {
        let stayed = self.on.raw_tables.take_reserved();
        self.on.raw_tables.unlink_empty();
        forget(table, at);
        stayed
    }

    // No table translates by bit 62.
    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        Some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    fn access(&self, _table: &T, at: VirtAddr) -> Option<Option<Pfn>> {
        let hardware = self.on.probe.ask(at)?;
        let granule = self.on.model.granule();
        Some(hardware.load.and_then(|to| to.frame(granule)))
    }

    /// By the tables, if the CPU agrees: what it loads is what is in the frame.
    fn read(&self, at: VirtAddr) -> Option<Option<Pfn>> {
        let seen = self.on.raw_tables.translate(at);
        let at = at.align_down(3);
        let offset = (at.get() & (self.on.model.granule().bytes() - 1)) as usize;
        let loaded = self.on.probe.load(at).ok();
        let there = seen.map(|seen| {
            let page = self.on.direct_map.frame_pointer(seen.frame);
            // SAFETY: the offset is within the page, and a multiple of 8.
            let word = unsafe { page.add(offset) }.cast::<AtomicU64>();
            // SAFETY: the direct map reaches frames of descriptors, whose words change by atomics only.
            unsafe { word.as_ref() }.load(Ordering::Relaxed)
        });
        if loaded != there {
            self.contradictions.set(self.contradictions.get() + 1);
        }
        Some(seen.map(|seen| seen.frame))
    }

    fn online_root(&self) -> Option<&[OnlineEntry]> {
        Some(self.online_root)
    }

    /// A load from every page.
    fn speculate(&self, _table: &T, range: VirtRange) {
        let granule = self.on.model.granule();
        for index in 0..range.pages(granule) {
            if let Some(at) = range.start().checked_add(index * granule.bytes()) {
                // What is not mapped faults, and is not cached.
                let _ = self.on.probe.load(at);
            }
        }
    }

    fn flushes(&self, _table: &T) -> Option<u64> {
        Some(self.on.record.flushes())
    }

    fn root_changes(&self) -> Option<RootChanges> {
        Some(RootChanges {
            installed: self.on.record.roots_installed(),
            removed: self.on.record.roots_removed(),
        })
    }

    fn violations(&self) -> u64 {
        self.contradictions.get() + self.on.frames.allocator().allocator().freed_twice()
    }
}
