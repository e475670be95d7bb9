//! A backend that is as small as it can be passes the battery: the methods that have no default
//! body over a plain map, and an allocator without counts.
//!
//! Its RAM starts with frame 0, and its vmemmap ends with the address space.

mod per_page;
mod plain;
mod reorder;

use arch_sim::SimMemory;
use conformance::{Cause, Controls, Harness, Outcome, Parts, Seen};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::{Counted, DeviceAltmap, ReferenceCounts, SharedCounts, WordCounts};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::{Exchange, InUse, Leaf, NoRecords, PageTable, Replacement, Role, Run};
use mm_core::vmemmap::AuditSlot;
use per_page::{Figures, PerPage, Stale};
use plain::Plain;
use std::ops::ControlFlow;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use testkit::FramesUnderTest;

/// Another granule than anywhere else, and descriptors that are the same.
const GRANULE: Granule = Granule::Size16K;

/// Room for a few GiB, and for as much as a machine may have.
const FEW_FRAMES: u64 = 1 << 21;
const MANY_FRAMES: u64 = 1 << 34;

fn model(frames: u64) -> MemoryModel {
    let order = |order| Order::new(order).unwrap();
    MemoryModel::new(ModelConfig {
        granule: GRANULE,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new((64 * frames).wrapping_neg()),
        frames,
        section: order(13),
        subsection: order(9),
        max_order: order(18),
    })
    .unwrap()
    .with_heads(VirtAddr::new(1 << 40))
    .unwrap()
}

fn range(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
}

fn device() -> PfnRange {
    range(1 << 20, 3 << 16)
}

struct Tools {
    plain: &'static Plain,
    figures: Figures,
}

impl Controls<PerPage> for Tools {
    fn translate(&self, table: &PerPage, at: VirtAddr) -> Option<Option<Seen>> {
        // By the map, with nothing of the trait's.
        let mut below = table.leaves.range(..=at);
        let found = below.next_back().and_then(|(start, leaf)| {
            let page = (at.get() - start.get()) / GRANULE.bytes();
            let frame = leaf.block.first().checked_add(page)?;
            let is_seen = leaf.block.frames().contains(frame) && !table.unseen.contains(start);
            is_seen.then_some(Seen {
                frame,
                writable: leaf.writable,
                executable: false,
            })
        });
        Some(found)
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        self.plain.left.set(n);
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.plain.no_blocks.set(fail);
        true
    }

    fn map_foreign(&self, table: &mut PerPage, at: VirtAddr, leaf: Leaf) -> bool {
        let free = table.look(at).mapping().is_none();
        if free {
            table.leaves.insert(at, leaf);
        }
        free
    }

    fn unmap_foreign(&self, table: &mut PerPage, at: VirtAddr) {
        table.leaves.remove(&at);
    }

    fn plant_reserved(&self, table: &mut PerPage, at: VirtAddr, order: Order) -> bool {
        order == Order::BASE && table.reserved.insert(at)
    }

    fn take_reserved(&self, table: &mut PerPage, at: VirtAddr) -> bool {
        table.reserved.remove(&at) && !table.leaves.contains_key(&at)
    }

    fn flushes(&self, _table: &PerPage) -> Option<u64> {
        Some(self.figures.flushes.get())
    }

    fn violations(&self) -> u64 {
        self.plain.complaints.get() + self.figures.unbroken.get()
    }
}

/// How the backend is, and what it counts.
#[derive(Clone)]
struct Setup {
    frames: u64,
    ram: u64,
    huge: Option<Order>,
    /// Whether it can start anew.
    renews: bool,
    counts: Counts,
    figures: Figures,
}

/// How frames are counted.
#[derive(Clone, Copy)]
enum Counts {
    /// Each by a word.
    Words,
    /// Those that are shared.
    Shared,
}

impl Setup {
    fn new(huge: Option<Order>) -> Self {
        Self {
            frames: FEW_FRAMES,
            ram: 1 << 14,
            huge,
            renews: false,
            counts: Counts::Words,
            figures: Figures::default(),
        }
    }
}

/// A place for good for `value`. A test makes a few of them.
fn keep<T>(value: T) -> &'static mut T {
    /// Where they are: whoever looks for leaks finds that they are known.
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let kept = Box::leak(Box::new(value));
    let address = ptr::from_mut(kept).expose_provenance();
    KEPT.lock().unwrap().push(address);
    kept
}

/// Counts of frames, in memory that is never freed.
trait KeptCounts: ReferenceCounts {
    fn of(ram: PfnRange) -> Self;
}

impl KeptCounts for WordCounts<'static> {
    fn of(ram: PfnRange) -> Self {
        let words: Vec<_> = (0..ram.frames()).map(|_| AtomicU32::new(0)).collect();
        Self::new(ram, keep(words)).unwrap()
    }
}

