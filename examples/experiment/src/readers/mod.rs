//! Readers on other CPUs, while this one brings memory online, takes it offline, freezes and thaws it, and
//! changes the order of pages.
//!
//! ```text
//!   this CPU: the owner                          each other CPU
//!   online ▶ stamp each head                     is it online? what page is it, and is the stamp
//!   again and again:                             there that its owner wrote?
//!     freeze a part ▶ thaw it                    take a reference ▶ nothing changes under it
//!     freeze ▶ a grace period ▶ commit           ▶ give it back: it is never the last one
//!     ▶ online ▶ stamp with another number
//!     freeze pages ▶ they become others
//!     ▶ and what they were
//!     pages become larger and smaller ones
//!     ▶ and what they were, or offline so
//!     all offline, by nobody's leave ▶ online
//!   has each head one reference, its owner's?
//! ```
//!
//! A stamp tells which page it is of and how often that has come online. So a CPU that goes on with a
//! translation which it should have forgotten finds the stamp of another time, or something else.
//!
//! - `kernel`: what readers need of a kernel on a real MMU;
//! - `cases`: what is tried; `changes`: what pages become by a fold, an unfold or a reshape, `orders`: by a change
//!   of order; `shared`: what readers and the owner share;
//! - `reader`: what the others do; `owner`: what this CPU does;
//! - `wrong`: what can turn out otherwise.

mod cases;
mod changes;
mod kernel;
mod orders;
mod owner;
mod reader;
mod shared;
mod wrong;

pub use kernel::MappedDescriptors;

use crate::cpus::{MOST_CPUS, OtherCpus};
use crate::run::Ending;
use crate::{Case, FrameInfo, Frames, Report, TableShape};
use cases::reader_cases;
use changes::RoundTrips;
use core::fmt;
use kernel::Watched;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::readers::{Kernel, OnlineEntry, Readers};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use orders::OrderChanges;
use owner::Owner;
use shared::{Part, SharedState, Tally};
use wrong::Wrong;

/// How many CPUs read; others beyond that do nothing.
const MOST_READERS: usize = MOST_CPUS;

/// How many rounds there are in all cases together, at least.
const ROUNDS: u64 = 1000;

/// In how many parts memory comes and goes.
const PARTS: u64 = 4;

/// The columns of memory that others read.
const HEADER: &str = "page  tails         tables   leaves pieces     rounds    busy changes reorders mixed    looked  referred refused  checks";

/// Everything but the page table that readers and the owner of memory need.
#[derive(Debug)]
pub struct ReadersPart<'m, M, K, C> {
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// What the page table's tables translate.
    pub shape: TableShape,
    /// The allocator.
    pub frames: &'m Frames<'m>,
    /// The direct map.
    pub direct_map: &'m M,
    /// What readers need of the kernel.
    pub kernel: &'m K,
    /// The CPUs that read.
    pub cpus: &'m C,
    /// Roots of online maps, one for each encoding of tails, with as many entries as the model needs.
    pub roots: [&'m [OnlineEntry]; 2],
}

