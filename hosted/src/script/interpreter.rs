//! Doing what a script says.

use super::check::{Snapshot, Subject};
use super::model::{Cell, Expected, Model, PER_PAGE};
use super::op::{Fault, Op, Request, piece_of};
use super::oracle::{Oracle, OracleParts};
use super::trace::{Taken, Traced};
use crate::{Foreign, Machine, RadixBackend, SimCpus};
use arch_sim::SimFrames;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, DeviceAltmap, FrameAllocator, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Tables, Tails};
use mm_core::paging::{Leaf, Role};
use mm_core::vmemmap::{Note, Notes, OfflineError, OnlineError, Region, Vmemmap};

/// Windows of which the second CPU is the eager one start with a block of this order.
const LARGE: Order = match Order::new(18) {
    Some(order) => order,
    None => Order::MAX,
};

/// A frame that nobody has, for foreign leaves: they are never followed.
const FOREIGN_FRAME: u64 = 1 << 30;

/// What the interpreter borrows.
pub(super) struct Ground<'s, B: RadixBackend> {
    pub(super) machine: &'s Machine<B>,
    pub(super) frames: &'s Traced<'s, SimFrames>,
    pub(super) altmap: &'s Traced<'s, DeviceAltmap<'s>>,
    pub(super) oracle: &'s OracleParts,
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

/// All or a piece of a pagemap.
#[derive(Clone, Copy)]
enum Extent {
    All,
    Piece(PfnRange),
}

/// What came online.
enum Gain<'s> {
    Region(Region<'s>),
    Piece(Notes),
}

