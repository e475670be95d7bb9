//! What an operation has to answer.

use super::{Model, packs, sharing_of};
use crate::script::op::Request;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Piece, Tails};
use std::ops::Range;

/// What an operation has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) enum Expected {
    Done,
    /// Refused, for the page of the vmemmap if it is about one.
    Refused(ErrorKind, Option<u64>),
}

impl Expected {
    pub(in crate::script) const fn refused(kind: ErrorKind) -> Self {
        Self::Refused(kind, None)
    }

    /// This, or what `next` says if it is done.
    pub(in crate::script) fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Done => next(),
            refused @ Self::Refused(..) => refused,
        }
    }
}

impl Model {
    /// Whether a pagemap can be made of `ranges`, in pages of `order`.
    pub(in crate::script) fn pagemap(&self, ranges: &[PfnRange], order: Order) -> Expected {
        if order.get() > self.scale.max_order() {
            return Expected::refused(ErrorKind::UnsupportedOrder);
        }
        if ranges.is_empty() {
            return Expected::refused(ErrorKind::Empty);
        }
        let unit = order.frames().max(self.scale.subsection);
        for (index, range) in ranges.iter().enumerate() {
            if range.last().get() >= self.scale.end() {
                return Expected::refused(ErrorKind::OutOfRange);
            }
            if range.start().get() % unit != 0 || range.frames() % unit != 0 {
                return Expected::refused(ErrorKind::Misaligned);
            }
            if ranges.iter().take(index).any(|r| r.overlaps(*range)) {
                return Expected::refused(ErrorKind::Overlap);
            }
        }
        Expected::Done
    }

    /// Whether the first of `ranges`, of which a pagemap can be made, has room for an altmap of so
    /// many frames.
    pub(in crate::script) fn altmap(ranges: &[PfnRange], order: Order, reserved: u64) -> Expected {
        let frames = ranges.first().map_or(0, |range| range.frames());
        if reserved > frames {
            return Expected::refused(ErrorKind::OutOfRange);
        }
        let base_pages = reserved.next_multiple_of(order.frames());
        if order.get() > 0 && base_pages >= frames {
            return Expected::refused(ErrorKind::NoCompoundPage);
        }
        Expected::Done
    }

    /// What an altmap of `frame` reserves, if it is not `own`.
    pub(super) fn other_altmap(&self, frame: u64, own: Option<PfnRange>) -> bool {
        let frame = Pfn::new(frame).unwrap_or(Pfn::ZERO);
        self.is_device(frame.get()) && !own.is_some_and(|own| own.contains(frame))
    }

    /// Whether `altmap` has frames that hold descriptors.
    pub(in crate::script) fn is_in_use(&self, altmap: PfnRange) -> bool {
        let of_altmap = |frame| Pfn::new(frame).is_some_and(|frame| altmap.contains(frame));
        let mut pages = self.pages.iter().flatten();
        pages.any(|page| page.is_ours() && of_altmap(page.frame))
    }

    /// What an altmap in use other than `own` reserves, if that is some of `frames`.
    pub(super) fn other_reserving(
        &self,
        frames: PfnRange,
        own: Option<PfnRange>,
    ) -> Option<PfnRange> {
        let others = self.altmaps.iter().copied();
        let mut others = others.filter(|other| other.overlaps(frames) && Some(*other) != own);
        others.find(|other| self.is_in_use(*other))
    }

    /// Whether an altmap in use reserves `frame`.
    pub(in crate::script) fn is_reserved(&self, frame: Pfn) -> bool {
        self.other_reserving(PfnRange::single(frame), None)
            .is_some()
    }

    /// Whether all of `ranges` is free, for a pagemap with `altmap`.
    pub(in crate::script) fn free(
        &self,
        ranges: &[PfnRange],
        altmap: Option<PfnRange>,
    ) -> Expected {
        let free = |range: &PfnRange| {
            let mut pages = self.scale.pages(*range);
            match pages.find(|page| self.page(*page).is_some()) {
                Some(page) => Expected::Refused(ErrorKind::AlreadyOnline, Some(page)),
                None if self.other_reserving(*range, altmap).is_some() => {
                    Expected::refused(ErrorKind::Overlap)
                }
                None => Expected::Done,
            }
        };
        let all = ranges.iter().map(free);
        all.fold(Expected::Done, |expected, next| expected.and(|| next))
    }