impl KeptCounts for SharedCounts<'static> {
    fn of(_ram: PfnRange) -> Self {
        Self::new(keep([0; 1024]))
    }
}

/// The backend, with tables that exchange entries as they are told.
struct Small {
    how: Replacement,
    setup: Setup,
    table: PerPage,
    frames: &'static dyn FramesUnderTest,
    memory: &'static SimMemory,
    altmap: DeviceAltmap<&'static SimMemory>,
    tools: Tools,
    scratch: Vec<AuditSlot>,
}

impl Small {
    /// What it borrows is never freed.
    fn new(how: Replacement, setup: &Setup) -> Self {
        let ram = range(0, setup.ram);
        let stale = Stale::default();
        let plain: &Plain = keep(Plain::new(ram, stale.clone()));
        let model = model(setup.frames);
        let reserved = device().take_first(model.subsection().frames()).0;
        let memory = SimMemory::new(GRANULE, &[ram, reserved]).unwrap();
        let memory: &SimMemory = keep(memory);
        // SAFETY: 1 to 3: the memory has these frames, for this altmap and one vmemmap of this model
        // alone.
        let altmap = unsafe { DeviceAltmap::new(&model, memory, reserved, NodeId::default()) };
        let figures = setup.figures.clone();
        Self {
            how,
            setup: setup.clone(),
            table: PerPage::new(how, GRANULE, setup.huge, stale, figures.clone()),
            frames: match setup.counts {
                Counts::Words => keep(Counted::new(plain, WordCounts::of(ram))),
                Counts::Shared => keep(Counted::new(plain, SharedCounts::of(ram))),
            },
            memory,
            altmap: altmap.unwrap(),
            tools: Tools { plain, figures },
            scratch: vec![AuditSlot::default(); 1 << 14],
        }
    }
}

impl Harness for Small {
    type Table = PerPage;
    type Frames = &'static dyn FramesUnderTest;
    type DirectMap = SimMemory;
    type Controls = Tools;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: model(self.setup.frames),
            table: &mut self.table,
            frames: &self.frames,
            direct_map: self.memory,
            controls: &self.tools,
            device: device(),
            node: NodeId::default(),
            altmap: Some(&self.altmap),
            scratch: &mut self.scratch,
            ends_are_free: true,
        }
    }

    fn renew(&mut self) -> bool {
        if self.setup.renews {
            *self = Self::new(self.how, &self.setup);
        }
        self.setup.renews
    }
}

