//! Exchanging entries while CPUs use them, to fold memory and to split what a huge leaf or a shared
//! table maps: two CPUs that cache all they can whenever they can, with and without
//! break-before-make, on the tables of every architecture.

use arch_sim::walker::Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb, Violation};
use hosted::AnyTable;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::paging::{InUse, Replacement};
use mm_core::vmemmap::{AuditReport, AuditSlot, FoldError, OfflineError, Vmemmap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::engine::{EngineParts, WithEngine};
use testkit::on_radix_backends;
use testkit::testbed::Sizes;

/// A machine whose entries in use are exchanged by one rule, whatever its architecture demands.
struct Machine<R: WithEngine> {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    mmu: SimMmu<R::Walker>,
}

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

impl<R: WithEngine> Machine<R> {
    fn new(replacement: Replacement) -> Self {
        let granule = R::RADIX_MODEL.granule();
        // Above all memory of the tests.
        let above = Pfn::new(1 << 30).unwrap();
        let ram = PfnRange::new(above, 1 << 17).unwrap();
        let root = ram.last().saturating_add(1 << 10);
        let memory = SimMemory::new(granule, &[ram, PfnRange::single(root)]).unwrap();
        let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
        let cpu = || SimTlb::new(R::walker(), &memory, root);
        let cpus: Vec<_> = (0..2).map(|_| cpu()).collect();
        cpus.iter().for_each(|cpu| cpu.watch(&frames));
        let mmu = SimMmu::new(cpus).with_replacement(replacement);
        Self {
            memory,
            frames,
            root,
            mmu,
        }
    }

    fn parts(&self) -> (AnyTable<'_>, Array<'_>) {
        let parts = EngineParts {
            root: self.root,
            other_roots: Some(&self.mmu),
            frames: &self.frames,
            memory: &self.memory,
            mmu: &self.mmu,
        };
        // SAFETY: 1: of the table's, 1: the root is zero. 2: the memory has all frames. 3: the one table. 4:
        // all CPUs are the MMU's. 5: there is one root. 6: there is one allocator.
        let table = unsafe { R::engine(parts) };
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(R::RADIX_MODEL, &self.frames, &self.memory) };
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
                let walker = R::walker();
                let missing = pages::<R>(range)
                    .filter(|at| walker.translate(&memory, root, *at).is_err())
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

    fn audit(&self, table: &AnyTable<'_>, vmemmap: &Array<'_>) -> AuditReport {
        let mut scratch = vec![AuditSlot::default(); 1 << 15];
        let report = vmemmap.audit(table, &[&self.frames], &mut scratch);
        report.unwrap()
    }

    /// Every CPU reaches what the tables say.
    fn access_all(&self, range: VirtRange) {
        for cpu in self.mmu.cpus() {
            pages::<R>(range).for_each(|at| assert!(cpu.access(at).is_ok()));
        }
    }
}

fn pages<R: WithEngine>(range: VirtRange) -> impl Iterator<Item = VirtAddr> {
    let granule = R::RADIX_MODEL.granule();
    (0..range.pages(granule))
        .map(move |page| range.start().checked_add(page << granule.shift()).unwrap())
}

fn descriptors<R: WithEngine>(frames: PfnRange) -> VirtRange {
    R::RADIX_MODEL.descriptors(frames).unwrap()
}

fn pagemap<R: WithEngine>(ranges: &[PfnRange], order: Order) -> DevPagemap<'_> {
    DevPagemap::new(&R::RADIX_MODEL, ranges, Geometry::compound(order))
        .unwrap()
        .with_piece(Piece::Range)
}

/// How memory comes online, how it is folded, and what it is: three units of this order, of which
/// the middle one is folded.
#[derive(Clone, Copy, Debug)]
struct Case {
    online: Order,
    compound: Order,
    tails: Tails,
    tables: Tables,
    huge_leaves: bool,
    unit: Order,
}

fn cases(sizes: Sizes) -> Vec<Case> {
    let natural = sizes.natural();
    let few = Order::new(natural.get() + 2).unwrap();
    let case = |compound, tails, unit| Case {
        online: Order::BASE,
        compound,
        tails,
        tables: Tables::Private,
        huge_leaves: unit == sizes.table(),
        unit,
    };
    let gigantic = |tails| Case {
        online: sizes.gigantic(),
        tables: Tables::Shared,
        huge_leaves: tails == Tails::PerCompound,
        ..case(sizes.gigantic(), tails, sizes.gigantic())
    };
    let mut cases = vec![
        case(natural, Tails::PerCompound, few),
        case(natural, Tails::PerOrder, few),
        case(natural, Tails::PerOrder, sizes.table()),
    ];
    // With 64K pages those have very much memory.
    if sizes.entries() <= 1 << 11 {
        cases.extend([
            case(natural, Tails::PerCompound, sizes.table()),
            case(sizes.table(), Tails::PerCompound, sizes.table()),
            gigantic(Tails::PerCompound),
            gigantic(Tails::PerOrder),
        ]);
    }
    cases
}