impl Gain<'_> {
    fn notes(&self) -> &Notes {
        match self {
            Self::Region(region) => region.notes(),
            Self::Piece(notes) => notes,
        }
    }
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

    /// Brings `extent` online on the machine.
    fn call(&mut self, pagemap: &DevPagemap<'s>, extent: Extent) -> Result<Gain<'s>, OnlineError> {
        let Subject { vmemmap, table, .. } = &mut self.subject;
        self.ground.frames.take();
        self.ground.altmap.take();
        match extent {
            Extent::All => vmemmap.online(table, pagemap).map(Gain::Region),
            Extent::Piece(piece) => vmemmap.populate(table, pagemap, piece).map(Gain::Piece),
        }
    }

    fn bring_online(&mut self, request: &'s Request, extent: Extent) -> Result<(), String> {
        // Whoever takes a region offline gives its frames back by its pagemap, so what comes online in its place must not
        // come from an altmap that it does not have.
        let meets = |(region, _): &(Region<'_>, _)| {
            let mut live = region.pagemap().ranges().iter();
            live.any(|live| request.ranges.iter().any(|range| range.overlaps(*live)))
        };
        let altmap = request.altmap && !self.regions.iter().any(meets);
        let request_used = Request {
            altmap,
            tails: self.tails(request),
            ..request.clone()
        };
        let Some([ours, theirs]) = self.pagemaps(request, altmap)? else {
            return Ok(());
        };
        let pieces = match extent {
            Extent::All => Model::pieces(&request_used),
            Extent::Piece(piece) => vec![piece],
        };
        let expected = match extent {
            Extent::All => self.model.online(&request.ranges),
            Extent::Piece(piece) => match self.model.piece(&request.ranges, piece) {
                Expected::Done => self.model.online(&[piece]),
                refused => refused,
            },
        };
        let before = Snapshot::take(
            &self.subject,
            self.ground.altmap.allocator(),
            self.addresses,
        );
        let mut outcome = self.call(&ours, extent);
        if let Err(error) = &outcome
            && matches!(
                error.kind(),
                ErrorKind::OutOfFrames | ErrorKind::AltmapExhausted
            )
        {
            let kind = error.kind();
            self.may_lack(kind, expected, &pieces, &before)?;
            self.unchanged(&before, "after a failure")?;
            match kind {
                ErrorKind::AltmapExhausted => self.tally.exhausted += 1,
                _ => self.tally.undone += 1,
            }
            self.check()
                .map_err(|error| format!("after a failure: {error}"))?;
            if kind == ErrorKind::AltmapExhausted {
                return Ok(());
            }
            self.arm(Fault::None);
            outcome = self.call(&ours, extent);
            if let Err(error) = &outcome
                && error.kind() == ErrorKind::AltmapExhausted
            {
                self.may_lack(error.kind(), expected, &pieces, &before)?;
                return self.unchanged(&before, "after a second failure");
            }
        }
        let (ram, altmap) = (self.ground.frames.take(), self.ground.altmap.take());
        let remote = self.remote_frames(&ram, request_used.node)
            + u64::from(request_used.node != 0) * altmap.iter().map(frames_of).sum::<u64>();
        self.oracle.expect(ram, altmap);
        let Oracle { vmemmap, table, .. } = &mut self.oracle;
        let same = match extent {
            Extent::All => vmemmap.online(table, &theirs).map(Gain::Region),
            Extent::Piece(piece) => vmemmap.populate(table, &theirs, piece).map(Gain::Piece),
        };
        match (outcome, same, expected) {
            (Ok(gain), Ok(same), Expected::Done) => {
                self.entered(&request_used, &pieces, gain.notes(), remote)?;
                if let (Gain::Region(ours), Gain::Region(theirs)) = (gain, same) {
                    self.regions.push((ours, theirs));
                }
                Ok(())
            }
            (Err(one), Err(other), Expected::Refused(kind, page))
                if one == other && one.kind() == kind && at_of_online(&one) == self.at(page) =>
            {
                self.tally.refused += 1;
                self.unchanged(&before, "after a refusal")
            }
            (outcome, same, expected) => Err(format!(
                "the machine says {:?}, the oracle {:?}, expected {expected:?}",
                outcome.map(drop),
                same.map(drop)
            )),
        }
    }

    /// Checks that there was reason to lack frames.
    fn may_lack(
        &self,
        kind: ErrorKind,
        expected: Expected,
        pieces: &[PfnRange],
        before: &Snapshot,
    ) -> Result<(), String> {
        let needed: u64 = pieces.iter().map(|piece| piece.frames() / PER_PAGE).sum();
        let reserved = self.ground.altmap.reserved().frames();
        let reason = match kind {
            ErrorKind::AltmapExhausted => needed > reserved - before.altmap,
            _ => self.armed,
        };
        match expected {
            Expected::Done if reason => Ok(()),
            _ => Err(format!("{kind} for no reason, expected {expected:?}")),
        }
    }

    /// How many frames of the trace are on another node than `node`.
    fn remote_frames<'t>(&self, trace: impl IntoIterator<Item = &'t Taken>, node: u32) -> u64 {
        let frames = self.ground.machine.frames();
        let remote = |taken: &&Taken| match taken {
            Taken::Block(block) => frames.node_of(block.first()).number() != node,
            Taken::Run(run) => frames.node_of(run.start()).number() != node,
            Taken::Refused(_) => false,
        };
        trace.into_iter().filter(remote).map(frames_of).sum()
    }

    /// Enters what came online into the model, and checks what was reported.
    fn entered(
        &mut self,
        request: &Request,
        pieces: &[PfnRange],
        notes: &Notes,
        remote: u64,
    ) -> Result<(), String> {
        let leaves = Model::huge_leaves(request, pieces);
        let huge = |page: &u64| {
            let at = self.address(*page);
            let found = B::translate(self.ground.machine, at);
            found.is_some_and(|leaf| leaf.order(B::MODEL.granule()) != Order::BASE)
        };
        let used: Vec<u64> = leaves.iter().copied().filter(huge).collect();
        let mut unavailable = 0;
        let mut noted_remote = 0;
        for note in notes.iter() {
            match note {
                Note::HugeLeavesUnavailable { leaves } => unavailable = leaves,
                Note::RemoteFrames { frames, .. } => noted_remote = frames,
                Note::NoHugeLeaves => return Err("there are huge leaves".into()),
                _ => {}
            }
        }
        let missing = (leaves.len() - used.len()) as u64;
        if missing != unavailable {
            return Err(format!("{missing} leaves are missing, {unavailable} noted"));
        }
        let excused = self.armed || self.subject.foreign_tables || request.altmap;
        if missing > 0 && !excused {
            return Err(format!("{missing} huge leaves are missing for no reason"));
        }
        if noted_remote != remote {
            return Err(format!("{remote} frames are remote, {noted_remote} noted"));
        }
        let shared_tables = request.tables == Tables::Shared;
        self.subject.shared_tables = self.subject.shared_tables || shared_tables;
        self.tally.online += 1;
        self.tally.huge += u64::from(!used.is_empty());
        self.tally.unavailable += u64::from(missing > 0);
        self.tally.remote += u64::from(remote > 0);
        self.model.enter(request, pieces, &used);
        Ok(())
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

    fn arm(&mut self, fault: Fault) {
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

fn frames_of(taken: &Taken) -> u64 {
    match taken {
        Taken::Block(block) => block.order().frames(),
        Taken::Run(run) => run.frames(),
        Taken::Refused(_) => 0,
    }
}

fn at_of_online(error: &OnlineError) -> Option<VirtAddr> {
    match error {
        OnlineError::AlreadyMapped { at } => Some(*at),
        _ => None,
    }
}

fn at_of_offline(error: &OfflineError) -> Option<VirtAddr> {
    match error {
        OfflineError::NotOnline { at } | OfflineError::SplitsHugeLeaf { at } => Some(*at),
        _ => None,
    }
}
