//! From the first tables to the experiment: what any kernel does, whatever its architecture.
//!
//! ```text
//!   Layout ─▶ early frames ─▶ own tables, in use ─▶ scratch, spare tables ─▶ allocator ─▶ Experiment
//! ```

use crate::memory::{EarlyFrames, Frames, MemoryMap, allocator, early_range, early_slice};
use crate::mmu::{MmuRecord, Recorded, RecordedRoots};
use crate::tables::{EntryBits, FOREIGN_TABLES, ForeignTables, NoTable, TableShape, Tables};
use crate::{
    DumpPart, Emulator, Experiment, Machine, MappedDescriptors, OtherCpus, Probe, ReadersPart,
    Report, Subject,
};
use any_table::{Borrowed, Erased};
use core::fmt;
use mm_core::addr::{Granule, Order, Pfn, PfnRange};
use mm_core::frame::{DirectMap, LinearMap};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, Mmu, OneRoot, RadixTable};
use mm_core::readers::{GracePeriod, OnlineEntry};
use mm_core::vmemmap::{AuditSlot, TreeDescription};

/// For how many frames an audit has room in one pass.
const AUDIT_SLOTS: u64 = 1 << 16;

/// How many entries a root of an online map has, for the model with the most: Sv57's, with 64 PiB in spans of 64 GiB.
const ROOT_ENTRIES: u64 = 1 << 20;

/// What a kernel knows when it has no tables of its own yet.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'l> {
    /// Pages of the kernel's tables, and frames of its allocator.
    pub granule: Granule,
    /// What memory there is, in such frames.
    pub map: &'l MemoryMap,
    /// The first physical address behind the kernel's image.
    pub image_end: u64,
    /// The first physical address of RAM that the kernel may use.
    pub first_free: u64,
    /// Up to where physical memory is mapped where it is.
    pub mapped_end: u64,
}

/// A kernel's own tables, not yet in use.
pub trait AddressSpace {
    /// The root of the part that the vmemmap lies in.
    fn root(&self) -> Pfn;

    /// Makes the CPU translate by these tables, and answers with the direct map.
    ///
    /// # Safety
    ///
    /// 1. The tables that were in use before map what is in use where these do.
    unsafe fn activate(&self) -> LinearMap;
}

/// Where a kernel's descriptors lie, and what it tries.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// The tables that the CPU walks.
    pub shape: TableShape,
    /// The sizes of compound pages that are tried, in bytes: powers of two of pages.
    pub compound: [u64; 2],
}

impl Setting {
    /// The orders of compound pages that are tried.
    fn compound_orders(&self) -> [Order; 2] {
        let granule = self.model.granule();
        let order = |bytes| Order::from_bytes(bytes, granule).unwrap_or(Order::BASE);
        self.compound.map(order)
    }
}

/// Why a kernel does not get as far as the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// There is not exactly one range of device memory.
    NoDevice,
    /// No RAM behind the image that is mapped.
    NoEarlyMemory,
    /// The kernel's own tables cannot be made.
    Tables(NoTable),
    /// No memory for the audit, or for the allocator's bookkeeping.
    NoBookkeeping,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => {
                f.write_str("one range of device memory is needed; give the machine one")
            }
            Self::NoEarlyMemory => f.write_str("no RAM behind the image that is mapped"),
            Self::Tables(error) => error.fmt(f),
            Self::NoBookkeeping => {
                f.write_str("no memory for the audit and the allocator's bookkeeping")
            }
        }
    }
}

impl From<NoTable> for StartError {
    fn from(error: NoTable) -> Self {
        Self::Tables(error)
    }
}

/// A kernel that has its memory in hand.
#[derive(Debug)]
pub struct Started<'l, P> {
    probe: P,
    map: &'l MemoryMap,
    device: PfnRange,
    root: Pfn,
    direct_map: LinearMap,
    frames: Frames<'static>,
    /// For the page tables of somebody else.
    spare: PfnRange,
    scratch: &'static mut [AuditSlot],
    /// Of online maps.
    roots: [&'static [OnlineEntry]; 2],
    /// Of the battery's.
    battery_root: &'static [OnlineEntry],
}