/// Folds and unfolds the middle of what is online, watched. Answers with what went wrong.
fn fold_and_unfold_watched<R: WithEngine>(
    machine: &Machine<R>,
    case: Case,
) -> (Vec<Violation>, u64) {
    let sizes = Sizes::of(R::RADIX_MODEL);
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [sizes.blocks(case.unit, 3, 3)];
    let part = sizes.blocks(case.unit, 4, 1);
    let compound = pagemap::<R>(&ranges, case.compound)
        .with_tails(case.tails)
        .with_huge_leaves(case.huge_leaves);
    let online = match case.online == case.compound {
        true => compound.with_tables(case.tables),
        false => pagemap::<R>(&ranges, case.online).with_huge_leaves(case.huge_leaves),
    };
    let region = vmemmap.online(&mut table, &online).unwrap();
    let all = descriptors::<R>(ranges[0]);
    let holes = machine.watch(all);
    for step in 0..4 {
        let done = match step % 2 {
            0 => vmemmap.fold(&mut table, &compound, part),
            _ => vmemmap.unfold(&mut table, &compound, part),
        };
        let done = done.unwrap();
        let count = part.frames() >> case.compound.get();
        assert_eq!(done.changed + done.unchanged, count);
        machine.access_all(all);
        machine.audit(&table, &vmemmap);
    }
    let violations = machine.memory.violations().take();
    machine.unwatch();
    vmemmap.offline(&mut table, region).unwrap();
    assert_eq!(machine.frames.outstanding(), 0);
    (violations, holes.load(Ordering::Relaxed))
}

fn no_cpu_translates_by_what_was_exchanged_and_nothing_is_unmapped_in_between<R: WithEngine>() {
    for rule in [Replacement::Direct, Replacement::BreakBeforeMake] {
        for case in cases(Sizes::of(R::RADIX_MODEL)) {
            let machine = Machine::<R>::new(rule);
            let (violations, holes) = fold_and_unfold_watched(&machine, case);
            assert_eq!(violations, [], "{rule:?}, {case:?}");
            assert_eq!(holes, 0, "{rule:?}, {case:?}");
            let quiesces = machine.mmu.record().quiesces;
            assert_eq!(quiesces > 0, rule == Replacement::BreakBeforeMake);
        }
    }
}

fn exchanging_at_once_is_caught_where_break_before_make_is_demanded<R: WithEngine>() {
    for case in cases(Sizes::of(R::RADIX_MODEL)) {
        let machine = Machine::<R>::new(Replacement::Direct);
        let cpus = machine.mmu.cpus();
        cpus.iter().for_each(SimTlb::demand_break_before_make);
        let (violations, _) = fold_and_unfold_watched(&machine, case);
        assert!(!violations.is_empty());
        for violation in violations {
            let not_broken = matches!(violation, Violation::NotBroken { .. });
            assert!(not_broken, "{violation}");
        }
    }
}

/// Base pages by a huge leaf, or compound pages by shared tables, and the last subsection of what
/// one of them maps.
fn to_be_split<R: WithEngine>(ranges: &[PfnRange], tables: Tables) -> (DevPagemap<'_>, PfnRange) {
    let sizes = Sizes::of(R::RADIX_MODEL);
    let pagemap = match tables {
        Tables::Shared => pagemap::<R>(ranges, sizes.gigantic()).with_tables(Tables::Shared),
        _ => pagemap::<R>(ranges, Order::BASE),
    };
    (pagemap, sizes.subsections(ranges[0]).pop().unwrap())
}

fn memory_for_both<R: WithEngine>(tables: Tables) -> [PfnRange; 1] {
    let sizes = Sizes::of(R::RADIX_MODEL);
    match tables {
        Tables::Shared => [sizes.blocks(sizes.gigantic(), 2, 1)],
        _ => [sizes.blocks(sizes.table(), 5, 1)],
    }
}

fn what_stays_of_a_split_leaf_or_table_is_reachable_at_all_times<R: WithEngine>() {
    for rule in [Replacement::Direct, Replacement::BreakBeforeMake] {
        for tables in [Tables::Private, Tables::Shared] {
            let machine = Machine::<R>::new(rule);
            let (mut table, mut vmemmap) = machine.parts();
            let ranges = memory_for_both::<R>(tables);
            let (pagemap, piece) = to_be_split::<R>(&ranges, tables);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            let stays = ranges[0].frames() - piece.frames();
            let stays = descriptors::<R>(ranges[0].take_first(stays).0);
            let holes = machine.watch(stays);
            vmemmap.depopulate(&mut table, &pagemap, piece).unwrap();
            machine.access_all(stays);
            machine.audit(&table, &vmemmap);
            let violations = machine.memory.violations().take();
            assert_eq!(violations, [], "{rule:?} {tables:?}");
            assert_eq!(holes.load(Ordering::Relaxed), 0, "{rule:?} {tables:?}");
            let quiesces = machine.mmu.record().quiesces;
            assert_eq!(quiesces > 0, rule == Replacement::BreakBeforeMake);
            machine.unwatch();
            vmemmap.offline(&mut table, region).unwrap();
            assert_eq!(machine.frames.outstanding(), 0);
        }
    }
}

