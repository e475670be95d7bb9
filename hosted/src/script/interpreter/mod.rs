//! Doing what a script says.

mod online;
mod tally;
mod world;

pub use tally::Tally;

use super::check::{Snapshot, Subject};
use super::model::{Cell, Expected, Model, PER_PAGE};
use super::op::{Fault, Op, Request, piece_of};
use super::oracle::{Oracle, OracleParts};
use super::trace::Traced;
use crate::{Foreign, Machine, RadixBackend, SimCpus};
use arch_sim::SimFrames;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::{Altmap, DeviceAltmap, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Tails};
use mm_core::vmemmap::{OfflineError, Region, Vmemmap};
use online::Extent;

/// Windows of which the second CPU is the eager one start with a block of this order.
const LARGE: Order = match Order::new(18) {
    Some(order) => order,
    None => Order::MAX,
};

/// What the interpreter borrows.
pub(super) struct Ground<'s, B: RadixBackend> {
    pub(super) machine: &'s Machine<B>,
    pub(super) frames: &'s Traced<'s, SimFrames>,
    pub(super) altmap: &'s Traced<'s, DeviceAltmap<'s>>,
    pub(super) oracle: &'s OracleParts,
}

/// A machine, the oracle and the model, in the middle of a script.
pub(super) struct Interpreter<'s, B: RadixBackend, E: TailEncoding> {
    ground: Ground<'s, B>,
    subject: Subject<'s, B, E>,
    oracle: Oracle<'s, E>,
    model: Model,
    foreign: Foreign<'s, B>,
    regions: Vec<(Region<'s>, Region<'s>)>,
    /// The first pages of foreign leaves.
    planted: Vec<u64>,
    /// Whether allocations may fail.
    armed: bool,
    window: PfnRange,
    addresses: VirtRange,
    tally: Tally,
}

