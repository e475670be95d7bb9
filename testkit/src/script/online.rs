//! Bringing memory online: what a request makes, what has to come of it, and whether that came.

use super::attempt::Attempt;
use super::device_altmap;
use super::interpreter::{BothAltmaps, Interpreter, Live, Pagemaps};
use super::model::{Expected, Model, packs, sharing_of};
use super::op::Request;
use super::oracle::{ALTMAP_NODE, Oracle};
use super::readers::ScriptReaders;
use super::trace::Taken;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::{Altmap, FrameAllocator};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, PagemapError, Tails};
use mm_core::vmemmap::{Note, Notes, OnlineError, Region};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

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
pub(super) struct PreparedRequest<'s> {
    pub(super) pagemaps: Pagemaps<'s>,
    pub(super) request: Request,
    pub(super) altmaps: Option<&'s BothAltmaps<'s>>,
}

/// What was handed out for an operation.
pub(super) struct Trace {
    pub(super) ram: VecDeque<Taken>,
    pub(super) altmap: VecDeque<Taken>,
}

impl Trace {
    /// Whether each block of `order` that was asked for was handed out.
    pub(super) fn blocks(&self, order: Option<Order>) -> impl Iterator<Item = bool> + '_ {
        let all = self.ram.iter().chain(&self.altmap);
        all.filter_map(move |taken| match taken {
            Taken::Block(block) if Some(block.order()) == order => Some(true),
            Taken::Refused(refused) if Some(*refused) == order => Some(false),
            _ => None,
        })
    }
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// The pagemaps of `request`, if it makes any, with these altmaps.
    pub(super) fn prepare(
        &self,
        request: &'s Request,
        altmaps: Option<&'s BothAltmaps<'s>>,
    ) -> Result<Option<PreparedRequest<'s>>, String> {
        let expected = self.model.pagemap(&request.ranges, request.order);
        let geometry = Geometry::compound(request.order);
        let made = DevPagemap::new(&self.parts.machine.model(), &request.ranges, geometry);
        let Some(pagemap) = made_as(made, expected)? else {
            return Ok(None);
        };
        let tails = match request.tails {
            Tails::PerOrder if !E::SAME_FOR_ALL && !request.insists => Tails::PerCompound,
            tails => tails,
        };
        let pagemap = pagemap
            .with_huge_leaves(request.huge_leaves)
            .with_piece(request.piece)
            .with_node(NodeId::new(request.node))
            .with_tails(tails)
            .with_tables(request.tables);
        let packed = request.packed && (E::HAS_STUBS || request.insists);
        let pagemap = match packed {
            true => pagemap.with_heads(Heads::Packed),
            false => pagemap,
        };
        let reserved = altmaps.map_or(0, |_| request.reserved);
        let request = Request {
            tails,
            reserved,
            packed,
            ..request.clone()
        };
        let pagemaps = self.with_altmaps(pagemap, altmaps)?;
        Ok(pagemaps.map(|pagemaps| PreparedRequest {
            pagemaps,
            request,
            altmaps,
        }))
    }

    /// `pagemap`, with these altmaps, for the machine and for the oracle.
    pub(super) fn with_altmaps<'p>(
        &self,
        pagemap: DevPagemap<'p>,
        altmaps: Option<&'s BothAltmaps<'s>>,
    ) -> Result<Option<Pagemaps<'p>>, String>
    where
        's: 'p,
    {
        let Some(both) = altmaps else {
            return Ok(Some(Pagemaps {
                ours: pagemap,
                theirs: self.oracle.as_ref().map(|_| pagemap),
            }));
        };
        let reserved = both.ours.reserved().frames();
        let order = pagemap.geometry().order();
        let expected = Model::altmap(pagemap.ranges(), order, reserved);
        let ours = made_as(pagemap.with_altmap(&both.ours), expected)?;
        let theirs = both.theirs.as_ref();
        let theirs = theirs.map(|theirs| made_as(pagemap.with_altmap(theirs), expected));
        let theirs = theirs.transpose()?.flatten();
        Ok(ours.map(|ours| Pagemaps { ours, theirs }))
    }

    /// Brings all of `request` online.
    pub(super) fn bring_online(
        &mut self,
        request: &'s Request,
        altmaps: Option<&'s BothAltmaps<'s>>,
    ) -> Result<(), String> {
        // Of altmaps that are in use no two reserve the same frames.
        let free = |both: &&BothAltmaps<'_>| {
            let reserved = both.ours.reserved();
            !self
                .model
                .altmaps
                .iter()
                .any(|other| other.overlaps(reserved))
        };
        let Some(asked) = self.prepare(request, altmaps.filter(free))? else {
            return Ok(());
        };
        let reserved = asked.request.altmap();
        if let Some(reserved) = reserved {
            // The memory may have been used otherwise since the altmap was made.
            device_altmap(self.parts.machine, reserved);
        }
        let heads = self.model.can_have_heads(&asked.request, E::HAS_STUBS);
        let free = || self.model.free(&request.ranges, reserved);
        let policy = || self.model.policy(&asked.request, E::SAME_FOR_ALL);
        let expected = heads.and(free).and(policy);
        self.bring(asked, Extent::All, expected)
    }

    /// Brings `piece` online.
    pub(super) fn populate(
        &mut self,
        request: &'s Request,
        piece: PfnRange,
        by_region: bool,
    ) -> Result<(), String> {
        let asked = match self.with_altmap(piece).filter(|_| by_region) {
            Some(live) => PreparedRequest {
                pagemaps: live.pagemaps(),
                request: live.request.clone(),
                altmaps: live.altmaps,
            },
            None => match self.prepare(request, None)? {
                Some(asked) => asked,
                None => return Ok(()),
            },
        };
        let ranges = asked.pagemaps.ours.ranges();
        let reserved = asked.request.altmap();
        let policy = || self.model.policy(&asked.request, E::SAME_FOR_ALL);
        let heads = self.model.can_have_heads(&asked.request, E::HAS_STUBS);
        let inside = || self.model.piece(ranges, piece);
        let free = || self.model.free(&[piece], reserved);
        let expected = heads.and(inside).and(free).and(policy);
        self.bring(asked, Extent::Piece(piece), expected)
    }

    /// Brings `extent` of what is asked for online, for which `expected` is to be the answer.
    fn bring(
        &mut self,
        asked: PreparedRequest<'s>,
        extent: Extent,
        expected: Expected,
    ) -> Result<(), String> {
        let PreparedRequest {
            pagemaps,
            request,
            altmaps,
        } = asked;
        let pieces = match extent {
            Extent::All => self.model.steps(&request),
            Extent::Piece(piece) => vec![piece],
        };
        let needed: u64 = pieces.iter().map(|piece| piece.frames()).sum();
        let attempt = Attempt {
            pages: self.hull(&pieces),
            expected,
            needs_ram: true,
            altmap: altmaps.map(|both| (needed / self.scale().per_page, left_of(both))),
        };
        let gain = self.attempt(&attempt, |this: &mut Self| {
            this.start_trace(altmaps);
            let (vmemmap, table) = (&mut this.vmemmap, &mut this.table);
            match extent {
                Extent::All => vmemmap.online(table, &pagemaps.ours).map(Gain::Region),
                Extent::Piece(piece) => {
                    let notes = vmemmap.populate(table, &pagemaps.ours, piece);
                    notes.map(Gain::Piece)
                }
            }
        })?;
        let trace = self.end_trace(altmaps);
        let theirs = match (&mut self.oracle, pagemaps.theirs) {
            (Some(Oracle { vmemmap, table, .. }), Some(pagemap)) => Some(match extent {
                Extent::All => vmemmap.online(table, &pagemap).map(Gain::Region),
                Extent::Piece(piece) => vmemmap.populate(table, &pagemap, piece).map(Gain::Piece),
            }),
            _ => None,
        };
        let theirs = self.same::<_, OnlineError>(gain.is_some(), theirs)?;
        let Some(gain) = gain else { return Ok(()) };
        self.brought(&request, &pieces, gain.notes(), &trace)?;
        if let Gain::Region(ours) = gain {
            self.model.settle(&request);
            self.model.altmaps.extend(request.altmap());
            let theirs = theirs.and_then(|gain| match gain {
                Gain::Region(region) => Some(region),
                Gain::Piece(_) => None,
            });
            self.regions.push(Live {
                ours,
                theirs,
                request,
                altmaps,
            });
        }
        Ok(())
    }

    /// Forgets what was handed out before.
    pub(super) fn start_trace(&self, altmaps: Option<&BothAltmaps<'_>>) {
        self.parts.frames.take();
        if let Some(both) = altmaps {
            both.ours.take();
        }
    }

    /// What was handed out since; the oracle will hand out the same.
    pub(super) fn end_trace(&self, altmaps: Option<&BothAltmaps<'_>>) -> Trace {
        let ram = self.parts.frames.take();
        let altmap = altmaps.map(|both| both.ours.take()).unwrap_or_default();
        self.hand_out_again(altmaps, (ram.clone(), altmap.clone()));
        Trace { ram, altmap }
    }

    /// Has the oracle not hand out what an operation took that gave it back and was refused.
    pub(super) fn forget_trace(&self, altmaps: Option<&BothAltmaps<'_>>) {
        self.hand_out_again(altmaps, Default::default());
    }

    /// Has the oracle hand out this of RAM, and this of its altmap.
    fn hand_out_again(
        &self,
        altmaps: Option<&BothAltmaps<'_>>,
        (ram, altmap): (VecDeque<Taken>, VecDeque<Taken>),
    ) {
        if let Some(oracle) = &self.oracle {
            oracle.expect(ram);
        }
        if let Some(theirs) = altmaps.and_then(|both| both.theirs.as_ref()) {
            theirs.expect(altmap);
        }
    }

    /// The first to the last page of `ranges`.
    pub(super) fn hull(&self, ranges: &[PfnRange]) -> Range<u64> {
        let pages = ranges.iter().map(|range| self.scale().pages(*range));
        let all = self.model.all_pages();
        let hull = pages.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
        let hull = hull.unwrap_or(all.start..all.start + 1);
        hull.start..hull.end.max(hull.start + 1)
    }

    /// How many of the frames that were handed out are on another node than `node`.
    pub(super) fn remote(&self, trace: &Trace, node: u32, pages: &Range<u64>) -> u64 {
        let frames = self.parts.machine.frames();
        // A single one may be for the bits by which readers find it.
        let places = self.seen_places().unwrap_or_default();
        let is_mapped = |taken: &&Taken| match taken {
            Taken::Block(block) if block.order() == Order::BASE && R::READ => {
                let frame = block.first().get();
                self.seen(pages).contains(&Some(frame))
                    || places.values().any(|place| *place == frame)
            }
            _ => true,
        };
        let is_remote = |taken: &&Taken| {
            let first = taken.first();
            first.is_some_and(|first| frames.node_of(first).number() != node)
        };
        let remote = trace.ram.iter().filter(is_remote);
        let remote = remote.filter(is_mapped).map(Taken::frames);
        let of_altmap = trace.altmap.iter().map(Taken::frames);
        let of_altmap = of_altmap.filter(|_| node != ALTMAP_NODE.number());
        remote.chain(of_altmap).sum()
    }

    /// Which of the huge leaves at `candidates` there are: those in whose place no table is, and
    /// that a block was handed out for.
    fn huge_leaves(&self, candidates: &[u64], trace: &Trace) -> Result<BTreeSet<u64>, String> {
        let mut blocks = trace.blocks(self.parts.machine.facts().huge_leaf);
        let mut huge = BTreeSet::new();
        for page in candidates {
            if self.model.tables.leaf_table(*page).is_none()
                && blocks.next().ok_or("no block was asked for")?
            {
                huge.insert(*page);
            }
        }
        match blocks.next() {
            None => Ok(huge),
            Some(_) => Err("more blocks were asked for than there are huge leaves".into()),
        }
    }

    /// Enters what came online into the model, and checks what was reported.
    fn brought(
        &mut self,
        request: &Request,
        pieces: &[PfnRange],
        notes: &Notes,
        trace: &Trace,
    ) -> Result<(), String> {
        let candidates = self.model.huge_leaves(request, pieces);
        let huge = self.huge_leaves(&candidates, trace)?;
        let missing = (candidates.len() - huge.len()) as u64;
        let remote = self.remote(trace, request.node, &self.hull(pieces));
        check_notes(notes, missing, remote)?;
        for piece in pieces {
            let pages = self.scale().pages(*piece);
            let seen = self.seen(&pages);
            let seen = |page: u64| seen.get((page - pages.start) as usize).copied().flatten();
            self.model.enter(request, *piece, &huge, &seen)?;
        }
        let sharing = sharing_of(&self.scale(), request);
        let shares = sharing != Tails::None && request.reserved > 0;
        self.tally.online += 1;
        self.tally.packed += u64::from(packs(&self.scale(), request.order.get(), request.packed));
        self.tally.huge += u64::from(!huge.is_empty());
        self.tally.unavailable += u64::from(missing > 0);
        self.tally.remote += u64::from(remote > 0);
        self.tally.altmap += u64::from(request.reserved > 0);
        self.tally.compound_altmap += u64::from(shares);
        Ok(())
    }
}