fn without_a_way_to_keep_cpus_away_nothing_is_split<R: WithEngine>() {
    let sizes = Sizes::of(R::RADIX_MODEL);
    for tables in [Tables::Private, Tables::Shared] {
        let machine = Machine::<R>::new(Replacement::Refused);
        let (mut table, mut vmemmap) = machine.parts();
        let ranges = memory_for_both::<R>(tables);
        let (pagemap, piece) = to_be_split::<R>(&ranges, tables);
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let before = (machine.audit(&table, &vmemmap), machine.mmu.record());
        // All that the leaf or the table maps.
        let first = piece.last().align_down(sizes.table());
        let whole = PfnRange::new(first, sizes.table().frames()).unwrap();
        let at = descriptors::<R>(whole).start();
        let expected = match tables {
            Tables::Shared => OfflineError::SplitsSharedTable { at },
            _ => OfflineError::SplitsHugeLeaf { at },
        };
        let refused = vmemmap.depopulate(&mut table, &pagemap, piece);
        assert_eq!(refused, Err(expected));
        let after = (machine.audit(&table, &vmemmap), machine.mmu.record());
        assert_eq!(after, before);
        // It goes as a whole.
        vmemmap.depopulate(&mut table, &pagemap, whole).unwrap();
        machine.audit(&table, &vmemmap);
        vmemmap.offline(&mut table, region).unwrap();
        assert_eq!(machine.frames.outstanding(), 0);
    }
}

fn without_a_way_to_keep_cpus_away_folding_is_refused<R: WithEngine>() {
    let sizes = Sizes::of(R::RADIX_MODEL);
    let machine = Machine::<R>::new(Replacement::Refused);
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [sizes.blocks(sizes.natural(), 9, 4)];
    let online = pagemap::<R>(&ranges, Order::BASE);
    let region = vmemmap.online(&mut table, &online).unwrap();
    let before = machine.audit(&table, &vmemmap);
    let flushes = machine.mmu.record().forgets;
    let compound = pagemap::<R>(&ranges, sizes.natural());
    assert_eq!(table.replacement(), Replacement::Refused);
    let refused = vmemmap.fold(&mut table, &compound, ranges[0]);
    assert_eq!(refused, Err(FoldError::Refused));
    let refused = vmemmap.unfold(&mut table, &compound, ranges[0]);
    assert_eq!(refused, Err(FoldError::Refused));
    assert_eq!(machine.audit(&table, &vmemmap), before);
    assert_eq!(machine.mmu.record().forgets, flushes);
    vmemmap.offline(&mut table, region).unwrap();
}

fn a_failed_fold_or_unfold_flushes_nothing<R: WithEngine>() {
    let sizes = Sizes::of(R::RADIX_MODEL);
    for rule in [Replacement::Direct, Replacement::BreakBeforeMake] {
        let machine = Machine::<R>::new(rule);
        let (mut table, mut vmemmap) = machine.parts();
        // A huge leaf to be split, and base pages.
        let more = sizes.table().frames() + 2 * sizes.natural().frames();
        let start = sizes.blocks(sizes.table(), 5, 1).start();
        let ranges = [PfnRange::new(start, more).unwrap()];
        let online = pagemap::<R>(&ranges, Order::BASE);
        let region = vmemmap.online(&mut table, &online).unwrap();
        let compound = pagemap::<R>(&ranges, sizes.natural());
        for step in 0..2 {
            let record = machine.mmu.record();
            machine.frames.fail_after(step);
            let failed = match step {
                0 => vmemmap.fold(&mut table, &compound, ranges[0]),
                _ => vmemmap.unfold(&mut table, &compound, ranges[0]),
            };
            machine.frames.no_more_faults();
            assert!(
                matches!(failed, Err(FoldError::OutOfFrames(_))),
                "{failed:?}"
            );
            assert_eq!(machine.mmu.record(), record);
            vmemmap
                .fold(&mut table, &compound, ranges[0])
                .map(drop)
                .unwrap();
        }
        vmemmap.offline(&mut table, region).unwrap();
        assert_eq!(machine.frames.outstanding(), 0);
    }
}

on_radix_backends!(
    no_cpu_translates_by_what_was_exchanged_and_nothing_is_unmapped_in_between,
    exchanging_at_once_is_caught_where_break_before_make_is_demanded,
    what_stays_of_a_split_leaf_or_table_is_reachable_at_all_times,
    without_a_way_to_keep_cpus_away_nothing_is_split,
    without_a_way_to_keep_cpus_away_folding_is_refused,
    a_failed_fold_or_unfold_flushes_nothing,
);
