//! Bringing memory online on all three, also when frames are lacking.

use super::Interpreter;
use crate::RadixBackend;
use crate::script::check::Snapshot;
use crate::script::check::Subject;
use crate::script::model::{Expected, Model, PER_PAGE};
use crate::script::op::{Fault, Request};
use crate::script::oracle::Oracle;
use crate::script::trace::Taken;
use mm_core::addr::{Order, PfnRange, VirtAddr};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, FrameAllocator};
use mm_core::pagemap::{DevPagemap, Tables};
use mm_core::vmemmap::{Note, Notes, OnlineError, Region};

/// All or a piece of a pagemap.
#[derive(Clone, Copy)]
pub(super) enum Extent {
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

impl<'s, B: RadixBackend, E: TailEncoding> Interpreter<'s, B, E> {
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

    pub(super) fn bring_online(
        &mut self,
        request: &'s Request,
        extent: Extent,
    ) -> Result<(), String> {
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