type Outcomes = Vec<(&'static str, Outcome)>;

/// The battery's outcomes.
fn battery(how: Replacement, setup: &Setup) -> Outcomes {
    let mut outcomes = Vec::new();
    conformance::run(&mut Small::new(how, setup), &mut |name, outcome| {
        outcomes.push((name, outcome))
    });
    outcomes
}

/// Checks that all passed but those that were skipped for one of `reasons`, each of which applies.
fn assert_passed(outcomes: &Outcomes, reasons: &[&[&'static str]]) {
    let reasons = reasons.concat();
    let bad = outcomes.iter().filter(|(_, outcome)| match outcome {
        Outcome::Passed => false,
        Outcome::Skipped(why) => !reasons.contains(why),
        Outcome::Failed(_) => true,
    });
    let bad: Vec<String> = bad
        .map(|(name, outcome)| format!("{name}: {outcome}"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for reason in reasons {
        let applies = |(_, outcome): &(_, _)| *outcome == Outcome::Skipped(reason);
        assert!(outcomes.iter().any(applies), "{reason}");
    }
}

/// What a plain map does not have, and this harness cannot do.
const NOT_HERE: &[&str] = &[
    "the page table cannot link a table from several places",
    "the page table has no tables of the library's",
    "the harness does not watch the root's entries",
    "there is memory on one node only",
    "the harness knows no address that is not translated",
    "the harness cannot access what is mapped as a CPU",
    "the harness has no readers",
];

/// What takes more than the required methods.
const REFUSED: &[&str] = &["the page table cannot exchange entries in use"];

/// What takes more than an exchange leaf by leaf.
const NOT_RESIZED: &[&str] = &["the page table does not split or join leaves in use"];

/// What is only for a page table that refuses.
const EXCHANGES: &[&str] = &["the page table can exchange entries in use"];

/// What takes huge leaves.
const NO_HUGE_LEAVES: &[&str] = &["the page table has no huge leaves"];

/// What takes huge leaves, and tables or an allocator that takes blocks back only whole.
const ONLY_HUGE: &[&str] = &[
    "the harness cannot link tables of others",
    "no block is handed out that may have to be split and cannot be",
];

#[test]
fn per_page_primitives_and_an_allocator_without_counts_suffice() {
    let setup = Setup::new(Order::new(5));
    let outcomes = battery(Replacement::Refused, &setup);
    assert_passed(&outcomes, &[NOT_HERE, REFUSED, ONLY_HUGE]);
    assert!(setup.figures.flushes.get() > 0);
}

#[test]
fn what_a_page_table_without_huge_leaves_cannot_do_is_skipped() {
    let outcomes = battery(Replacement::Refused, &Setup::new(None));
    assert_passed(&outcomes, &[NOT_HERE, REFUSED, NO_HUGE_LEAVES]);
}

/// What an allocator that counts shared frames only cannot tell.
const ONLY_SHARED: &[&str] = &["the allocator does not tell free frames from others"];

#[test]
fn counts_of_shared_frames_alone_suffice() {
    let setup = Setup {
        counts: Counts::Shared,
        ..Setup::new(None)
    };
    let outcomes = battery(Replacement::Direct, &setup);
    let reasons = [NOT_HERE, NOT_RESIZED, EXCHANGES, NO_HUGE_LEAVES];
    let reasons = [&reasons[..], &[ONLY_SHARED]].concat();
    assert_passed(&outcomes, &reasons);
}

#[test]
fn one_more_primitive_folds() {
    let outcomes = battery(Replacement::Direct, &Setup::new(None));
    assert_passed(
        &outcomes,
        &[NOT_HERE, NOT_RESIZED, EXCHANGES, NO_HUGE_LEAVES],
    );
    let outcomes = battery(Replacement::Direct, &Setup::new(Order::new(5)));
    let reasons = [NOT_HERE, NOT_RESIZED, EXCHANGES, ONLY_HUGE];
    assert_passed(&outcomes, &reasons);
}

#[test]
fn with_a_hook_that_keeps_cpus_away_it_folds_by_break_before_make() {
    let outcomes = battery(Replacement::BreakBeforeMake, &Setup::new(None));
    assert_passed(
        &outcomes,
        &[NOT_HERE, NOT_RESIZED, EXCHANGES, NO_HUGE_LEAVES],
    );
    let outcomes = battery(Replacement::BreakBeforeMake, &Setup::new(Order::new(5)));
    let reasons = [NOT_HERE, NOT_RESIZED, EXCHANGES, ONLY_HUGE];
    assert_passed(&outcomes, &reasons);
}

/// No default method walks a hole page by page: what there is room for costs nothing.
#[test]
fn the_room_of_the_model_costs_no_calls() {
    let calls = |frames| {
        let mut setup = Setup::new(Order::new(5));
        setup.frames = frames;
        let start = std::time::Instant::now();
        let outcomes = battery(Replacement::Refused, &setup);
        let lookups = setup.figures.lookups.get();
        let took = start.elapsed();
        println!("room for {frames:#x} frames: {lookups} lookups, {took:.2?}");
        (outcomes, lookups)
    };
    let (few, of_few) = calls(FEW_FRAMES);
    let (many, of_many) = calls(MANY_FRAMES);
    assert_eq!(few, many);
    assert_eq!(of_few, of_many);
}

#[test]
fn a_walk_calls_lookup_once_for_each_leaf_and_each_hole() {
    let setup = Setup::new(None);
    let stale = Stale::default();
    let mut table = PerPage::new(
        Replacement::Refused,
        GRANULE,
        None,
        stale,
        setup.figures.clone(),
    );
    let model = model(MANY_FRAMES);
    let all = model.descriptors(model.all_frames()).unwrap();
    for leaf in 0..100 {
        let at = all.start().checked_add((leaf * leaf) << 20).unwrap();
        let leaf = Leaf::single(Pfn::new(leaf).unwrap(), Role::Descriptors);
        // SAFETY: 1 and 2: frames and addresses are only numbers.
        unsafe { table.map_leaf(at, leaf, NodeId::default(), &NoRecords) }.unwrap();
    }
    let before = setup.figures.lookups.get();
    let mut leaves = 0;
    let _ = table.visit(all, &mut |_| {
        leaves += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(leaves, 100);
    let lookups = setup.figures.lookups.get() - before;
    assert!(lookups <= 2 * leaves + 1, "{lookups} lookups");
}

/// Gives one frame for every page, and remembers what comes back.
struct To(Pfn, Vec<Pfn>);

impl Exchange for To {
    fn exchange(&mut self, _at: VirtAddr, _old: Run) -> Run {
        Run::once(Leaf::single(self.0, Role::Descriptors))
    }

    fn released(&mut self, run: Run) {
        self.1.push(run.leaf.block.first());
    }
}

fn no_frame_behind_the_last_is_exchanged_for(how: Replacement) {
    let setup = Setup::new(None);
    let mut table = PerPage::new(how, GRANULE, None, Stale::default(), setup.figures.clone());
    let [first, last, behind] = [1, 2, 3].map(|frame| Pfn::new(frame).unwrap());
    setup.figures.last.set(Some(last));
    let whole = VirtRange::new(VirtAddr::new(1 << 30), GRANULE.bytes()).unwrap();
    let leaf = Leaf::single(first, Role::Descriptors);
    // SAFETY: 1 and 2: frames and addresses are only numbers.
    unsafe { table.map_leaf(whole.start(), leaf, NodeId::default(), &NoRecords) }.unwrap();
    // The one behind the last comes back and the old entry stays; the last replaces it.
    for (to, back, mapped) in [(behind, behind, first), (last, first, last)] {
        let mut exchange = To(to, Vec::new());
        // SAFETY: 1 and 3: as above. 2: mapped above.
        let replaced =
            unsafe { table.replace(whole, NodeId::default(), &mut exchange, &NoRecords) };
        assert_eq!(replaced.unwrap().flushes, u64::from(to == last));
        assert_eq!(exchange.1, [back]);
        let mapping = table.look(whole.start()).mapping().unwrap();
        assert_eq!(mapping.leaf.block.first(), mapped);
    }
}

#[test]
fn no_frame_behind_the_last_is_exchanged_for_one_in_use() {
    no_frame_behind_the_last_is_exchanged_for(Replacement::Direct);
    no_frame_behind_the_last_is_exchanged_for(Replacement::BreakBeforeMake);
}

/// What fails, of a backend that once keeps a leaf that it should have cleared.
fn failures(renews: bool) -> (Outcomes, usize) {
    let setup = Setup {
        renews,
        ..Setup::new(None)
    };
    setup.figures.keeps.set(Some(5000));
    let outcomes = battery(Replacement::Refused, &setup);
    let failed = |(_, outcome): &&(_, Outcome)| matches!(outcome, Outcome::Failed(_));
    let failures = outcomes.iter().filter(failed).count();
    (outcomes, failures)
}

#[test]
fn a_harness_that_starts_anew_fails_one_check_for_one_fault() {
    let (outcomes, failed) = failures(true);
    assert_eq!(failed, 1, "{outcomes:#?}");
    let rest = outcomes.into_iter();
    let rest: Outcomes = rest
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)))
        .collect();
    assert_passed(&rest, &[NOT_HERE, REFUSED, NO_HUGE_LEAVES]);
}

#[test]
fn where_nothing_can_start_anew_the_rest_is_skipped_after_a_failure() {
    let (outcomes, failed) = failures(false);
    assert_eq!(failed, 1, "{outcomes:#?}");
    let is_failed = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Failed(_));
    let first = outcomes.iter().position(is_failed).unwrap();
    let why = "a check has failed, and the harness cannot start anew";
    let rest = outcomes.iter().skip(first + 1);
    let rest: Vec<_> = rest.map(|(_, outcome)| *outcome).collect();
    assert!(!rest.is_empty() && rest.iter().all(|one| *one == Outcome::Skipped(why)));
}

#[test]
fn a_failure_shows_what_was_asked_of_the_allocator() {
    let setup = Setup {
        ram: 6,
        ..Setup::new(None)
    };
    let outcomes = battery(Replacement::Refused, &setup);
    let failure = outcomes.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Failed(failure) => Some(*failure),
        _ => None,
    });
    let failure = failure.unwrap();
    let order = Order::new(2).unwrap();
    assert!(
        matches!(failure.cause, Some(Cause::Frames(asked)) if asked.order == order),
        "{failure}"
    );
    assert!(failure.to_string().contains("4 frames"), "{failure}");
}

/// What comes of one check of the battery.
fn one_check(name: &str, how: Replacement, setup: &Setup) -> Outcome {
    let mut checks = conformance::checks();
    let check = checks.find(|check| check.name() == name).unwrap();
    let mut harness = Small::new(how, setup);
    conformance::run_one(&mut harness, &check)
}

/// What is skipped where entries can be exchanged, and huge leaves split, would notice who does not keep to what
/// it says.
#[test]
fn checks_of_what_cannot_be_exchanged_notice_who_does_otherwise() {
    let changes_its_mind = Setup::new(None);
    let name = "orders_stay_where_entries_in_use_cannot_be_exchanged";
    let outcome = one_check(name, Replacement::Refused, &changes_its_mind);
    assert_eq!(outcome, Outcome::Passed);
    changes_its_mind.figures.refuses_while_empty.set(true);
    let outcome = one_check(name, Replacement::Direct, &changes_its_mind);
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");

    let passes_over = Setup::new(Order::new(5));
    let name = "a_huge_leaf_that_cannot_be_split_keeps_its_pages";
    let outcome = one_check(name, Replacement::Direct, &passes_over);
    assert_eq!(outcome, Outcome::Passed);
    passes_over.figures.passes_over_huge_leaves.set(true);
    let outcome = one_check(name, Replacement::Direct, &passes_over);
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");
}
