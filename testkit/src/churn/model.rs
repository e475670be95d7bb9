//! What should be: the state of every page and leaf table of the window, changed by plain rules.
//!
//! Knows no code of the library's. Counts are kept as pages change, so that they are there after
//! every operation for nothing.

mod costs;
mod heads;
mod reorder;

pub(super) use self::costs::Costs;
use self::heads::Heads;
use super::layout::Layout;
use crate::found::Found;
use crate::listed::Part;
use mm_core::pagemap::{Tables, Tails};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Whose tail frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// That of the compound page of this order at this page.
    Compound(u8, u64),
    /// That of all compound pages of this order on this node.
    Order(u8, u32),
    /// The stubs of all of them whose heads are packed.
    Stubs(u8, u32),
}

/// What a page of the vmemmap is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Free,
    Foreign,
    /// A frame of its own, by a huge leaf or not, for pages of this order.
    Own {
        order: u8,
        huge: bool,
    },
    /// A tail frame, for compound pages of this order.
    Tail {
        order: u8,
        key: Key,
    },
}

impl Cell {
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Own { .. } | Self::Tail { .. })
    }

    /// The order of the pages whose descriptors are there, if they are ours.
    pub(super) fn order(self) -> Option<u8> {
        match self {
            Self::Own { order, .. } | Self::Tail { order, .. } => Some(order),
            Self::Free | Self::Foreign => None,
        }
    }
}

/// How a leaf table's worth of pages is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    /// By a table of its own, if by any.
    Private,
    Shared(Key),
    Huge,
    /// By a table that is somebody else's.
    Foreign,
}

/// How pages are to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) order: u8,
    pub(super) tails: Tails,
    pub(super) tables: Tables,
    pub(super) huge_leaves: bool,
    pub(super) node: u32,
    /// Whether heads are packed, where they can be.
    pub(super) packed: bool,
}

/// The window.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) layout: Layout,
    /// Whether the page table can share tables, and has any that cost frames.
    has_tables: bool,
    pub(super) cells: Vec<Cell>,
    spans: Vec<Span>,
    /// By span, how many of its pages are ours.
    ours: Vec<u64>,
    tails: FxHashMap<Key, u64>,
    own: u64,
    /// Of the pages that are `own`, those of devices with altmaps.
    own_of_devices: u64,
    mapped: u64,
    /// The packed heads, and how many of their pages are counted as mapped.
    heads: Heads,
    mapped_heads: u64,
    found: Found,
    /// The marked frames, by number.
    pub(super) marks: BTreeSet<u64>,
    /// What the kernel wrote into the first descriptor of a page.
    pub(super) notes: BTreeMap<u64, u64>,
    /// What is in reserve.
    pub(super) reserve: Reserved,
}

/// Frames in reserve: single ones and those of blocks together, and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) frames: u64,
    pub(super) tables: u64,
}

impl Model {
    pub(super) fn new(layout: Layout, has_tables: bool) -> Self {
        Self {
            layout,
            has_tables,
            cells: vec![Cell::Free; layout.pages() as usize],
            spans: vec![Span::Private; (layout.pages() / layout.table) as usize],
            ours: vec![0; (layout.pages() / layout.table) as usize],
            tails: FxHashMap::default(),
            own: 0,
            own_of_devices: 0,
            mapped: 0,
            heads: Heads::default(),
            mapped_heads: 0,
            found: Found::new(0..layout.pages()),
            marks: BTreeSet::new(),
            notes: BTreeMap::new(),
            reserve: Reserved::default(),
        }
    }

    /// Somebody else maps `page`, in a table of their own.
    pub(super) fn map_foreign(&mut self, page: u64) {
        self.set(page, Cell::Foreign);
        let span = page / self.layout.table;
        self.spans[span as usize] = Span::Foreign;
    }

    pub(super) fn cell(&self, page: u64) -> Cell {
        self.cells[page as usize]
    }

    /// Whether tails are shared, and by which rule.
    pub(super) fn tails_of(&self, policy: &Policy) -> Tails {
        let pages = self.pages_of(policy.order);
        match policy.tails {
            _ if self.packs(policy) => Tails::PerOrder,
            Tails::PerCompound if policy.order > 0 && pages > 2 => Tails::PerCompound,
            Tails::PerOrder if policy.order > 0 && pages > 1 => Tails::PerOrder,
            _ => Tails::None,
        }
    }

    /// Whether tables are shared.
    fn shares_tables(&self, policy: &Policy) -> bool {
        self.has_tables
            && policy.tables == Tables::Shared
            && self.tails_of(policy) != Tails::None
            && (self.packs(policy) || self.pages_of(policy.order) >= 2 * self.layout.table)
    }

