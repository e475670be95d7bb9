//! What the owner of the memory does.

use super::Array;
use super::changes::{RoundTrips, Step};
use super::kernel::Watched;
use super::orders::OrderChanges;
use super::reader::Numbers;
use super::shared::{Part, SharedState};
use super::wrong::Wrong;
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::readers::{GracePeriod, Kernel};
use mm_core::vmemmap::{OfflineError, Offlined, Region};

/// How many references each reader has had at least when the rounds end.
const REFERENCES: u64 = 50;

/// How often rounds are tried at most, since a reader has a reference mostly.
const ATTEMPTS: u64 = 400_000;

/// One round of so many is about all of the memory, and another one folds, unfolds or reshapes pages.
const ALL_OF_IT: u64 = 20;
const CHANGE: u64 = 10;

/// And two make pages of other orders, by the reserve.
const REORDER: [u64; 2] = [5, 15];

/// Pages that become more than this get no stamps as long as they are that many.
pub(super) const MOST_STAMPS: u64 = 1 << 13;

/// How often was done what.
pub(super) struct Figures {
    pub(super) rounds: u64,
    busy: u64,
    changes: u64,
    reorders: u64,
    mixtures: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6} {:>7} {:>7} {:>8} {:>5}",
            self.rounds, self.busy, self.changes, self.reorders, self.mixtures
        )
    }
}

/// The owner of the memory of a case.
pub(super) struct Owner<'o, 'r, 'm, 'p, E, T, M, K> {
    pub(super) vmemmap: &'o mut Array<'r, 'm, E, M, K>,
    pub(super) table: &'o mut T,
    pub(super) pagemap: &'o DevPagemap<'p>,
    pub(super) shared: &'o SharedState<'o, E, Watched<'r, K>>,
    pub(super) kernel: &'r Watched<'r, K>,
    round_trips: RoundTrips,
    pub(super) order_changes: OrderChanges<'o>,
    region: Option<Region<'p>>,
    rounds: u64,
    busy: u64,
    /// How often pages have become others, and were what they are.
    changes: u64,
    /// The same by the reserve, and how often they went offline as what they had become.
    pub(super) reorders: u64,
    pub(super) mixtures: u64,
}

