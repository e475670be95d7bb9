//! Folding while CPUs use what is folded: two CPUs that cache all they can whenever they can, with
//! and without break-before-make.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::walker::{Walker, X86_64Walker};
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb, Violation};
use arch_x86_64::{FourLevel, MODEL_4_LEVEL};
use mm_core::addr::{Granule, NodeId, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::{PageTable, RadixTable, Replacement};
use mm_core::vmemmap::{AuditReport, AuditSlot, FoldError, Vmemmap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const WALKER: X86_64Walker = X86_64Walker::four_level();

fn frames(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K).unwrap()
}

fn pagemap(ranges: &[PfnRange], align: u64) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, Granule::Size4K).unwrap();
    DevPagemap::new(&MODEL_4_LEVEL, ranges, geometry).unwrap()
}

struct Machine {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: SimMmu<X86_64Walker>,
}

type Table<'m> = RadixTable<FourLevel, &'m SimFrames, &'m SimMemory, &'m SimMmu<X86_64Walker>>;
type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

impl Machine {
    fn new(replacement: Replacement) -> Self {
        let ram = PfnRange::new(Pfn::new(1 << 34).unwrap(), 1 << 18).unwrap();
        let root = ram.last().saturating_add(1 << 10);
        let chunks = [ram, PfnRange::single(root)];
        let memory = SimMemory::new(Granule::Size4K, &chunks).unwrap();
        let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
        let cpus: Vec<_> = (0..2).map(|_| SimTlb::new(WALKER, &memory, root)).collect();
        cpus.iter().for_each(|cpu| cpu.watch(&frames));
        let mmu = SimMmu::new(cpus).with_replacement(replacement);
        Self {
            memory,
            frames,
            root,
            mmu,
        }
    }

    fn parts(&self) -> (Table<'_>, Array<'_>) {
        // SAFETY: 1: the root is zero. 2: the memory has all frames. 3: the one table. 4: all CPUs
        // are the MMU's.
        let table = unsafe { RadixTable::new(self.root, &self.frames, &self.memory, &self.mmu) };
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(MODEL_4_LEVEL, &self.frames, &self.memory) };
        (table, vmemmap.unwrap())
    }

    /// Lets the CPUs cache all of `range` from now on whenever anything happens, and counts the
    /// addresses of it that are not mapped when frames are taken or given back, which is never
    /// while CPUs are kept away.
    fn watch(&self, range: VirtRange) -> Arc<AtomicU64> {
        let holes = Arc::new(AtomicU64::new(0));
        self.mmu.speculate(Some(range));
        for cpu in self.mmu.cpus() {
            cpu.fill(range);
            cpu.fill_at_allocations(&self.frames, range);
        }
        let count = {
            let (holes, memory, root) = (Arc::clone(&holes), self.memory.clone(), self.root);
            move |_: PfnRange| {
                let missing = pages(range)
                    .filter(|at| WALKER.translate(&memory, root, *at).is_err())
                    .count();
                holes.fetch_add(missing as u64, Ordering::Relaxed);
            }
        };
        self.frames.on_allocate(count.clone());
        self.frames.on_free(count);
        holes
    }

    /// Ends all that, but for the check of frames that are freed.
    fn unwatch(&self) {
        self.mmu.speculate(None);
        self.frames.remove_hooks();
        for cpu in self.mmu.cpus() {
            cpu.watch(&self.frames);
        }
    }

    fn audit(&self, table: &Table<'_>, vmemmap: &Array<'_>) -> AuditReport {
        let mut scratch = vec![AuditSlot::default(); 1 << 15];
        let report = vmemmap.audit(table, &[&self.frames], &mut scratch);
        report.unwrap()
    }

    /// Every CPU reaches what the tables say.
    fn access_all(&self, range: VirtRange) {
        for cpu in self.mmu.cpus() {
            pages(range).for_each(|at| assert!(cpu.access(at).is_ok()));
        }
    }
}

fn pages(range: VirtRange) -> impl Iterator<Item = VirtAddr> {
    (0..range.pages(Granule::Size4K))
        .map(move |page| range.start().checked_add(page << 12).unwrap())
}

/// How memory comes online, and how it is folded.
#[derive(Clone, Copy)]
struct Case {
    online: u64,
    align: u64,
    tails: Tails,
    tables: Tables,
    huge_leaves: bool,
}

const fn case(online: u64, align: u64, tails: Tails, huge_leaves: bool) -> Case {
    Case {
        online,
        align,
        tails,
        tables: Tables::Private,
        huge_leaves,
    }
}

const CASES: [Case; 7] = [
    case(4 * KIB, 2 * MIB, Tails::PerCompound, true),
    case(4 * KIB, 2 * MIB, Tails::PerCompound, false),
    case(4 * KIB, 2 * MIB, Tails::PerOrder, true),
    case(4 * KIB, 512 * MIB, Tails::PerCompound, true),
    case(4 * KIB, 512 * MIB, Tails::PerOrder, false),
    Case {
        tables: Tables::Shared,
        ..case(512 * MIB, 512 * MIB, Tails::PerCompound, true)
    },
    Case {
        tables: Tables::Shared,
        ..case(512 * MIB, 512 * MIB, Tails::PerOrder, false)
    },
];