    /// Whether frames of `altmap` may hold descriptors: it is in use, or nothing that it reserves
    /// is.
    pub(in crate::script) fn usable(&self, altmap: Option<PfnRange>) -> Expected {
        match altmap {
            Some(altmap) if !self.is_in_use(altmap) => self.free(&[altmap], None),
            _ => Expected::Done,
        }
    }

    /// Whether `request` can come online where memory is free, with descriptors whose tails are the
    /// same for all compound pages or not.
    pub(in crate::script) fn policy(&self, request: &Request, same_for_all: bool) -> Expected {
        let tails = sharing_of(&self.scale, request);
        let policy = || match tails == Tails::PerOrder && !same_for_all {
            true => Expected::refused(ErrorKind::Unsupported),
            false => Expected::Done,
        };
        self.usable(request.altmap()).and(policy)
    }

    /// Whether heads can be as `request` says, with an encoding that has stubs or not.
    pub(in crate::script) fn can_have_heads(&self, request: &Request, has_stubs: bool) -> Expected {
        match packs(&self.scale, request.order.get(), request.packed) && !has_stubs {
            true => Expected::refused(ErrorKind::Unsupported),
            false => Expected::Done,
        }
    }

    /// What is wrong with `piece` as a piece of a pagemap of `ranges`.
    pub(in crate::script) fn piece(&self, ranges: &[PfnRange], piece: PfnRange) -> Expected {
        let subsection = self.scale.subsection;
        if !piece.start().get().is_multiple_of(subsection)
            || !piece.frames().is_multiple_of(subsection)
        {
            return Expected::refused(ErrorKind::Misaligned);
        }
        if !ranges.iter().any(|r| r.contains_range(piece)) {
            return Expected::refused(ErrorKind::OutOfRange);
        }
        Expected::Done
    }

    /// Whether `piece` can go offline, by a pagemap with this altmap.
    pub(in crate::script) fn depopulate(
        &self,
        altmap: Option<PfnRange>,
        piece: PfnRange,
    ) -> Expected {
        for number in self.scale.pages(piece) {
            let Some(page) = self.own_page(number) else {
                return Expected::Refused(ErrorKind::NotOnline, Some(number));
            };
            if self.other_altmap(page.frame, altmap) {
                return Expected::refused(ErrorKind::Unsupported);
            }
        }
        Expected::Done
    }

    /// The steps in which `request` comes online: pieces, or compound pages that share their tails and are larger.
    pub(in crate::script) fn steps(&self, request: &Request) -> Vec<PfnRange> {
        let Some(unit) = self.step(request) else {
            return request.ranges.clone();
        };
        let mut pieces = Vec::new();
        for range in &request.ranges {
            let mut rest = Some(*range);
            while let Some(left) = rest {
                let (piece, later) = left.take_first(unit - left.start().get() % unit);
                pieces.push(piece);
                rest = later;
            }
        }
        pieces
    }

    /// How many frames each of them has, unless it is a whole range.
    pub(super) fn step(&self, request: &Request) -> Option<u64> {
        let piece = match request.piece {
            Piece::Subsection => self.scale.subsection,
            Piece::Section => self.scale.section,
            Piece::Range => return None,
        };
        match sharing_of(&self.scale, request) {
            Tails::None => Some(piece),
            _ => Some(piece.max(request.order.frames())),
        }
    }

    /// The huge leaves by which base pages of `pieces` could be mapped, in the order in which they
    /// are asked for: their first pages.
    pub(in crate::script) fn huge_leaves(
        &self,
        request: &Request,
        pieces: &[PfnRange],
    ) -> Vec<u64> {
        let shares = sharing_of(&self.scale, request) != Tails::None;
        if shares || !request.huge_leaves {
            return Vec::new();
        }
        // A leaf never reaches across the end of what is reserved, or of the gap behind it.
        let altmap = request.altmap().map(|part| self.scale.pages(part).end);
        let base_pages = request.base_pages().map(|part| self.scale.pages(part).end);
        let mut leaves = Vec::new();
        for piece in pieces {
            let pages = self.scale.pages(*piece);
            let mut start = pages.start;
            let ends = [altmap, base_pages, Some(pages.end)];
            for end in ends.into_iter().flatten() {
                if start < end && end <= pages.end {
                    leaves.extend(self.whole_spans(&(start..end)));
                    start = end;
                }
            }
        }
        leaves
    }

    /// The first pages of the spans that lie wholly in `pages`.
    pub(super) fn whole_spans(&self, pages: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let all = pages.clone();
        let whole = move |span: &Range<u64>| all.start <= span.start && span.end <= all.end;
        self.spans(pages).filter(whole).map(|span| span.start)
    }
}
