//! Doing what a script says.

use super::check::{Snapshot, Subject};
use super::model::{Cell, Expected, Model, PER_PAGE};
use super::op::{Fault, Op, Request, piece_of};
use super::oracle::{Oracle, OracleParts};
use super::trace::{Replay, Traced};
use crate::{Foreign, Machine, RadixBackend, SimCpus};
use arch_sim::{SimFrames, SimMemory};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::frame::{DeviceAltmap, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::{Leaf, Role};
use mm_core::vmemmap::{OfflineError, Region, Vmemmap};

/// Windows of which the second CPU is the eager one start with a block of this order.
const LARGE: Order = match Order::new(18) {
    Some(order) => order,
    None => Order::MAX,
};

/// A frame that nobody has, for foreign leaves: they are never followed.
const FOREIGN_FRAME: u64 = 1 << 30;

/// What the interpreter borrows.
pub(super) struct Ground<'s, B: RadixBackend, E: TailEncoding> {
    pub(super) machine: &'s Machine<B>,
    pub(super) frames: &'s Traced<'s, SimFrames>,
    /// By the number of the operation that may use it.
    pub(super) altmaps: &'s [Option<BothAltmaps<'s, E>>],
    pub(super) oracle: &'s OracleParts,
}

/// An altmap of the machine.
pub(super) type ScriptAltmap<'m, E> = DeviceAltmap<Page<E>, &'m SimMemory>;

/// The machine's altmap and the oracle's over the same frames.
pub(super) struct BothAltmaps<'s, E: TailEncoding> {
    pub(super) ours: Traced<'s, ScriptAltmap<'s, E>>,
    pub(super) theirs: Replay,
}

/// A region that is online, on the machine and with the oracle.
pub(super) struct Live<'s, E: TailEncoding> {
    pub(super) ours: Region<'s>,
    pub(super) theirs: Region<'s>,
    /// What was asked for.
    pub(super) request: Request,
    pub(super) altmaps: Option<&'s BothAltmaps<'s, E>>,
}

impl<'s, E: TailEncoding> Live<'s, E> {
    pub(super) fn pagemaps(&self) -> [DevPagemap<'s>; 2] {
        [*self.ours.pagemap(), *self.theirs.pagemap()]
    }

    pub(super) fn meets(&self, frames: &[PfnRange]) -> bool {
        let mut live = self.ours.pagemap().ranges().iter();
        live.any(|live| frames.iter().any(|range| range.overlaps(*live)))
    }
}

/// How often what has happened, to see that scripts do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pagemaps and pieces that came online.
    pub online: u64,
    /// Of these, such with huge leaves.
    pub huge: u64,
    /// Of these, such with fewer huge leaves than there was room for.
    pub unavailable: u64,
    /// Of these, such with frames from another node.
    pub remote: u64,
    /// Of these, such with an altmap.
    pub altmap: u64,
    /// Of these, such with compound pages that share tails behind it.
    pub compound_altmap: u64,
    /// Regions and pieces that went offline.
    pub offline: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations that lacked RAM and were undone.
    pub undone: u64,
    /// Operations that lacked frames of the altmap and were undone.
    pub exhausted: u64,
    /// Pieces that could not go offline for want of a private table.
    pub kept: u64,
    /// Foreign leaves that were mapped.
    pub planted: u64,
    /// Accesses by CPUs to what was mapped.
    pub accessed: u64,
}

/// A machine, the oracle and the model, in the middle of a script.
pub(super) struct Interpreter<'s, B: RadixBackend, E: TailEncoding> {
    pub(super) ground: Ground<'s, B, E>,
    pub(super) subject: Subject<'s, B, E>,
    pub(super) oracle: Oracle<'s, E>,
    pub(super) model: Model,
    foreign: Foreign<'s, B>,
    pub(super) regions: Vec<Live<'s, E>>,
    /// The first pages of foreign leaves.
    planted: Vec<u64>,
    /// Whether allocations may fail.
    pub(super) armed: bool,
    window: PfnRange,
    addresses: VirtRange,
    pub(super) tally: Tally,
}