/// Folds and unfolds the middle of what is online, watched. Answers with what went wrong.
fn fold_and_unfold_watched(machine: &Machine, case: Case) -> (Vec<Violation>, u64) {
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [frames(24 * GIB, 3 * GIB / 2)];
    let online = pagemap(&ranges, case.online)
        .with_tails(if case.online == case.align {
            case.tails
        } else {
            Tails::None
        })
        .with_tables(case.tables)
        .with_huge_leaves(case.huge_leaves);
    let region = vmemmap.online(&mut table, &online).unwrap();
    let compound = pagemap(&ranges, case.align)
        .with_tails(case.tails)
        .with_huge_leaves(case.huge_leaves);
    let part = frames(24 * GIB + 512 * MIB, 512 * MIB);
    let all = MODEL_4_LEVEL.descriptors(ranges[0]).unwrap();
    let holes = machine.watch(all);
    for step in 0..4 {
        let done = match step % 2 {
            0 => vmemmap.fold(&mut table, &compound, part),
            _ => vmemmap.unfold(&mut table, &compound, part),
        };
        let done = done.unwrap();
        assert_eq!(done.changed + done.unchanged, 512 * MIB / case.align);
        machine.access_all(all);
        machine.audit(&table, &vmemmap);
    }
    let violations = machine.memory.violations().take();
    machine.unwatch();
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames.outstanding(), 0);
    (violations, holes.load(Ordering::Relaxed))
}

#[test]
fn no_cpu_translates_by_what_was_exchanged_and_nothing_is_unmapped_in_between() {
    for rule in [Replacement::Direct, Replacement::BreakBeforeMake] {
        for (index, case) in CASES.into_iter().enumerate() {
            let machine = Machine::new(rule);
            let (violations, holes) = fold_and_unfold_watched(&machine, case);
            assert_eq!(violations, [], "{rule:?}, case {index}");
            assert_eq!(holes, 0, "{rule:?}, case {index}");
            let quiesces = machine.mmu.record().quiesces;
            assert_eq!(quiesces > 0, rule == Replacement::BreakBeforeMake);
        }
    }
}

#[test]
fn exchanging_at_once_is_caught_where_break_before_make_is_demanded() {
    for case in CASES {
        let machine = Machine::new(Replacement::Direct);
        let cpus = machine.mmu.cpus();
        cpus.iter().for_each(SimTlb::demand_break_before_make);
        let (violations, _) = fold_and_unfold_watched(&machine, case);
        assert!(!violations.is_empty());
        for violation in violations {
            assert!(
                matches!(violation, Violation::NotBroken { .. }),
                "{violation}"
            );
        }
    }
}

#[test]
fn without_a_way_to_keep_cpus_away_folding_is_refused() {
    let machine = Machine::new(Replacement::Refused);
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [frames(24 * GIB, GIB / 2)];
    let online = pagemap(&ranges, 4 * KIB);
    let region = vmemmap.online(&mut table, &online).unwrap();
    let before = machine.audit(&table, &vmemmap);
    let flushes = machine.mmu.record().forgets;
    let compound = pagemap(&ranges, 2 * MIB);
    assert_eq!(table.replacement(), Replacement::Refused);
    let refused = vmemmap.fold(&mut table, &compound, ranges[0]);
    assert_eq!(refused, Err(FoldError::Refused));
    let refused = vmemmap.unfold(&mut table, &compound, ranges[0]);
    assert_eq!(refused, Err(FoldError::Refused));
    assert_eq!(machine.audit(&table, &vmemmap), before);
    assert_eq!(machine.mmu.record().forgets, flushes);
    vmemmap.offline(&mut table, region);
}

#[test]
fn a_failed_fold_or_unfold_flushes_nothing() {
    for rule in [Replacement::Direct, Replacement::BreakBeforeMake] {
        let machine = Machine::new(rule);
        let (mut table, mut vmemmap) = machine.parts();
        let ranges = [frames(24 * GIB, GIB / 2)];
        let region = vmemmap
            .online(&mut table, &pagemap(&ranges, 4 * KIB))
            .unwrap();
        let compound = pagemap(&ranges, 2 * MIB);
        for step in 0..2 {
            let record = machine.mmu.record();
            machine.frames.fail_after(3);
            let failed = match step {
                0 => vmemmap.fold(&mut table, &compound, ranges[0]),
                _ => vmemmap.unfold(&mut table, &compound, ranges[0]),
            };
            machine.frames.no_more_faults();
            assert!(matches!(failed, Err(FoldError::OutOfFrames(_))));
            assert_eq!(machine.mmu.record(), record);
            vmemmap
                .fold(&mut table, &compound, ranges[0])
                .map(drop)
                .unwrap();
        }
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames.outstanding(), 0);
    }
}
