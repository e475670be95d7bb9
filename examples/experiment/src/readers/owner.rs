//! What the owner of the memory does.

use super::Array;
use super::ground::{Ground, Part};
use super::kernel::Watched;
use super::reader::Numbers;
use super::wrong::Wrong;
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::readers::{GracePeriod, Kernel};
use mm_core::vmemmap::{OfflineError, Offlined, Region};

/// How many rounds there are at least in each case.
const ROUNDS: u64 = 84;

/// How many references each reader has had at least when the rounds end.
const REFERENCES: u64 = 50;

/// How often rounds are tried at most, since a reader has a reference mostly.
const ATTEMPTS: u64 = 400_000;

/// One round of so many is about all of the memory.
const ALL_OF_IT: u64 = 20;

/// How often was done what.
pub(super) struct Figures {
    rounds: u64,
    busy: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} {:>7}", self.rounds, self.busy)
    }
}

/// The owner of the memory of a case.
pub(super) struct Owner<'o, 'r, 'm, 'p, E, T, M, K> {
    vmemmap: &'o mut Array<'r, 'm, E, M, K>,
    table: &'o mut T,
    pagemap: &'o DevPagemap<'p>,
    ground: &'o Ground<'o, E, Watched<'r, K>>,
    kernel: &'r Watched<'r, K>,
    region: Option<Region<'p>>,
    rounds: u64,
    busy: u64,
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
        ground: &'o Ground<'o, E, Watched<'r, K>>,
        kernel: &'r Watched<'r, K>,
    ) -> Self {
        Self {
            vmemmap,
            table,
            pagemap,
            ground,
            kernel,
            region: None,
            rounds: 0,
            busy: 0,
        }
    }

    /// Brings the memory online and does rounds with it, until there were enough, also for each of
    /// `readers` readers, or `watch` says that no more make sense. It also has readers read that rest.
    pub(super) fn run(&mut self, readers: usize, watch: &dyn Fn() -> bool) -> Result<(), Wrong> {
        self.come_online()?;
        let mut numbers = Numbers::new(0);
        while self.rounds < ROUNDS || !self.ground.all_had(readers, REFERENCES) {
            if !watch() {
                return Err(Wrong::GivenUp);
            }
            if self.rounds + self.busy > ATTEMPTS {
                return Err(Wrong::TooBusy);
            }
            let done = match self.rounds % ALL_OF_IT {
                0 => self.go_and_come_back(watch).map(|()| true),
                kind => {
                    let index = numbers.below(self.ground.parts.len() as u64) as usize;
                    let part = self.ground.parts.get(index);
                    part.map_or(Ok(true), |part| self.round(part, kind))
                }
            };
            match done? {
                true => self.rounds += 1,
                false => self.busy += 1,
            }
        }
        Ok(())
    }

    /// One round with a part; false where somebody else has a reference.
    fn round(&mut self, part: &Part, kind: u64) -> Result<bool, Wrong> {
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
        // SAFETY: 1 and 2: as above. 3: nothing else is done before the end of this function.
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

    /// The part, which is offline, comes online again.
    fn come_back(&mut self, part: &Part) -> Result<(), Wrong> {
        part.comes_online();
        let populated = self.vmemmap.populate(self.table, self.pagemap, part.frames);
        populated.map(drop).map_err(Wrong::Online)?;
        self.stamp(part)
    }

    /// All of it comes online.
    fn come_online(&mut self) -> Result<(), Wrong> {
        let parts = self.ground.parts;
        parts.iter().for_each(Part::comes_online);
        let region = self.vmemmap.online(self.table, self.pagemap);
        self.region = Some(region.map_err(Wrong::Online)?);
        parts.iter().try_for_each(|part| self.stamp(part))
    }

    /// All of it goes offline while others look, without a reference, and comes online again.
    fn go_and_come_back(&mut self, watch: &dyn Fn() -> bool) -> Result<(), Wrong> {
        self.ground.set_looks_only(true);
        // Who has not seen that under its guard says that it has a reference before the guard is gone.
        self.kernel.grace().wait();
        while self.ground.anybody_refers() {
            if !watch() {
                return Err(Wrong::GivenUp);
            }
            pause();
        }
        self.end()?;
        self.come_online()?;
        self.ground.set_looks_only(false);
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
    fn stamp(&self, part: &Part) -> Result<(), Wrong> {
        for first in firsts(part, self.ground.order) {
            let reading = self.ground.reader.enter();
            let page = reading.page_of(first);
            let page = page.ok_or(Wrong::NotFound { frame: first })?;
            let stamp = part.stamp(first);
            page.head().owner().store(stamp, Ordering::Relaxed);
        }
        part.is_stamped();
        Ok(())
    }

    /// Each page has its owner's reference, and no other. Nobody reads any more.
    pub(super) fn heads_are_owned(&self) -> Result<(), Wrong> {
        for part in self.ground.parts {
            for first in firsts(part, self.ground.order) {
                let reading = self.ground.reader.enter();
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
            .ground
            .parts
            .iter()
            .flat_map(|part| firsts(part, self.ground.order));
        let found = firsts.find(|frame| self.ground.reader.enter().is_online(*frame));
        found.map_or(Ok(()), |frame| Err(Wrong::StillFound { frame }))
    }

    pub(super) const fn figures(&self) -> Figures {
        Figures {
            rounds: self.rounds,
            busy: self.busy,
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

/// The first frame of each page of `part`.
fn firsts(part: &Part, order: Order) -> impl Iterator<Item = Pfn> + use<> {
    let (start, page) = (part.frames.start(), order.frames());
    let pages = part.frames.frames() / page;
    (0..pages).map(move |index| start.saturating_add(index * page))
}