impl<'s, B: RadixBackend, E: TailEncoding> Interpreter<'s, B, E> {
    pub(super) fn new(
        ground: Ground<'s, B>,
        window: PfnRange,
        foreign: PfnRange,
    ) -> Result<Self, String> {
        let machine = ground.machine;
        let addresses = B::MODEL.descriptors(window);
        let addresses = addresses.ok_or("the window lies outside the model")?;
        // One of the CPUs caches whatever there is whenever it may: which one, the window decides.
        let cpus = machine.cpus().all();
        cpus.iter().for_each(|cpu| cpu.watch(machine.frames()));
        let eager = usize::from(window.start().get() == 0 || window.start().is_aligned(LARGE));
        if let Some(cpu) = cpus.get(eager % cpus.len().max(1)) {
            cpu.fill_at_allocations(machine.frames(), addresses);
        }
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(B::MODEL, ground.frames, machine.memory()) };
        Ok(Self {
            subject: Subject {
                machine,
                table: machine.take_table().ok_or("the table is taken")?,
                vmemmap: vmemmap.map_err(|error| error.to_string())?,
                foreign_tables: false,
                shared_tables: false,
                scratch: vec![Default::default(); 1 << 14],
            },
            oracle: Oracle::new::<B>(ground.oracle)?,
            model: Model {
                last: B::MODEL.all_frames().last().get(),
                ..Model::default()
            },
            foreign: Foreign::new(machine, foreign),
            ground,
            regions: Vec::new(),
            planted: Vec::new(),
            armed: false,
            window,
            addresses,
            tally: Tally::default(),
        })
    }

    /// Does `op` on all three, and compares.
    pub(super) fn step(&mut self, op: &'s Op) -> Result<(), String> {
        match op {
            Op::Online(request) => self.bring_online(request, Extent::All)?,
            Op::Populate(request, piece) => self.bring_online(request, Extent::Piece(*piece))?,
            Op::Depopulate(request, piece) => {
                if let Some(pagemaps) = self.pagemaps(request, true)? {
                    self.depopulate(pagemaps, *piece)?;
                }
            }
            Op::Shrink { region, piece } => self.shrink(*region, *piece)?,
            Op::Offline(index) => self.offline(*index),
            Op::Fault(fault) => self.arm(*fault),
            Op::Plant { page, huge } => self.plant(*page, *huge)?,
            Op::PlantTables { page } => {
                if self.foreign.link_tables(self.address(self.number(*page))) {
                    self.subject.foreign_tables = true;
                }
            }
            Op::Uproot(index) => self.uproot(*index),
            Op::Access { page, cpu, store } => self.access(*page, *cpu, *store)?,
            Op::Speculate => self.speculate(),
        }
        self.check()
    }

    /// Takes everything offline, and checks that nothing is left.
    pub(super) fn finish(mut self) -> Result<Tally, String> {
        self.subject
            .compare_contents(self.ground.oracle, &self.model)?;
        self.arm(Fault::None);
        while !self.regions.is_empty() {
            self.offline(0);
            self.check()
                .map_err(|error| format!("at the end: {error}"))?;
        }
        let ranges = [self.window];
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, Geometry::BASE_PAGES);
        let pagemap = pagemap.map_err(|error| error.to_string())?;
        let with_altmap = pagemap.with_altmap(self.ground.altmap);
        for piece in self.pieces_online() {
            let subject = &mut self.subject;
            let gone = subject
                .vmemmap
                .depopulate(&mut subject.table, &with_altmap, piece);
            gone.map_err(|error| format!("{piece} at the end: {error}"))?;
            self.model.remove(piece);
        }
        while !self.planted.is_empty() {
            self.uproot(0);
        }
        self.foreign.prune();
        // Tables that only foreign leaves were left in go with the next that comes and goes there.
        let order = Order::new(15).unwrap_or(Order::BASE);
        let all = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order));
        let all = all.map_err(|error| error.to_string())?;
        let subject = &mut self.subject;
        let region = subject.vmemmap.online(&mut subject.table, &all);
        let region = region.map_err(|error| format!("all at the end: {error}"))?;
        subject.vmemmap.offline(&mut subject.table, region);
        self.foreign.prune();
        self.subject.is_empty()?;
        let altmap = self.ground.altmap.allocator().outstanding();
        match altmap {
            Some(0) => Ok(self.tally),
            left => Err(format!("{left:?} frames of the altmap are left")),
        }
    }

    /// What the library has online, in runs of pages.
    fn pieces_online(&self) -> Vec<PfnRange> {
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for (page, cell) in &self.model.pages {
            match (cell, pieces.last_mut()) {
                (Cell::Foreign { .. }, _) => {}
                (_, Some((start, pages))) if *start + *pages == *page => *pages += 1,
                _ => pieces.push((*page, 1)),
            }
        }
        let range = |(page, pages): (u64, u64)| {
            let start = Pfn::new(page * PER_PAGE)?;
            PfnRange::new(start, pages * PER_PAGE).ok()
        };
        pieces.into_iter().filter_map(range).collect()
    }

    fn check(&mut self) -> Result<(), String> {
        self.oracle.complaints()?;
        self.subject.check(
            &self.oracle,
            &self.model,
            [self.ground.altmap.allocator(), self.ground.machine.frames()],
            self.addresses,
        )
    }

    /// The number of a page of the window.
    fn number(&self, page: u64) -> u64 {
        self.window.start().get() / PER_PAGE + page
    }

    /// The address of the page with a number.
    fn address(&self, number: u64) -> VirtAddr {
        let base = B::MODEL.config().vmemmap_base;
        VirtAddr::new(base.get() + number * B::MODEL.granule().bytes())
    }

    /// Both pagemaps, if the request makes one.
    fn pagemaps(
        &self,
        request: &'s Request,
        altmap: bool,
    ) -> Result<Option<[DevPagemap<'s>; 2]>, String> {
        let made = DevPagemap::new(
            &B::MODEL,
            &request.ranges,
            Geometry::compound(request.order),
        );
        let expected = self.model.pagemap(request);
        let pagemap = match (made, expected) {
            (Ok(pagemap), Expected::Done) => pagemap,
            (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => return Ok(None),
            (made, _) => {
                let made = made.map(drop).map_err(|error: PagemapError| error.kind());
                return Err(format!("the pagemap is {made:?}, expected {expected:?}"));
            }
        };
        let pagemap = pagemap
            .with_huge_leaves(request.huge_leaves)
            .with_piece(request.piece)
            .with_node(NodeId::new(request.node));
        let pagemap = pagemap
            .with_tails(self.tails(request))
            .with_tables(request.tables);
        let oracle: &'s dyn Altmap = &self.ground.oracle.altmap;
        Ok(Some(match altmap {
            true => [
                pagemap.with_altmap(self.ground.altmap),
                pagemap.with_altmap(oracle),
            ],
            false => [pagemap, pagemap],
        }))
    }

    /// How tails are to be shared: per order only where the encoding can.
    fn tails(&self, request: &Request) -> Tails {
        match request.tails {
            Tails::PerOrder if !E::SAME_FOR_ALL => Tails::PerCompound,
            tails => tails,
        }
    }

    /// Takes a piece of a region offline, with an altmap in case that parts of it came from there.
    fn shrink(&mut self, index: usize, [skip, length]: [u8; 2]) -> Result<(), String> {
        let Some((ours, theirs)) = self.regions.get(index % self.regions.len().max(1)) else {
            return Ok(());
        };
        let ours = ours.pagemap().with_altmap(self.ground.altmap);
        let theirs = theirs.pagemap().with_altmap(&self.ground.oracle.altmap);
        match ours.ranges().first() {
            Some(range) => self.depopulate([ours, theirs], piece_of(*range, skip, length)),
            None => Ok(()),
        }
    }

    fn depopulate(
        &mut self,
        [ours, theirs]: [DevPagemap<'s>; 2],
        piece: PfnRange,
    ) -> Result<(), String> {
        let expected = match self.model.piece(ours.ranges(), piece) {
            Expected::Done => self.model.depopulate(piece),
            refused => refused,
        };
        self.speculate();
        let before = Snapshot::take(
            &self.subject,
            self.ground.altmap.allocator(),
            self.addresses,
        );
        let Subject { vmemmap, table, .. } = &mut self.subject;
        let mut outcome = vmemmap.depopulate(table, &ours, piece);
        if let Err(OfflineError::OutOfFrames(_)) = outcome {
            if !self.armed || !self.subject.shared_tables || expected != Expected::Done {
                return Err(format!("{outcome:?} for no reason, expected {expected:?}"));
            }
            self.tally.kept += 1;
            self.unchanged(&before, "after a failure")?;
            self.check()
                .map_err(|error| format!("after a failure: {error}"))?;
            self.arm(Fault::None);
            let Subject { vmemmap, table, .. } = &mut self.subject;
            outcome = vmemmap.depopulate(table, &ours, piece);
        }
        let Oracle { vmemmap, table, .. } = &mut self.oracle;
        let same = vmemmap.depopulate(table, &theirs, piece);
        match (outcome, same, expected) {
            (Ok(one), Ok(other), Expected::Done) if one == other => {
                self.tally.offline += 1;
                self.model.remove(piece);
                Ok(())
            }
            (Err(one), Err(other), Expected::Refused(kind, page))
                if one == other && one.kind() == kind && at_of_offline(&one) == self.at(page) =>
            {
                self.tally.refused += 1;
                self.unchanged(&before, "after a refusal")
            }
            (outcome, same, expected) => Err(format!(
                "the machine says {outcome:?}, the oracle {same:?}, expected {expected:?}"
            )),
        }
    }

    fn offline(&mut self, index: usize) {
        if self.regions.is_empty() {
            return;
        }
        let (ours, theirs) = self.regions.remove(index % self.regions.len());
        self.tally.offline += 1;
        self.speculate();
        for range in ours.pagemap().ranges() {
            self.model.remove(*range);
        }
        let Subject { vmemmap, table, .. } = &mut self.subject;
        vmemmap.offline(table, ours);
        let Oracle { vmemmap, table, .. } = &mut self.oracle;
        vmemmap.offline(table, theirs);
    }

    fn unchanged(&self, before: &Snapshot, when: &str) -> Result<(), String> {
        let after = Snapshot::take(
            &self.subject,
            self.ground.altmap.allocator(),
            self.addresses,
        );
        before
            .same_as(&after, self.subject.foreign_tables)
            .map_err(|difference| format!("{when}: {difference}"))
    }

    fn at(&self, page: Option<u64>) -> Option<VirtAddr> {
        page.map(|page| self.address(page))
    }
}

fn at_of_offline(error: &OfflineError) -> Option<VirtAddr> {
    match error {
        OfflineError::NotOnline { at } | OfflineError::SplitsHugeLeaf { at } => Some(*at),
        _ => None,
    }
}