impl<M: DirectMap + Sync, K: Kernel, C: OtherCpus> ReadersPart<'_, M, K, C> {
    /// Owns parts of `device` on `table` while others read, in base pages and in pages of each of
    /// `compound`, with every policy.
    ///
    /// # Safety
    ///
    /// 1. All CPUs translate by `table`, also those of `cpus`, and what its MMU is told reaches them.
    /// 2. The vmemmap of the model is empty, and free for this.
    /// 3. The direct map reaches all frames of the allocator, and `table` takes its tables from that.
    /// 4. The entries of the roots are [new](OnlineEntry::new), and nobody else uses them.
    pub unsafe fn run<T: PageTable>(
        &self,
        table: &mut T,
        scratch: &mut [AuditSlot],
        (device, compound): (PfnRange, &[Order]),
        report: &mut Report<'_>,
    ) {
        let readers = self.cpus.count().min(MOST_READERS);
        // What was checked before is no part of the first row.
        let _ = Ending::of(report);
        report.line(format_args!("beside {readers} readers: {HEADER}"));
        let cases = reader_cases(&self.model, &self.shape, device, compound);
        let [by_pointer, by_mask] = self.roots;
        // The smaller one, to which pages of the larger one are split.
        let smaller = compound.iter().copied().min().unwrap_or(Order::BASE);
        let rounds = ROUNDS.div_ceil(cases.clone().count().max(1) as u64);
        let setting = (smaller, rounds);
        let without_same = cases.clone().filter(|case| !case.needs_same_tails());
        // SAFETY: 1 to 4: the caller's; there is one session at a time, which leaves nothing.
        let done = unsafe {
            let by_pointer = (by_pointer, without_same, setting);
            let first = self.session::<Pointer, _>(table, scratch, by_pointer, report);
            let with_same = cases.filter(Case::needs_same_tails);
            let by_mask = (by_mask, with_same, setting);
            first + self.session::<Mask, _>(table, scratch, by_mask, report)
        };
        report.line(format_args!("{done} rounds beside readers"));
        let enough = (done >= ROUNDS).then_some(()).ok_or(Wrong::Rounds { done });
        report.check("rounds beside readers", enough);
    }

    /// The cases, on a vmemmap of their own. Says how many rounds there were.
    ///
    /// # Safety
    ///
    /// 1. The duties of [`run`](Self::run), for the root `root`.
    unsafe fn session<E: TailEncoding, T: PageTable>(
        &self,
        table: &mut T,
        scratch: &mut [AuditSlot],
        (root, cases, setting): (&[OnlineEntry], impl Iterator<Item = Case>, (Order, u64)),
        report: &mut Report<'_>,
    ) -> u64 {
        let watched = Watched::new(self.kernel, self.cpus);
        let readers = match Readers::new(self.model, root, &watched) {
            Ok(readers) => readers,
            Err(error) => {
                report.check("the root of the online map", Err(error));
                return 0;
            }
        };
        // SAFETY: 1: the caller's duties 1 to 3. 2: its duty 4.
        let vmemmap = unsafe {
            Vmemmap::<FrameInfo<E>, _, _, _>::with_readers(readers, self.frames, self.direct_map)
        };
        let mut vmemmap = match vmemmap {
            Ok(vmemmap) => vmemmap,
            Err(error) => {
                report.check("model", Err(error));
                return 0;
            }
        };
        let mut rounds = 0;
        for case in cases {
            // SAFETY: 1: the caller's.
            let outcome = unsafe {
                let subject = (&watched, &case, setting);
                self.run_case(&mut vmemmap, table, scratch, subject, report)
            };
            match outcome {
                Ok(done) => rounds += done,
                Err(wrong) => report.check("case", Err(wrong)),
            }
        }
        rounds
    }

    /// One case. Says how many rounds there were.
    ///
    /// # Safety
    ///
    /// 1. The duties of [`run`](Self::run).
    unsafe fn run_case<'r, E: TailEncoding, T: PageTable>(
        &self,
        vmemmap: &mut Array<'r, '_, E, M, K>,
        table: &mut T,
        scratch: &mut [AuditSlot],
        (watched, case, (smaller, rounds)): (&'r Watched<'_, K>, &Case, (Order, u64)),
        report: &mut Report<'_>,
    ) -> Result<u64, Wrong> {
        let pagemap = case.pagemap(&self.model).map_err(Wrong::Pagemap)?;
        let before = self.usage(vmemmap, table, scratch)?;
        let parts: [Part; PARTS as usize] = core::array::from_fn(|index| Part::of(case, index));
        let tallies = [const { Tally::new() }; MOST_READERS];
        let part = case.range.frames() / PARTS;
        let round_trips = RoundTrips::of(case, &self.model, smaller, part);
        // SAFETY: 1: duty 1 of `run`. 2: what becomes other pages is frozen first. 3: nobody takes references while memory goes
        // offline without being frozen, and then nobody has one: the owner waits for that.
        let reader = unsafe { vmemmap.reader() };
        let shared = SharedState::new(reader, case.order, &parts, &tallies);
        let count = self.cpus.count().min(MOST_READERS);
        let order_changes = OrderChanges::of(case, smaller, part, self.frames);
        let mut owner = Owner::new(
            vmemmap,
            table,
            &pagemap,
            &shared,
            (watched, round_trips, order_changes),
        );
        let mut outcome = Ok(());
        let watch = || {
            self.cpus.wake();
            (0..count).all(|cpu| self.cpus.fault(cpu).is_none())
        };
        let rest = || self.cpus.rest(&|| shared.is_stopped());
        let read = |cpu| shared.read(cpu, &rest);
        self.cpus.run_beside(&read, &mut || {
            outcome = owner.run((rounds, count), &watch);
            shared.stop();
            self.cpus.wake();
        });
        report.check("the owner's rounds", outcome);
        for (cpu, tally) in (0..count).zip(&tallies) {
            let fault = self.cpus.fault(cpu).map(Wrong::Fault);
            report.check("no fault on another CPU", fault.map_or(Ok(()), Err));
            report.check("what another CPU has read", tally.outcome());
        }
        report.check("nobody has dropped a last reference", watched.outcome());
        report.check("each page has one reference", owner.heads_are_owned());
        report.check("offline", owner.end());
        report.check("nothing is found any more", owner.nothing_is_found());
        let figures = owner.figures();
        let now = self.usage(vmemmap, table, scratch)?;
        let outcome = (now == before).then_some(());
        report.check("all frames are back", outcome.ok_or(Wrong::Left));
        let sum = Tally::sum(&tallies);
        let ending = Ending::of(report);
        report.line(format_args!("{case} {figures} {sum}  {ending}"));
        Ok(figures.rounds)
    }

    /// What the vmemmap has, and what RAM is free.
    fn usage<E: TailEncoding, T: PageTable>(
        &self,
        vmemmap: &Array<'_, '_, E, M, K>,
        table: &T,
        scratch: &mut [AuditSlot],
    ) -> Result<(AuditReport, u64), Wrong> {
        let ram: &dyn InspectFrames = self.frames;
        let audit = vmemmap.audit(table, &[ram], scratch);
        let free = self.frames.allocator().allocator().free_frames();
        audit.map(|audit| (audit, free)).map_err(Wrong::Audit)
    }
}

/// A vmemmap that others read.
type Array<'r, 'm, E, M, K> =
    Vmemmap<FrameInfo<E>, &'m Frames<'m>, &'m M, Readers<'r, Watched<'r, K>>>;

/// A number as wide as its column.
struct Column(u64);

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9}", self.0)
    }
}