impl<'o, 'r, 'm, 'p, E, T, M, K> Owner<'o, 'r, 'm, 'p, E, T, M, K>
where
    E: TailEncoding,
    T: PageTable,
    M: DirectMap + Sync,
    K: Kernel,
{
    pub(super) const fn new(
        vmemmap: &'o mut Array<'r, 'm, E, M, K>,
        table: &'o mut T,
        pagemap: &'o DevPagemap<'p>,
        shared: &'o SharedState<'o, E, Watched<'r, K>>,
        (kernel, round_trips, order_changes): (&'r Watched<'r, K>, RoundTrips, OrderChanges<'o>),
    ) -> Self {
        Self {
            vmemmap,
            table,
            pagemap,
            shared,
            kernel,
            round_trips,
            order_changes,
            region: None,
            rounds: 0,
            busy: 0,
            changes: 0,
            reorders: 0,
            mixtures: 0,
        }
    }

    /// Brings the memory online and does rounds with it, until there were so many, also enough for each of
    /// `readers` readers, or `watch` says that no more make sense. It also has readers read that rest.
    pub(super) fn run(
        &mut self,
        (rounds, readers): (u64, usize),
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        self.come_online()?;
        let mut numbers = Numbers::new(0);
        while self.rounds < rounds || !self.shared.all_had(readers, REFERENCES) {
            if !watch() {
                return Err(Wrong::GivenUp);
            }
            if self.rounds + self.busy > ATTEMPTS {
                return Err(Wrong::TooBusy);
            }
            let parts = self.shared.parts;
            let part = parts.get(numbers.below(parts.len() as u64) as usize);
            let done = match (self.rounds % ALL_OF_IT, part) {
                (0, _) | (_, None) => self.go_and_come_back(watch).map(|()| true),
                (CHANGE, Some(part)) => self.change(part, &mut numbers, watch).map(|()| true),
                (kind, Some(part)) if REORDER.contains(&kind) => {
                    self.reorder(part, &mut numbers, watch).map(|()| true)
                }
                (kind, Some(part)) => self.round(part, kind),
            };
            match done? {
                true => self.rounds += 1,
                false => self.busy += 1,
            }
        }
        Ok(())
    }

    /// One round with a part; false where somebody else has a reference.
    pub(super) fn round(&mut self, part: &Part, kind: u64) -> Result<bool, Wrong> {
        let frames = part.frames;
        if kind.is_multiple_of(4) {
            // SAFETY: 1: the duties of `reader`, as in `run_case`. 2: the owner's references are this
            // value's, which does not use them.
            let offlined = unsafe {
                self.vmemmap
                    .try_offline(self.table, self.pagemap, frames, 1)
            };
            return match offlined {
                Err(OfflineError::Busy { .. }) => Ok(false),
                offlined => {
                    all_of_it(offlined)?;
                    self.come_back(part).map(|()| true)
                }
            };
        }
        // SAFETY: 1 and 2: as above.
        let frozen = unsafe { self.vmemmap.freeze(&*self.table, self.pagemap, frames, 1) };
        let frozen = match frozen {
            Err(OfflineError::Busy { .. }) => return Ok(false),
            frozen => frozen.map_err(Wrong::Offline)?,
        };
        if kind % 4 == 1 {
            drop(frozen);
            return Ok(true);
        }
        let quiescent = frozen.wait();
        if kind % 4 == 2 {
            drop(quiescent);
            return Ok(true);
        }
        all_of_it(self.vmemmap.commit(self.table, quiescent))?;
        self.come_back(part).map(|()| true)
    }

    /// Pages of the part become others, on the next round trip, and come back: all of them, or one.
    fn change(
        &mut self,
        part: &Part,
        numbers: &mut Numbers,
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        let round_trips = self.round_trips;
        let Some(round_trip) = round_trips.get(self.changes) else {
            // There is none, or each was taken that takes long.
            return Ok(());
        };
        let page = round_trips.orders.into_iter().max().unwrap_or(Order::BASE);
        let pages = part.frames.frames() / page.frames();
        let mut frames = part.frames;
        if numbers.below(2) == 0 {
            let first = numbers.below(pages) * page.frames();
            let rest = frames.split_at(first).1.unwrap_or(frames);
            frames = rest.take_first(page.frames()).0;
        }
        part.begins_to_change(round_trips.orders.into_iter().collect());
        for step in round_trip.steps() {
            self.take_step(step, frames, watch)?;
            if frames.frames() / step.case.order.frames() <= MOST_STAMPS {
                self.stamp_pages(part, frames, step.case.order)?;
                part.is_stamped();
            }
            // There is a moment in which readers find all stamps.
            self.kernel.grace().wait();
            part.loses_stamps();
        }
        self.stamp(part)?;
        part.has_changed();
        self.changes += 1;
        Ok(())
    }

    /// Changes `frames`, and again what was busy.
    fn take_step(
        &mut self,
        step: &Step,
        frames: PfnRange,
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        let pagemap = step.case.pagemap(self.vmemmap.model());
        let pagemap = pagemap.map_err(Wrong::Pagemap)?;
        self.until_done(watch, |owner| {
            // SAFETY: 1: the duties of `reader`, as in `run_case`. 2: the owner's references are this
            // value's, which does not use them.
            let changed = unsafe {
                owner.vmemmap.change_beside_readers(
                    owner.table,
                    step.change,
                    &pagemap,
                    frames,
                    (1, 1),
                )
            };
            let changed = changed.map_err(Wrong::Fold)?;
            match changed.error {
                Some(error) => Err(Wrong::Fold(error)),
                None => Ok(changed.busy),
            }
        })
    }

    /// Tries until nothing is busy any more; `attempt` says how much was.
    pub(super) fn until_done(
        &mut self,
        watch: &dyn Fn() -> bool,
        mut attempt: impl FnMut(&mut Self) -> Result<u64, Wrong>,
    ) -> Result<(), Wrong> {
        loop {
            if !watch() {
                return Err(Wrong::GivenUp);
            }
            if attempt(self)? == 0 {
                return Ok(());
            }
            self.busy += 1;
            if self.rounds + self.busy > ATTEMPTS {
                return Err(Wrong::TooBusy);
            }
        }
    }

    /// The part, which is offline, comes online again.
    fn come_back(&mut self, part: &Part) -> Result<(), Wrong> {
        part.comes_online();
        let populated = self.vmemmap.populate(self.table, self.pagemap, part.frames);
        populated.map(drop).map_err(Wrong::Online)?;
        self.stamp(part)
    }

    /// All of it comes online.
    fn come_online(&mut self) -> Result<(), Wrong> {
        let parts = self.shared.parts;
        parts.iter().for_each(Part::comes_online);
        let region = self.vmemmap.online(self.table, self.pagemap);
        self.region = Some(region.map_err(Wrong::Online)?);
        parts.iter().try_for_each(|part| self.stamp(part))
    }

    /// All of it goes offline while others look, without a reference, and comes online again.
    fn go_and_come_back(&mut self, watch: &dyn Fn() -> bool) -> Result<(), Wrong> {
        self.shared.set_looks_only(true);
        // Who has not seen that under its guard says that it has a reference before the guard is gone.
        self.kernel.grace().wait();
        while self.shared.anybody_refers() {
            if !watch() {
                return Err(Wrong::GivenUp);
            }
            pause();
        }
        self.end()?;
        self.come_online()?;
        self.shared.set_looks_only(false);
        Ok(())
    }

    /// All of it goes offline. Nobody has a reference.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        match self.region.take() {
            Some(region) => all_of_it(self.vmemmap.offline(self.table, region)),
            None => Ok(()),
        }
    }

    /// Writes the stamp of each head.
    pub(super) fn stamp(&self, part: &Part) -> Result<(), Wrong> {
        self.stamp_pages(part, part.frames, self.shared.order)?;
        part.is_stamped();
        Ok(())
    }

    /// Writes those of `frames`, which are pages of `order`.
    fn stamp_pages(&self, part: &Part, frames: PfnRange, order: Order) -> Result<(), Wrong> {
        for first in firsts(frames, order) {
            let reading = self.shared.reader.enter();
            let page = reading.page_of(first);
            let page = page.ok_or(Wrong::NotFound { frame: first })?;
            let stamp = part.stamp(first);
            page.head().owner().store(stamp, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Each page has its owner's reference, and no other. Nobody reads any more.
    pub(super) fn heads_are_owned(&self) -> Result<(), Wrong> {
        for part in self.shared.parts {
            for first in firsts(part.frames, self.shared.order) {
                let reading = self.shared.reader.enter();
                let page = reading.page_of(first);
                let page = page.ok_or(Wrong::NotFound { frame: first })?;
                let found = page.head().users().get();
                if found != Some(1) {
                    return Err(Wrong::References { first, found });
                }
            }
        }
        Ok(())
    }

    /// Readers do not find a page.
    pub(super) fn nothing_is_found(&self) -> Result<(), Wrong> {
        let mut firsts = self
            .shared
            .parts
            .iter()
            .flat_map(|part| firsts(part.frames, self.shared.order));
        let found = firsts.find(|frame| self.shared.reader.enter().is_online(*frame));
        found.map_or(Ok(()), |frame| Err(Wrong::StillFound { frame }))
    }

    pub(super) const fn figures(&self) -> Figures {
        Figures {
            rounds: self.rounds,
            busy: self.busy,
            changes: self.changes,
            reorders: self.reorders,
            mixtures: self.mixtures,
        }
    }
}

/// Waits a little.
fn pause() {
    for _ in 0..256 {
        spin_loop();
    }
}

/// Nothing of it stays online.
fn all_of_it(offlined: Result<Offlined, OfflineError>) -> Result<(), Wrong> {
    match offlined.map_err(Wrong::Offline)?.kept {
        0 => Ok(()),
        kept => Err(Wrong::Kept(kept)),
    }
}

/// The first frame of each page of `frames`.
fn firsts(frames: PfnRange, order: Order) -> impl Iterator<Item = Pfn> + use<> {
    let (start, page) = (frames.start(), order.frames());
    let pages = frames.frames() / page;
    (0..pages).map(move |index| start.saturating_add(index * page))
}
