//! What should be: a plain map of the vmemmap's pages, and the result that every operation has to
//! have.

use super::op::{Request, SUBSECTION};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Piece, Tails};
use std::collections::BTreeMap;

/// Descriptors in a page of the vmemmap.
pub(super) const PER_PAGE: u64 = 64;

/// Frames that a huge leaf describes.
pub(super) const PER_LEAF: u64 = 512 * PER_PAGE;

/// What a page of the vmemmap is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// A frame of its own, for compound pages of `order`.
    Own {
        order: u8,
        /// Whether by a huge leaf.
        huge: bool,
    },
    /// A tail frame for compound pages of `order`.
    Tail { shared_by: SharedBy, order: u8 },
    /// This frame, by somebody else.
    Foreign { frame: u64, huge: bool },
}

impl Cell {
    /// Whether stores are allowed: not to what belongs to many compound pages.
    pub(super) fn is_writable(&self) -> bool {
        let of_all = |by: &SharedBy| matches!(by, SharedBy::Node(_));
        !matches!(self, Self::Tail { shared_by, .. } if of_all(shared_by))
    }
}

/// Whose tail frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SharedBy {
    /// That of the compound page at this frame.
    Compound(u64),
    /// That of all compound pages of the order with descriptors on this node.
    Node(u32),
}

/// What an operation has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Done,
    /// Refused, for the page of the vmemmap if it is about one.
    Refused(ErrorKind, Option<u64>),
}

/// The pages of the vmemmap, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) pages: BTreeMap<u64, Cell>,
    /// The last frame that there is room for.
    pub(super) last: u64,
}

/// The pages that describe `frames`.
pub(super) fn pages(frames: PfnRange) -> std::ops::Range<u64> {
    frames.start().get() / PER_PAGE..(frames.last().get() + 1) / PER_PAGE
}

/// The pages that a leaf of 512 pages which reaches across an end of `all` would map.
fn parted(all: &std::ops::Range<u64>) -> impl Iterator<Item = std::ops::Range<u64>> + use<> {
    let ends = [all.start, all.end].into_iter();
    ends.filter(|end| end % 512 != 0)
        .map(|end| end - end % 512..end - end % 512 + 512)
}

/// Whether `request` shares tails.
fn shares_tails(request: &Request) -> bool {
    let vmemmap_pages = request.order.frames() / PER_PAGE;
    match request.tails {
        Tails::PerCompound => vmemmap_pages > 2,
        Tails::PerOrder => vmemmap_pages > 1,
        _ => false,
    }
}

impl Model {
    /// Whether a pagemap can be made of `request`.
    pub(super) fn pagemap(&self, request: &Request) -> Expected {
        let refused = |kind| Expected::Refused(kind, None);
        if request.order.get() > 28 {
            return refused(ErrorKind::UnsupportedOrder);
        }
        if request.ranges.is_empty() {
            return refused(ErrorKind::Empty);
        }
        let unit = request.order.frames().max(SUBSECTION);
        for (index, range) in request.ranges.iter().enumerate() {
            if range.last().get() > self.last {
                return refused(ErrorKind::OutOfRange);
            }
            if range.start().get() % unit != 0 || range.frames() % unit != 0 {
                return refused(ErrorKind::Misaligned);
            }
            if request
                .ranges
                .iter()
                .take(index)
                .any(|r| r.overlaps(*range))
            {
                return refused(ErrorKind::Overlap);
            }
        }
        Expected::Done
    }

    /// Whether the first range of `request`, of which a pagemap can be made, has room for its
    /// altmap.
    pub(super) fn altmap(request: &Request) -> Expected {
        let frames = request.ranges.first().map_or(0, |range| range.frames());
        if request.altmap * SUBSECTION > frames {
            return Expected::Refused(ErrorKind::OutOfRange, None);
        }
        let base_pages = request.base_pages().map_or(0, PfnRange::frames);
        if request.order.get() > 0 && base_pages >= frames {
            return Expected::Refused(ErrorKind::NoCompoundPage, None);
        }
        Expected::Done
    }

    /// Whether `piece` of `request` can come online now: the reserved part first, from its start
    /// on.
    pub(super) fn populate_in_order(&self, request: &Request, piece: PfnRange) -> Expected {
        let missing = request
            .reserved()
            .and_then(|reserved| pages(reserved).find(|page| !self.is_own(*page)));
        match missing {
            Some(page) if piece.start().get() != page * PER_PAGE => {
                Expected::Refused(ErrorKind::OutOfOrder, None)
            }
            _ => Expected::Done,
        }
    }

    /// Whether `piece` of `request` can go offline now: the reserved part last, from its end on.
    pub(super) fn depopulate_in_order(&self, request: &Request, piece: PfnRange) -> Expected {
        let Some(reserved) = request.reserved().filter(|part| part.overlaps(piece)) else {
            return Expected::Done;
        };
        let other = |page: &u64| {
            let frame = Pfn::new(page * PER_PAGE).unwrap_or(piece.start());
            !(piece.contains(frame) || reserved.contains(frame) && frame < piece.start())
        };
        let mut all = request.ranges.iter().flat_map(|range| pages(*range));
        match all.any(|page| other(&page) && self.is_own(page)) {
            true => Expected::Refused(ErrorKind::OutOfOrder, None),
            false => Expected::Done,
        }
    }

    /// Whether the library has mapped the page.
    fn is_own(&self, page: u64) -> bool {
        !matches!(self.pages.get(&page), None | Some(Cell::Foreign { .. }))
    }