/// How many frames are left of an altmap.
pub(super) fn left_of(both: &BothAltmaps<'_>) -> u64 {
    let altmap = both.ours.allocator();
    altmap.reserved().frames() - altmap.count_frames() - altmap.in_use()
}

/// What was made, if it was to be.
pub(super) fn made_as<T>(
    made: Result<T, PagemapError>,
    expected: Expected,
) -> Result<Option<T>, String> {
    match (made, expected) {
        (Ok(made), Expected::Done) => Ok(Some(made)),
        (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => Ok(None),
        (made, _) => {
            let made = made.map(drop).map_err(|error| error.kind());
            Err(format!("the pagemap is {made:?}, expected {expected:?}"))
        }
    }
}

/// Checks how many huge leaves are reported missing, and how many frames remote.
pub(super) fn check_notes(notes: &Notes, missing: u64, remote: u64) -> Result<(), String> {
    let mut noted = (0, 0);
    for note in notes.iter() {
        match note {
            Note::HugeLeavesUnavailable { leaves } => noted.0 = leaves,
            Note::RemoteFrames { frames, .. } => noted.1 = frames,
            Note::NoHugeLeaves => return Err("there are huge leaves".into()),
            _ => {}
        }
    }
    match noted == (missing, remote) {
        true => Ok(()),
        false => Err(format!(
            "{missing} huge leaves are missing and {remote} frames are remote, noted are {noted:?}"
        )),
    }
}