impl<'s, B: RadixBackend, E: TailEncoding> Interpreter<'s, B, E> {
    pub(super) fn new(
        ground: Ground<'s, B, E>,
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

    /// Does `op`, the operation with this number, on all three, and compares.
    pub(super) fn step(&mut self, number: usize, op: &'s Op) -> Result<(), String> {
        match op {
            Op::Online(request) => {
                let altmaps = self.ground.altmaps.get(number).and_then(Option::as_ref);
                self.bring_online(request, altmaps)?;
            }
            Op::Populate(request, piece) => self.populate(request, *piece)?,
            Op::Depopulate(request, piece) => match self.with_altmap(&[*piece]) {
                Some(live) => {
                    let (pagemaps, request) = (live.pagemaps(), live.request.clone());
                    self.depopulate(pagemaps, *piece, &request)?;
                }
                None => {
                    if let Some(asked) = self.asked(request, None)? {
                        let pagemaps = [asked.ours, asked.theirs];
                        self.depopulate(pagemaps, *piece, &asked.request)?;
                    }
                }
            },
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
        let reserved = self
            .regions
            .iter()
            .filter_map(|live| live.request.reserved());
        let reserved: Vec<PfnRange> = reserved.collect();
        self.subject
            .compare_contents(self.ground.oracle, &self.model, &reserved)?;
        self.arm(Fault::None);
        while !self.regions.is_empty() {
            self.offline(0);
            self.check()
                .map_err(|error| format!("at the end: {error}"))?;
        }
        let ranges = [self.window];
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, Geometry::BASE_PAGES);
        let pagemap = pagemap.map_err(|error| error.to_string())?;
        for piece in self.pieces_online() {
            let subject = &mut self.subject;
            let gone = subject
                .vmemmap
                .depopulate(&mut subject.table, &pagemap, piece);
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
        match self.out_of_altmaps() {
            0 => Ok(self.tally),
            left => Err(format!("{left} frames of altmaps are left")),
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

    pub(super) fn check(&mut self) -> Result<(), String> {
        self.oracle.complaints()?;
        // Those that are not in use may have the same frames.
        let all = || self.ground.altmaps.iter().flatten();
        let in_use = || all().filter(|both| both.ours.allocator().in_use() > 0);
        if let Some(complaint) = all().find_map(|both| both.theirs.complaints().pop()) {
            return Err(complaint);
        }
        let ours: Vec<&dyn InspectFrames> =
            in_use().map(|both| both.ours.allocator() as _).collect();
        let theirs: Vec<&dyn InspectFrames> = in_use().map(|both| &both.theirs as _).collect();
        self.subject
            .check(&self.oracle, &self.model, [&ours, &theirs], self.addresses)
    }

    /// How many frames of altmaps are out.
    fn out_of_altmaps(&self) -> u64 {
        let all = self.ground.altmaps.iter().flatten();
        all.map(|both| both.ours.allocator().in_use()).sum()
    }

    /// The region that has an altmap and some of `frames`.
    pub(super) fn with_altmap(&self, frames: &[PfnRange]) -> Option<&Live<'s, E>> {
        let mut live = self.regions.iter();
        live.find(|live| live.altmaps.is_some() && live.meets(frames))
    }

    /// The number of a page of the window.
    fn number(&self, page: u64) -> u64 {
        self.window.start().get() / PER_PAGE + page
    }

    /// The address of the page with a number.
    pub(super) fn address(&self, number: u64) -> VirtAddr {
        let base = B::MODEL.config().vmemmap_base;
        VirtAddr::new(base.get() + number * B::MODEL.granule().bytes())
    }

    /// Takes a piece of a region offline.
    fn shrink(&mut self, index: usize, [skip, length]: [u8; 2]) -> Result<(), String> {
        let Some(live) = self.regions.get(index % self.regions.len().max(1)) else {
            return Ok(());
        };
        let (pagemaps, request) = (live.pagemaps(), live.request.clone());
        match pagemaps[0].ranges().first() {
            Some(range) => self.depopulate(pagemaps, piece_of(*range, skip, length), &request),
            None => Ok(()),
        }
    }

    fn depopulate(
        &mut self,
        [ours, theirs]: [DevPagemap<'s>; 2],
        piece: PfnRange,
        request: &Request,
    ) -> Result<(), String> {
        let mut expected = self.model.piece(ours.ranges(), piece);
        if expected == Expected::Done {
            expected = self.model.depopulate(piece);
        }
        if expected == Expected::Done {
            expected = self.model.depopulate_in_order(request, piece);
        }
        let parts = self.subject.shared_tables || self.model.splits_huge_leaf(piece);
        self.speculate();
        let before = self.snapshot();
        let Subject { vmemmap, table, .. } = &mut self.subject;
        let mut outcome = vmemmap.depopulate(table, &ours, piece);
        if let Err(OfflineError::OutOfFrames(_)) = outcome {
            if !self.armed || !parts || expected != Expected::Done {
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
        let Live { ours, theirs, .. } = self.regions.remove(index % self.regions.len());
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

    pub(super) fn arm(&mut self, fault: Fault) {
        let frames = self.ground.machine.frames();
        frames.no_more_faults();
        self.armed = fault != Fault::None;
        match fault {
            Fault::None => {}
            Fault::After(n) => frames.fail_after(n),
            Fault::Nth(n) => frames.fail_nth(n),
            Fault::Blocks => frames.fail_blocks(true),
            Fault::Node(node) => frames.fill_node(NodeId::new(node)),
            Fault::BothNodes => {
                frames.fill_node(NodeId::new(0));
                frames.fill_node(NodeId::new(1));
            }
        }
    }

    fn plant(&mut self, page: u64, huge: bool) -> Result<(), String> {
        let count = if huge { 512 } else { 1 };
        let first = self.number(page) / count * count;
        if self
            .model
            .pages
            .range(first..first + count)
            .next()
            .is_some()
        {
            return Ok(());
        }
        let at = self.address(first);
        let order = Order::new(if huge { 9 } else { 0 }).unwrap_or(Order::BASE);
        let frame = Pfn::new(FOREIGN_FRAME + first / count * count);
        let Some(block) = frame.and_then(|frame| Block::new(frame, order)) else {
            return Err("no foreign block".into());
        };
        if !self.foreign.map(at, block.first(), order) {
            return Ok(());
        }
        let leaf = Leaf {
            block,
            role: Role::Foreign,
            writable: true,
        };
        let entered = self.oracle.table.map_foreign(at, leaf);
        entered.map_err(|error| format!("the oracle has no place for a foreign leaf: {error}"))?;
        for index in 0..count {
            let frame = block.first().get() + index;
            let cell = Cell::Foreign { frame, huge };
            self.model.pages.insert(first + index, cell);
        }
        self.planted.push(first);
        self.tally.planted += 1;
        self.subject.foreign_tables = true;
        Ok(())
    }

    fn uproot(&mut self, index: usize) {
        if self.planted.is_empty() {
            return;
        }
        let first = self.planted.remove(index % self.planted.len());
        let at = self.address(first);
        self.foreign.unmap(at);
        self.oracle.table.unmap_foreign(at);
        let huge = matches!(
            self.model.pages.get(&first),
            Some(Cell::Foreign { huge: true, .. })
        );
        for page in first..first + if huge { 512 } else { 1 } {
            self.model.pages.remove(&page);
        }
    }

    fn access(&mut self, page: u64, cpu: usize, store: bool) -> Result<(), String> {
        let number = self.number(page);
        let at = self.address(number);
        let cpus = self.ground.machine.cpus().all();
        let Some(cpu) = cpus.get(cpu % cpus.len().max(1)) else {
            return Ok(());
        };
        let done = if store { cpu.store(at) } else { cpu.access(at) };
        self.tally.accessed += u64::from(done.is_ok());
        let cell = self.model.pages.get(&number);
        match (done, cell.is_some_and(|cell| !store || cell.is_writable())) {
            (Ok(_), true) | (Err(_), false) => Ok(()),
            (done, online) => Err(format!("a CPU gets {done:?} where it should be {online}")),
        }
    }

    fn speculate(&self) {
        let all = self.ground.machine.cpus().all();
        all.iter().for_each(|cpu| cpu.fill(self.addresses));
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.subject, self.out_of_altmaps(), self.addresses)
    }

    pub(super) fn unchanged(&self, before: &Snapshot, when: &str) -> Result<(), String> {
        before
            .same_as(&self.snapshot(), self.subject.foreign_tables)
            .map_err(|difference| format!("{when}: {difference}"))
    }

    pub(super) fn at(&self, page: Option<u64>) -> Option<VirtAddr> {
        page.map(|page| self.address(page))
    }
}

fn at_of_offline(error: &OfflineError) -> Option<VirtAddr> {
    match error {
        OfflineError::NotOnline { at } => Some(*at),
        _ => None,
    }
}