    /// The first page of `frames` that is in use.
    fn in_use(&self, frames: PfnRange) -> Option<u64> {
        self.pages
            .range(pages(frames))
            .next()
            .map(|(page, _)| *page)
    }

    /// Whether all of `ranges` can be brought online.
    pub(super) fn online(&self, ranges: &[PfnRange]) -> Expected {
        match ranges.iter().find_map(|range| self.in_use(*range)) {
            Some(page) => Expected::Refused(ErrorKind::AlreadyOnline, Some(page)),
            None => Expected::Done,
        }
    }

    /// What is wrong with `piece` as a piece of a pagemap of `ranges`.
    pub(super) fn piece(&self, ranges: &[PfnRange], piece: PfnRange) -> Expected {
        if !piece.start().get().is_multiple_of(SUBSECTION)
            || !piece.frames().is_multiple_of(SUBSECTION)
        {
            return Expected::Refused(ErrorKind::Misaligned, None);
        }
        if !ranges.iter().any(|r| r.contains_range(piece)) {
            return Expected::Refused(ErrorKind::OutOfRange, None);
        }
        Expected::Done
    }

    /// Whether all of `piece` can go offline.
    pub(super) fn depopulate(&self, piece: PfnRange) -> Expected {
        match pages(piece).find(|page| !self.is_own(*page)) {
            Some(page) => Expected::Refused(ErrorKind::NotOnline, Some(page)),
            None => Expected::Done,
        }
    }

    /// Whether a huge leaf reaches across an end of `piece`.
    pub(super) fn splits_huge_leaf(&self, piece: PfnRange) -> bool {
        let is_huge = |page| matches!(self.pages.get(&page), Some(Cell::Own { huge: true, .. }));
        parted(&pages(piece)).flatten().any(is_huge)
    }

    /// The pieces in which `ranges` of `request` come online.
    pub(super) fn pieces(request: &Request) -> Vec<PfnRange> {
        let unit = match request.piece {
            Piece::Subsection => SUBSECTION,
            Piece::Section => 1 << 15,
            Piece::Range => u64::MAX,
        };
        let mut pieces = Vec::new();
        for range in &request.ranges {
            let mut start = range.start().get();
            while start <= range.last().get() {
                let end = (start / unit).saturating_add(1).saturating_mul(unit);
                let end = end.min(range.last().get() + 1);
                let first = Pfn::new(start).unwrap_or(range.start());
                pieces.extend(PfnRange::new(first, end - start));
                start = end;
            }
        }
        pieces
    }

    /// The leaves of 512 pages that base pages of `pieces` could be mapped by: their first pages.
    pub(super) fn huge_leaves(request: &Request, pieces: &[PfnRange]) -> Vec<u64> {
        if shares_tails(request) || !request.huge_leaves {
            return Vec::new();
        }
        let ends = [request.reserved(), request.base_pages()].map(|part| part.map(PfnRange::last));
        let parts = pieces.iter().flat_map(|piece| {
            let mut parts = Vec::new();
            let mut rest = *piece;
            for end in ends.into_iter().flatten().filter(|end| *end < piece.last()) {
                if rest.contains(end) {
                    let (part, later) = rest.take_first(end.get() - rest.start().get() + 1);
                    parts.push(part);
                    rest = later.unwrap_or(rest);
                }
            }
            parts.push(rest);
            parts
        });
        let leaves = parts.flat_map(|piece| {
            let start = piece.start().get().next_multiple_of(PER_LEAF);
            let leaves = (piece.last().get() + 1).saturating_sub(start) / PER_LEAF;
            (0..leaves).map(move |leaf| (start + leaf * PER_LEAF) / PER_PAGE)
        });
        leaves.collect()
    }

    /// Enters `pieces` of `request`, with huge leaves at the pages in `huge`.
    pub(super) fn enter(&mut self, request: &Request, pieces: &[PfnRange], huge: &[u64]) {
        let base_pages = request.base_pages().map(pages).unwrap_or_default();
        for page in pieces.iter().flat_map(|piece| pages(*piece)) {
            let frame = page * PER_PAGE;
            let head = frame & !(request.order.frames() - 1);
            let is_base = base_pages.contains(&page);
            let order = if is_base { 0 } else { request.order.get() };
            let cell = if shares_tails(request) && !is_base && frame != head {
                let shared_by = match request.tails {
                    Tails::PerOrder => SharedBy::Node(request.node),
                    _ => SharedBy::Compound(head),
                };
                Cell::Tail { shared_by, order }
            } else {
                let huge = huge.contains(&(page - page % 512));
                Cell::Own { order, huge }
            };
            self.pages.insert(page, cell);
        }
    }

    /// Takes out all of `frames` that is not foreign. What is left of huge leaves is base pages.
    pub(super) fn remove(&mut self, frames: PfnRange) {
        let all = pages(frames);
        for page in parted(&all).flatten() {
            if let Some(Cell::Own { huge, .. }) = self.pages.get_mut(&page) {
                *huge = false;
            }
        }
        self.pages
            .retain(|page, cell| !all.contains(page) || matches!(cell, Cell::Foreign { .. }));
    }

    /// How many leaf tables the library's pages need.
    pub(super) fn leaf_tables(&self) -> u64 {
        let mut tables = 0;
        let mut last = None;
        for (page, cell) in &self.pages {
            let small = matches!(cell, Cell::Own { huge: false, .. } | Cell::Tail { .. });
            if small && last != Some(page / 512) {
                last = Some(page / 512);
                tables += 1;
            }
        }
        tables
    }
}