impl<'l, P: Probe> Started<'l, P> {
    /// Makes the kernel's tables with `build` and uses them, and hands the rest of RAM to the
    /// allocator.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Safety
    ///
    /// 1. All RAM of the layout's map from `first_free` on is free, and so is what lies behind the
    ///    image.
    /// 2. Physical memory from the image's end up to `mapped_end` is mapped where it is.
    /// 3. `build` makes tables by which all memory of the map is mapped in the direct map, what is
    ///    in use where it is now, and nothing where a vmemmap will be.
    /// 4. `probe` uses this CPU, and there is no other that has started.
    pub unsafe fn new<S: AddressSpace>(
        layout: &Layout<'l>,
        probe: P,
        build: impl FnOnce(&EarlyFrames) -> Result<S, NoTable>,
    ) -> Result<Self, StartError> {
        let Layout { granule, map, .. } = *layout;
        let &[device] = map.device.as_slice() else {
            return Err(StartError::NoDevice);
        };
        let early_range = early_range(map, granule, layout.image_end, layout.mapped_end);
        let early_range = early_range.ok_or(StartError::NoEarlyMemory)?;
        let early = EarlyFrames::new(early_range);
        let space = build(&early)?;
        // SAFETY: 1: duty 3.
        let direct_map = unsafe { space.activate() };
        // SAFETY: 1: `early` came from RAM behind the image. 2: the direct map reaches all RAM.
        let scratch = unsafe {
            early_slice(
                &early,
                granule,
                &direct_map,
                AUDIT_SLOTS,
                AuditSlot::default,
            )
        };
        let scratch = scratch.ok_or(StartError::NoBookkeeping)?;
        // SAFETY: 1 and 2: as above.
        let roots = unsafe {
            let entries = 3 * ROOT_ENTRIES;
            early_slice(&early, granule, &direct_map, entries, OnlineEntry::default)
        };
        let roots = roots.ok_or(StartError::NoBookkeeping)?;
        let (battery_root, roots) = <[_]>::split_at(roots, ROOT_ENTRIES as usize);
        let spare = early
            .take(FOREIGN_TABLES)
            .ok_or(StartError::NoBookkeeping)?;
        let first_free = layout.first_free.max(layout.image_end);
        // SAFETY: 1: duty 1; `early` came from `early_range`, and nothing else was taken. 2: it
        // maps all RAM linearly.
        let frames =
            unsafe { allocator(map, early_range, &early, granule, &direct_map, first_free) };
        Ok(Self {
            probe,
            map,
            device,
            root: space.root(),
            direct_map,
            frames: frames.ok_or(StartError::NoBookkeeping)?,
            spare,
            scratch,
            roots: <[_]>::split_at(roots, ROOT_ENTRIES as usize).into(),
            battery_root,
        })
    }

    /// The root of the kernel's tables.
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// What is refused by a page table on `refusing`, which says nothing of how entries in use may
    /// be exchanged; then everything, on `mmu`. Both are the CPU's MMU, entries have the format `F`,
    /// and by hand they are as `B` says. Descriptors are stored by what `storing` makes of the direct map.
    ///
    /// # Safety
    ///
    /// 1. The CPU walks the kernel's tables in the format `F` and of the setting's shape, and what
    ///    is told to either MMU reaches it.
    /// 2. What `storing` answers reaches what the direct map reaches.
    pub unsafe fn run<F: EntryFormat, B: EntryBits + fmt::Debug, M: DirectMap + Sync>(
        &mut self,
        setting: &Setting,
        [refusing, mmu]: [&dyn Mmu<F>; 2],
        storing: fn(LinearMap) -> M,
        report: &mut Report<'_>,
    ) {
        let free = self.frames.allocator().allocator().free_frames();
        report.line(format_args!("{free} frames free"));
        let compound = setting.compound_orders();
        let subject = Subject {
            map: self.map,
            device: self.device,
            compound: &compound,
            online_root: self.battery_root,
        };
        let direct_map = storing(self.direct_map);
        // SAFETY: 1: duty 1. 2: duty 2.
        unsafe {
            self.with_experiment::<F, B, M>(setting, refusing, &direct_map, |experiment| {
                experiment.run_refused_folds(&subject, report);
                experiment.run_battery(&subject, report);
            });
            self.with_experiment::<F, B, M>(setting, mmu, &direct_map, |experiment| {
                experiment.run(&subject, report);
                experiment.run_battery(&subject, report);
            });
        }
    }