    pub(super) fn pages_of(&self, order: u8) -> u64 {
        let page = self.layout.model.vmemmap_page_order().get();
        1 << order.saturating_sub(page)
    }

    fn set(&mut self, page: u64, cell: Cell) {
        let of_devices = u64::from(page < self.layout.device_pages());
        let before = std::mem::replace(&mut self.cells[page as usize], cell);
        let kinds = [before, cell].map(heads::kind);
        if kinds[0] != kinds[1] {
            for kind in kinds.into_iter().flatten() {
                self.found
                    .change(page, self.pages_of(heads::order_of(kind)));
            }
        }
        self.set_head(page, before, cell);
        let ours = &mut self.ours[(page / self.layout.table) as usize];
        *ours += u64::from(cell.is_ours());
        *ours -= u64::from(before.is_ours());
        match before {
            Cell::Own { .. } => {
                self.own -= 1;
                self.own_of_devices -= of_devices;
                self.mapped -= 1;
            }
            Cell::Tail { key, .. } => {
                self.mapped -= 1;
                if let Some(count) = self.tails.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.tails.remove(&key);
                    }
                }
            }
            Cell::Free | Cell::Foreign => {}
        }
        match cell {
            Cell::Own { .. } => {
                self.own += 1;
                self.own_of_devices += of_devices;
                self.mapped += 1;
            }
            Cell::Tail { key, .. } => {
                self.mapped += 1;
                *self.tails.entry(key).or_default() += 1;
            }
            Cell::Free | Cell::Foreign => {}
        }
    }

    /// Brings up to date what readers find, before it is asked for.
    pub(super) fn refresh(&mut self) {
        let vmemmap_page = self.layout.model.vmemmap_page_order().get();
        // A page whose parts say that its head is in different places is not found.
        let kind_at = |page: u64| {
            self.cells
                .get(page as usize)
                .and_then(|cell| heads::kind(*cell))
        };
        let pages_of = |kind: u8| 1 << heads::order_of(kind).saturating_sub(vmemmap_page);
        self.found.refresh(kind_at, pages_of);
    }

    /// The order of the page that readers find where `page` describes frames.
    pub(super) fn found(&self, page: u64) -> Option<u8> {
        self.found.order_at(page).map(heads::order_of)
    }

    /// How `page` is mapped, if it is ours.
    pub(super) fn listed_part(&self, page: u64) -> Option<Part> {
        let (order, tails, packed) = match *self.cells.get(page as usize)? {
            Cell::Free | Cell::Foreign => return None,
            Cell::Own { order, .. } => (order, Tails::None, false),
            Cell::Tail { order, key } => match key {
                Key::Compound(..) => (order, Tails::PerCompound, false),
                Key::Order(..) => (order, Tails::PerOrder, false),
                Key::Stubs(..) => (order, Tails::PerOrder, true),
            },
        };
        let tables = match self.spans[(page / self.layout.table) as usize] {
            Span::Shared(_) => Tables::Shared,
            _ => Tables::Private,
        };
        Some(Part {
            order,
            tails,
            tables,
            packed,
        })
    }

    /// Whether some page is mapped to this tail frame.
    pub(super) fn has_tail(&self, key: &Key) -> bool {
        self.tails.contains_key(key)
    }

    /// Whether a shared table maps some of `pages`.
    pub(super) fn has_shared_table(&self, pages: &Range<u64>) -> bool {
        self.spans_of(pages)
            .any(|span| matches!(self.spans[span], Span::Shared(_)))
    }

    fn span_pages(&self, span: usize) -> Range<u64> {
        let first = span as u64 * self.layout.table;
        first..first + self.layout.table
    }

    /// The spans that `pages` touch.
    fn spans_of(&self, pages: &Range<u64>) -> Range<usize> {
        let table = self.layout.table;
        (pages.start / table) as usize..(pages.end.div_ceil(table)) as usize
    }

    fn covers(pages: &Range<u64>, span: &Range<u64>) -> bool {
        pages.start <= span.start && span.end <= pages.end
    }

    /// The tail that maps all of a span, if one does.
    fn one_tail(&self, span: usize) -> Option<Key> {
        let mut pages = self.span_pages(span);
        let Cell::Tail { key, .. } = self.cell(pages.start) else {
            return None;
        };
        let same = |page| matches!(self.cell(page), Cell::Tail { key: other, .. } if other == key);
        pages.all(same).then_some(key)
    }

    /// Makes one table of those in `pages` that are all one tail.
    fn merge_tables(&mut self, pages: &Range<u64>) {
        for span in self.spans_of(pages) {
            let covered = Self::covers(pages, &self.span_pages(span));
            if covered
                && self.spans[span] == Span::Private
                && let Some(key) = self.one_tail(span)
            {
                self.spans[span] = Span::Shared(key);
            }
        }
    }

    /// Whether huge leaves map whole spans of `piece`, as far as blocks are there for them.
    pub(super) fn huge_spans(&self, piece: &Range<u64>, policy: &Policy) -> Vec<u64> {
        if !policy.huge_leaves || self.tails_of(policy) != Tails::None {
            return Vec::new();
        }
        let whole = |span: &usize| {
            Self::covers(piece, &self.span_pages(*span)) && self.spans[*span] != Span::Foreign
        };
        self.spans_of(piece)
            .filter(whole)
            .map(|span| self.span_pages(span).start)
            .collect()
    }

    /// `piece` comes online, in base pages up to `base_until`, with huge leaves at the pages in
    /// `huge`.
    pub(super) fn enter(
        &mut self,
        piece: &Range<u64>,
        policy: &Policy,
        base_until: u64,
        huge: &[u64],
    ) {
        let tails = self.tails_of(policy);
        let unit = self.pages_of(policy.order);
        for page in piece.clone() {
            let order = if page < base_until { 0 } else { policy.order };
            let head = page - page % unit;
            let is_own = tails == Tails::None || order == 0 || page == head;
            let cell = if is_own && !(self.packs(policy) && order > 0) {
                let huge = huge.contains(&(page - page % self.layout.table));
                Cell::Own { order, huge }
            } else {
                let key = self.key(tails, policy, head);
                Cell::Tail { order, key }
            };
            self.set(page, cell);
            self.notes.remove(&page);
        }
        for first in huge {
            self.spans[(first / self.layout.table) as usize] = Span::Huge;
        }
        if self.shares_tables(policy) {
            self.merge_tables(piece);
        }
    }

    /// All pieces of `range` have come online: tables that are alike become one.
    pub(super) fn settle(&mut self, range: &Range<u64>, policy: &Policy) {
        if self.shares_tables(policy) {
            self.merge_tables(range);
        }
    }

    fn key(&self, tails: Tails, policy: &Policy, head: u64) -> Key {
        match tails {
            _ if self.packs(policy) => Key::Stubs(policy.order, policy.node),
            Tails::PerOrder => Key::Order(policy.order, policy.node),
            _ => Key::Compound(policy.order, head),
        }
    }

    /// `pages` go offline. Says how many marked frames they had.
    pub(super) fn remove(&mut self, pages: &Range<u64>) -> u64 {
        for span in self.spans_of(pages) {
            let all = self.span_pages(span);
            match self.spans[span] {
                Span::Foreign => {}
                Span::Huge if !Self::covers(pages, &all) => self.part_leaf(span),
                _ => self.spans[span] = Span::Private,
            }
        }
        for page in pages.clone() {
            if self.cell(page).is_ours() {
                self.set(page, Cell::Free);
                self.notes.remove(&page);
            }
        }
        let per_page = self.layout.model.descriptors_per_page();
        let first = self.layout.frame_of(pages.start).get();
        let frames = first..first + (pages.end - pages.start) * per_page;
        let marked: Vec<u64> = self.marks.range(frames).copied().collect();
        marked.iter().for_each(|frame| {
            self.marks.remove(frame);
        });
        marked.len() as u64
    }

    /// A huge leaf becomes base pages.
    fn part_leaf(&mut self, span: usize) {
        for page in self.span_pages(span) {
            if let Cell::Own { order, .. } = self.cell(page) {
                self.set(page, Cell::Own { order, huge: false });
            }
        }
        self.spans[span] = Span::Private;
    }

    /// Whether a part of what a huge leaf or a shared table maps goes with `pages`.
    pub(super) fn parts(&self, pages: &Range<u64>) -> bool {
        self.spans_of(pages).any(|span| {
            let split = matches!(self.spans[span], Span::Huge | Span::Shared(_));
            split && !Self::covers(pages, &self.span_pages(span))
        })
    }

    /// `pages` without those that a huge leaf or a shared table maps which reaches across an end,
    /// and which `is_one` still, by its first page.
    pub(super) fn apart(&self, pages: &Range<u64>, is_one: impl Fn(u64) -> bool) -> Range<u64> {
        let mut apart = pages.clone();
        for span in self.spans_of(pages) {
            let all = self.span_pages(span);
            if !matches!(self.spans[span], Span::Huge | Span::Shared(_)) || !is_one(all.start) {
                continue;
            }
            if all.end > pages.end {
                apart.end = apart.end.min(all.start).max(apart.start);
            }
            if all.start < pages.start {
                apart.start = apart.start.max(all.end).min(apart.end);
            }
        }
        apart
    }

    /// How many compound pages of `order` in `pages` have their tails shared, and how many have
    /// not; or the first page that does not fit.
    pub(super) fn survey(&self, pages: &Range<u64>, order: u8) -> Result<(u64, u64), FoldRefusal> {
        if self.has_packed(pages) {
            return Err(FoldRefusal::Packed);
        }
        let unit = self.pages_of(order);
        let (mut folded, mut unfolded) = (0, 0);
        for head in pages.clone().step_by(unit as usize) {
            let mut tails = 0;
            for page in head..head + unit {
                match self.cell(page) {
                    Cell::Free | Cell::Foreign => return Err(FoldRefusal::NotOnline),
                    Cell::Own { .. } => {}
                    Cell::Tail { order: other, key }
                        if other != order || page == head || heads::is_of_stubs(&key) =>
                    {
                        return Err(FoldRefusal::OtherTails);
                    }
                    Cell::Tail { .. } => tails += 1,
                }
            }
            match tails {
                0 => unfolded += 1,
                tails if tails == unit - 1 => folded += 1,
                _ => return Err(FoldRefusal::OtherTails),
            }
        }
        Ok((folded, unfolded))
    }

    /// The unfolded compound pages in `pages` are folded.
    pub(super) fn fold(&mut self, pages: &Range<u64>, policy: &Policy) {
        let unit = self.pages_of(policy.order);
        let tails = self.tails_of(policy);
        for head in pages.clone().step_by(unit as usize) {
            let is_own = |page| matches!(self.cell(page), Cell::Own { .. });
            if !(head..head + unit).all(is_own) {
                continue;
            }
            for span in self.spans_of(&(head..head + unit)) {
                if self.spans[span] == Span::Huge {
                    self.part_leaf(span);
                }
            }
            let order = policy.order;
            self.set(head, Cell::Own { order, huge: false });
            let key = self.key(tails, policy, head);
            for page in head + 1..head + unit {
                self.set(page, Cell::Tail { order, key });
                self.notes.remove(&page);
            }
        }
        if self.shares_tables(policy) {
            self.merge_tables(pages);
        }
    }

    /// The spans that become huge leaves when `pages` are unfolded.
    pub(super) fn joins(&self, pages: &Range<u64>, policy: &Policy) -> Vec<u64> {
        if !policy.huge_leaves {
            return Vec::new();
        }
        let joins = |span: &usize| {
            Self::covers(pages, &self.span_pages(*span))
                && !matches!(self.spans[*span], Span::Huge | Span::Foreign)
        };
        self.spans_of(pages)
            .filter(joins)
            .map(|span| self.span_pages(span).start)
            .collect()
    }

    /// `pages` are unfolded, with huge leaves at the pages in `huge`.
    pub(super) fn unfold(&mut self, pages: &Range<u64>, huge: &[u64]) {
        for page in pages.clone() {
            if let Cell::Tail { order, .. } = self.cell(page) {
                self.set(page, Cell::Own { order, huge: false });
            }
        }
        for span in self.spans_of(pages) {
            if let Span::Shared(_) = self.spans[span] {
                self.spans[span] = Span::Private;
            }
        }
        self.join(huge);
    }

    /// Huge leaves map what starts at the pages in `huge`.
    pub(super) fn join(&mut self, huge: &[u64]) {
        for first in huge {
            let span = (first / self.layout.table) as usize;
            for page in self.span_pages(span) {
                if let Cell::Own { order, .. } = self.cell(page) {
                    self.set(page, Cell::Own { order, huge: true });
                }
            }
            self.spans[span] = Span::Huge;
        }
    }

    /// Whether tails are shared behind `pages` by a compound page whose head is one of them.
    pub(super) fn has_tails_behind(&self, pages: &Range<u64>) -> bool {
        let last = pages.end - 1;
        let Cell::Own { order, .. } = self.cell(last) else {
            return false;
        };
        let unit = self.pages_of(order);
        let end = last - last % unit + unit;
        let is_tail = |page| matches!(self.cell(page), Cell::Tail { order: other, key } if other == order && !heads::is_of_stubs(&key));
        (pages.end..end.min(self.layout.pages())).any(is_tail)
    }

    /// The descriptors of `pages` become those of pages of `order`.
    pub(super) fn reshape(&mut self, pages: &Range<u64>, order: u8) {
        for page in pages.clone() {
            if let Cell::Own { huge, .. } = self.cell(page) {
                self.set(page, Cell::Own { order, huge });
            }
        }
    }
}

/// Why pages cannot be folded, unfolded or reshaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoldRefusal {
    /// Some of the pages have packed heads, and keep their order.
    Packed,
    NotOnline,
    OtherTails,
}
