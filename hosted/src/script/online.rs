//! Bringing memory online: what a request makes, what has to come of it, and whether that came.

use super::check::Subject;
use super::interpreter::{BothAltmaps, Interpreter, Live};
use super::model::{Expected, Model, PER_PAGE};
use super::op::{Fault, Request};
use super::oracle::{self, Oracle};
use super::trace::Taken;
use crate::RadixBackend;
use mm_core::addr::{NodeId, Order, PfnRange, VirtAddr};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, FrameAllocator};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Tables, Tails};
use mm_core::vmemmap::{Note, Notes, OnlineError, Region};

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

/// What is asked for, with all that it takes.
pub(super) struct Asked<'s, E: TailEncoding> {
    pub(super) ours: DevPagemap<'s>,
    pub(super) theirs: DevPagemap<'s>,
    pub(super) request: Request,
    altmaps: Option<&'s BothAltmaps<'s, E>>,
}

impl<'s, B: RadixBackend, E: TailEncoding> Interpreter<'s, B, E> {
    /// Both pagemaps, if the request makes one, with these altmaps.
    pub(super) fn asked(
        &self,
        request: &'s Request,
        altmaps: Option<&'s BothAltmaps<'s, E>>,
    ) -> Result<Option<Asked<'s, E>>, String> {
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
        let mut request = Request {
            tails: self.tails(request),
            ..request.clone()
        };
        let Some(both) = altmaps else {
            request.altmap = 0;
            return Ok(Some(Asked {
                ours: pagemap,
                theirs: pagemap,
                request,
                altmaps,
            }));
        };
        let ours = pagemap.with_altmap(&both.ours);
        let theirs = pagemap.with_altmap(&both.theirs);
        match (ours, theirs, Model::altmap(&request)) {
            (Ok(ours), Ok(theirs), Expected::Done) => Ok(Some(Asked {
                ours,
                theirs,
                request,
                altmaps,
            })),
            (Err(one), Err(other), Expected::Refused(kind, _))
                if one == other && one.kind() == kind =>
            {
                Ok(None)
            }
            (ours, _, expected) => {
                let ours = ours.map(drop);
                Err(format!("the altmap is {ours:?}, expected {expected:?}"))
            }
        }
    }

    /// How tails are to be shared: per order only where the encoding can.
    fn tails(&self, request: &Request) -> Tails {
        match request.tails {
            Tails::PerOrder if !E::SAME_FOR_ALL => Tails::PerCompound,
            tails => tails,
        }
    }

    /// Brings `extent` online on the machine.
    fn call(&mut self, asked: &Asked<'s, E>, extent: Extent) -> Result<Gain<'s>, OnlineError> {
        let Subject { vmemmap, table, .. } = &mut self.subject;
        self.ground.frames.take();
        if let Some(both) = asked.altmaps {
            both.ours.take();
        }
        let pagemap = &asked.ours;
        match extent {
            Extent::All => vmemmap.online(table, pagemap).map(Gain::Region),
            Extent::Piece(piece) => vmemmap.populate(table, pagemap, piece).map(Gain::Piece),
        }
    }

    /// Brings all of `request` online.
    pub(super) fn bring_online(
        &mut self,
        request: &'s Request,
        altmaps: Option<&'s BothAltmaps<'s, E>>,
    ) -> Result<(), String> {
        // Whoever takes a region offline gives its frames back by its pagemap, so what comes online
        // in its place must not come from an altmap that it does not have.
        let meets = self.regions.iter().any(|live| live.meets(&request.ranges));
        let Some(asked) = self.asked(request, altmaps.filter(|_| !meets))? else {
            return Ok(());
        };
        let expected = self.model.online(&request.ranges);
        if expected == Expected::Done && self.with_altmap(&request.ranges).is_some() {
            return Ok(());
        }
        self.enter(asked, Extent::All, expected)
    }

    /// Brings `piece` online: by the region's pagemap where it lies in one with an altmap.
    pub(super) fn populate(&mut self, request: &'s Request, piece: PfnRange) -> Result<(), String> {
        let asked = match self.with_altmap(&[piece]) {
            Some(live) => {
                let [ours, theirs] = live.pagemaps();
                Asked {
                    ours,
                    theirs,
                    request: live.request.clone(),
                    altmaps: live.altmaps,
                }
            }
            None => match self.asked(request, None)? {
                Some(asked) => asked,
                None => return Ok(()),
            },
        };
        let mut expected = self.model.piece(asked.ours.ranges(), piece);
        if expected == Expected::Done {
            expected = self.model.online(&[piece]);
        }
        if expected == Expected::Done {
            expected = self.model.populate_in_order(&asked.request, piece);
        }
        self.enter(asked, Extent::Piece(piece), expected)
    }

    /// Brings `extent` of what is asked for online, for which `expected` is to be the answer.
    fn enter(
        &mut self,
        asked: Asked<'s, E>,
        extent: Extent,
        expected: Expected,
    ) -> Result<(), String> {
        let pieces = match extent {
            Extent::All => Model::pieces(&asked.request),
            Extent::Piece(piece) => vec![piece],
        };
        let before = self.snapshot();
        let mut outcome = self.call(&asked, extent);
        if let Err(error) = &outcome
            && matches!(
                error.kind(),
                ErrorKind::OutOfFrames | ErrorKind::AltmapExhausted
            )
        {
            let kind = error.kind();
            self.may_lack(kind, expected, &asked, &pieces)?;
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
            outcome = self.call(&asked, extent);
            if let Err(error) = &outcome
                && error.kind() == ErrorKind::AltmapExhausted
            {
                self.may_lack(error.kind(), expected, &asked, &pieces)?;
                return self.unchanged(&before, "after a second failure");
            }
        }
        let ram = self.ground.frames.take();
        let mut remote = self.remote_frames(&ram, asked.request.node);
        if let Some(both) = asked.altmaps {
            let taken = both.ours.take();
            if asked.request.node != oracle::ALTMAP_NODE.number() {
                remote += taken.iter().map(frames_of).sum::<u64>();
                remote += described(&asked.request, &pieces);
            }
            both.theirs.expect(taken);
        }
        self.oracle.expect(ram);
        let Oracle { vmemmap, table, .. } = &mut self.oracle;
        let same = match extent {
            Extent::All => vmemmap.online(table, &asked.theirs).map(Gain::Region),
            Extent::Piece(piece) => vmemmap
                .populate(table, &asked.theirs, piece)
                .map(Gain::Piece),
        };
        match (outcome, same, expected) {
            (Ok(gain), Ok(same), Expected::Done) => {
                self.entered(&asked.request, &pieces, gain.notes(), remote)?;
                if let (Gain::Region(ours), Gain::Region(theirs)) = (gain, same) {
                    self.regions.push(Live {
                        ours,
                        theirs,
                        request: asked.request,
                        altmaps: asked.altmaps,
                    });
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
        asked: &Asked<'s, E>,
        pieces: &[PfnRange],
    ) -> Result<(), String> {
        let needed: u64 = pieces.iter().map(|piece| piece.frames() / PER_PAGE).sum();
        let left = asked.altmaps.map_or(u64::MAX, |both| {
            let altmap = both.ours.allocator();
            altmap.reserved().frames() - altmap.in_use()
        });
        let reason = match kind {
            ErrorKind::AltmapExhausted => needed > left,
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
        let excused = self.armed || self.subject.foreign_tables || request.altmap > 0;
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
        self.tally.altmap += u64::from(request.altmap > 0);
        let shares = request.altmap > 0 && request.tails != Tails::None && request.order.get() > 8;
        self.tally.compound_altmap += u64::from(shares);
        self.model.enter(request, pieces, &used);
        Ok(())
    }
}

/// How many frames of an altmap hold descriptors of its own frames that are part of `pieces`.
fn described(request: &Request, pieces: &[PfnRange]) -> u64 {
    let part = |piece: &PfnRange| request.reserved()?.intersection(*piece);
    let parts = pieces.iter().filter_map(part);
    parts.map(|part| part.frames() / PER_PAGE).sum()
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