    /// Owns memory of the device on the kernel's table while `cpus` read it under guards of `grace`,
    /// with an `mmu` that reaches them.
    ///
    /// # Safety
    ///
    /// 1. As for [`run`](Self::run), and so do the CPUs of `cpus`. There are no others.
    pub unsafe fn run_readers<F: EntryFormat, C: OtherCpus, G: GracePeriod + Sync>(
        &mut self,
        setting: &Setting,
        mmu: &dyn Mmu<F>,
        (cpus, grace): (&C, &G),
        report: &mut Report<'_>,
    ) {
        let Setting { model, shape, .. } = *setting;
        // SAFETY: 1: duty 1. 2: it reaches all RAM.
        let kernel = unsafe { MappedDescriptors::new(grace, self.direct_map) };
        let record = MmuRecord::default();
        // SAFETY: 1: all CPUs use the one root.
        let roots = RecordedRoots::new(unsafe { OneRoot::new() }, &record);
        // Of the same type as the experiment's, which is compiled already.
        let mmu = Recorded::new(mmu, &record);
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM. 3: only this CPU changes tables, by this
        // value. 4: duty 1. 5: there is one root. 6: there is one allocator.
        let mut table =
            unsafe { RadixTable::new(self.root, roots, &self.frames, &self.direct_map, mmu) };
        let mut table = Erased::of(&mut table);
        let part = ReadersPart {
            model,
            shape,
            frames: &self.frames,
            direct_map: &self.direct_map,
            kernel: &kernel,
            cpus,
            roots: self.roots,
        };
        let compound = setting.compound_orders();
        let device = (self.device, compound.as_slice());
        // SAFETY: 1: duty 1. 2: all that was online is offline again. 3: the allocator's frames are RAM.
        // 4: they are new.
        unsafe { part.run(&mut table, self.scratch, device, report) }
    }

    /// Brings memory online with each policy, describes and prints it, and waits until `emulator` has dumped the machine. Then
    /// takes it offline.
    ///
    /// # Safety
    ///
    /// 1. As for [`run`](Self::run).
    /// 2. `emulator` has the configuration device of the machine.
    pub unsafe fn run_dump<F: EntryFormat>(
        &mut self,
        setting: &Setting,
        mmu: &dyn Mmu<F>,
        emulator: Emulator<'_>,
        report: &mut Report<'_>,
    ) {
        let record = MmuRecord::default();
        // SAFETY: 1: there is one CPU (duty 4 of `new`), and one root.
        let roots = RecordedRoots::new(unsafe { OneRoot::new() }, &record);
        let mmu = Recorded::new(mmu, &record);
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM. 3: only this CPU changes tables, by this
        // value. 4: duty 1. 5: there is one root. 6: there is one allocator.
        let mut table =
            unsafe { RadixTable::new(self.root, roots, &self.frames, &self.direct_map, mmu) };
        let mut table = Erased::of(&mut table);
        let part = DumpPart {
            model: setting.model,
            map: self.map,
            frames: &self.frames,
            direct_map: &self.direct_map,
            tree: TreeDescription::of::<F>(self.root),
            emulator,
        };
        let device = (self.device, setting.compound_orders());
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM, and the table has the same allocator.
        unsafe { part.run(&mut table, self.scratch, device, report) }
    }

    /// Does `work` with an experiment on the kernel's own page table, whose descriptors are stored by
    /// `direct_map`.
    ///
    /// # Safety
    ///
    /// 1. As for [`run`](Self::run), and the vmemmap is empty.
    /// 2. `direct_map` reaches all RAM.
    unsafe fn with_experiment<F: EntryFormat, B: EntryBits + fmt::Debug, M: DirectMap + Sync>(
        &mut self,
        setting: &Setting,
        mmu: &dyn Mmu<F>,
        direct_map: &M,
        work: impl FnOnce(&mut Experiment<'_, P, KernelTable<'_>, M>),
    ) {
        let Setting { model, shape, .. } = *setting;
        // SAFETY: 1: duty 1; the root stays, and the engine frees only tables of its own, which it
        // unlinks first. 2: the direct map reaches all RAM.
        let tables = unsafe { Tables::<B, _>::new(self.root, shape, self.direct_map) };
        // SAFETY: 1: taken from early memory for this. 2: there is one thread.
        let raw_tables = unsafe { ForeignTables::new(tables, self.spare) };
        let record = MmuRecord::default();
        let mmu = Recorded::new(mmu, &record);
        // SAFETY: 1: there is one CPU (duty 4 of `new`), and one root for what the vmemmap lies in.
        let roots = RecordedRoots::new(unsafe { OneRoot::new() }, &record);
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM. 3: there is one thread, and it has
        // no other value for the tables. 4: there is one CPU (duty 4 of `new`).
        // 5: there is one root. 6: there is one allocator.
        let mut table =
            unsafe { RadixTable::new(self.root, roots, &self.frames, &self.direct_map, mmu) };
        let machine = Machine {
            probe: &self.probe,
            model,
            shape,
            frames: &self.frames,
            direct_map,
            raw_tables: &raw_tables,
            record: &record,
        };
        // SAFETY: 1: duty 1, and duty 4 of `new`. 2: nothing is mapped in the vmemmap (duty 1), and
        // nobody else has it. 3: the direct map reaches all memory of the map, and the allocator was
        // made for this.
        work(&mut unsafe { Experiment::new(machine, Erased::of(&mut table), self.scratch) });
    }
}

/// The page table of a kernel's experiment, in whatever format: a kernel chooses when it starts, and
/// everything is compiled once.
type KernelTable<'k> = Erased<Borrowed<'k>>;
