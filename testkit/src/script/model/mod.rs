//! What should be: every page of the vmemmap, every table, every mark, changed by plain rules that
//! know no code of the library's.
//!
//! - `answers`: what an operation has to answer;
//! - `changes`: what comes online and goes offline;
//! - `folds`: what becomes of memory that is folded, unfolded or reshaped;
//! - `reorder`: what becomes of memory whose pages change their order;
//! - `found`: what readers find, and how many references there are;
//! - `heads`: which heads are packed, and where they are;
//! - `tables`: which tables there are;
//! - `costs`: what all of it costs.
//!
//! The model does not choose frames. Those that the library has chosen are seen by the reader of
//! bytes, must be such as the rules allow, and have to stay.

mod answers;
mod changes;
mod costs;
mod folds;
mod found;
mod heads;
mod reorder;
mod tables;

pub(super) use answers::Expected;
pub(super) use costs::Costs;
pub(super) use folds::{Survey, Use};
pub(super) use found::Described;
pub(super) use heads::{Head, packs, place};
pub(super) use tables::{Table, Tables};

use super::op::Request;
use super::scale::Scale;
use crate::found::Found;
use crate::listed::Part;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::pagemap::{Tables as Sharing, Tails};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// How a page of the vmemmap is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a frame of its own.
    Own {
        /// Whether by a huge leaf.
        huge: bool,
    },
    /// To a tail frame: that of its compound page, or that of all of its order, which is read-only.
    Tail { of_all: bool },
    /// To the stubs of all compound pages of its order whose heads are packed, which are read-only.
    Stub,
    /// By somebody else.
    Foreign { huge: bool },
}

/// What the descriptors in a page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Of pages of this order.
    pub(super) order: u8,
    /// They were written as parts of pages of this order.
    pub(super) born: u8,
    /// On this node.
    pub(super) node: u8,
    /// They were written as those of frames that an altmap reserves.
    pub(super) reserved: bool,
}

/// A page of the vmemmap that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) frame: u64,
    pub(super) kind: Kind,
    pub(super) contents: Contents,
}

impl Page {
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.kind, Kind::Foreign { .. })
    }

    pub(super) fn is_tail(&self) -> bool {
        matches!(self.kind, Kind::Tail { .. } | Kind::Stub)
    }

    pub(super) fn is_huge(&self) -> bool {
        matches!(
            self.kind,
            Kind::Own { huge: true } | Kind::Foreign { huge: true }
        )
    }

    /// Whether stores are allowed: not to what belongs to many compound pages.
    pub(super) fn is_writable(&self) -> bool {
        self.kind != Kind::Tail { of_all: true } && self.kind != Kind::Stub
    }
}

/// The pages of the vmemmap, by number, and all else that there is.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) scale: Scale,
    window: PfnRange,
    pages: Vec<Option<Page>>,
    /// How many pages are mapped to each tail frame.
    tails: HashMap<u64, u64>,
    /// How many pages are this library's, how many of them have a frame of their own, and how many
    /// of those frames are an altmap's.
    mapped: u64,
    own: u64,
    own_of_altmaps: u64,
    pub(super) tables: Tables,
    pub(super) marks: BTreeSet<u64>,
    /// What the kernel has written into descriptors, by frame.
    pub(super) written: BTreeMap<u64, u64>,
    /// What the altmaps of regions reserve.
    pub(super) altmaps: Vec<PfnRange>,
    /// The pages that were changed last.
    touched: Vec<Range<u64>>,
    /// What readers find, if there are any.
    found: Option<Found>,
    /// What the descriptors in a page say, where that does not follow from its contents.
    described: HashMap<u64, Box<[Described]>>,
    heads: heads::Heads,
    /// How many references readers have to pages, by first frame.
    pub(super) held: BTreeMap<u64, u32>,
    /// What is in reserve, of both nodes.
    pub(super) reserve: Reserved,
    /// How many frames it takes to remember shared tails and tables, as the machine says.
    pub(super) records: u64,
}

/// Frames in reserve: single ones and those of blocks together, and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) frames: u64,
    pub(super) tables: u64,
}

impl Model {
    pub(super) fn new(scale: Scale, window: PfnRange, tables: Tables, has_readers: bool) -> Self {
        Self {
            scale,
            window,
            pages: vec![None; scale.window_pages() as usize],
            tails: HashMap::new(),
            mapped: 0,
            own: 0,
            own_of_altmaps: 0,
            tables,
            marks: BTreeSet::new(),
            written: BTreeMap::new(),
            altmaps: Vec::new(),
            touched: Vec::new(),
            found: has_readers.then(|| Found::new(scale.pages(window))),
            described: HashMap::new(),
            heads: heads::Heads::default(),
            held: BTreeMap::new(),
            reserve: Reserved::default(),
            records: 0,
        }
    }

    /// The pages of the window.
    pub(super) fn all_pages(&self) -> Range<u64> {
        self.scale.pages(self.window)
    }

    fn index(&self, page: u64) -> Option<usize> {
        let first = self.window.start().get() / self.scale.per_page;
        usize::try_from(page.checked_sub(first)?).ok()
    }

    pub(super) fn page(&self, page: u64) -> Option<Page> {
        self.pages.get(self.index(page)?).copied().flatten()
    }

    /// A page that is this library's.
    pub(super) fn own_page(&self, page: u64) -> Option<Page> {
        self.page(page).filter(Page::is_ours)
    }

    /// How a page is mapped, if it is this library's and no altmap reserves what it describes.
    pub(super) fn listed_part(&self, number: u64) -> Option<Part> {
        let page = self.own_page(number)?;
        let first = Pfn::new(number * self.scale.per_page)?;
        if self.is_reserved(first) {
            return None;
        }
        Some(Part {
            order: page.contents.order,
            tails: match page.kind {
                Kind::Tail { of_all: true } | Kind::Stub => Tails::PerOrder,
                Kind::Tail { of_all: false } => Tails::PerCompound,
                _ => Tails::None,
            },
            tables: match self.tables.leaf_table(number) {
                Some(Table::Shared(_)) => Sharing::Shared,
                _ => Sharing::Private,
            },
            packed: page.kind == Kind::Stub,
        })
    }

    /// The pages of `range` that are mapped, with their numbers.
    pub(super) fn mapped_in(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Page)> + '_ {
        range.filter_map(|number| Some((number, self.page(number)?)))
    }

    /// Whether `frame` is memory of the window, as altmaps' frames are.
    pub(super) fn is_device(&self, frame: u64) -> bool {
        Pfn::new(frame).is_some_and(|frame| self.window.contains(frame))
    }

    /// Maps a page otherwise, or not at all.
    fn set(&mut self, number: u64, page: Option<Page>) {
        let index = self.index(number);
        let Some(slot) = index.and_then(|index| self.pages.get_mut(index)) else {
            return;
        };
        let old = std::mem::replace(slot, page);
        if old == page {
            return;
        }
        if let Some(old) = old {
            let device = u64::from(self.is_device(old.frame));
            match old.kind {
                Kind::Own { .. } => {
                    self.own -= 1;
                    self.own_of_altmaps -= device;
                }
                Kind::Tail { .. } | Kind::Stub => {
                    if let Some(entries) = self.tails.get_mut(&old.frame) {
                        *entries -= 1;
                        if *entries == 0 {
                            self.tails.remove(&old.frame);
                        }
                    }
                }
                Kind::Foreign { .. } => {}
            }
            self.mapped -= u64::from(old.is_ours());
        }
        if let Some(new) = page {
            let device = u64::from(self.is_device(new.frame));
            match new.kind {
                Kind::Own { .. } => {
                    self.own += 1;
                    self.own_of_altmaps += device;
                }
                Kind::Tail { .. } | Kind::Stub => *self.tails.entry(new.frame).or_default() += 1,
                Kind::Foreign { .. } => {}
            }
            self.mapped += u64::from(new.is_ours());
        }
        self.tables.count(number, old.as_ref(), page.as_ref());
        self.set_head(number, old, page);
        let is_own = |page: &Page| matches!(page.kind, Kind::Own { .. });
        if !(old.as_ref().is_some_and(is_own) && page.as_ref().is_some_and(is_own)) {
            self.described.remove(&number);
        }
        let kind = |page: Option<Page>| page.filter(Page::is_ours).map(found::kind);
        if let Some(found) = &mut self.found
            && kind(old) != kind(page)
        {
            for kind in [kind(old), kind(page)].into_iter().flatten() {
                found.change(number, self.scale.unit(found::order_of(kind)));
            }
        }
    }

    /// Writes down that `pages` are changed.
    fn touch(&mut self, pages: Range<u64>) {
        self.touched.push(pages);
    }

    /// Writes down that something in `pages` may have changed.
    pub(super) fn touch_all(&mut self, pages: &Range<u64>) {
        self.touch(pages.clone());
    }

    /// The pages that were changed since the last time.
    pub(super) fn take_touched(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.touched)
    }

    /// The span of a leaf table or huge leaf that has `page`.
    pub(super) fn span_of(&self, page: u64) -> Range<u64> {
        let first = page - page % self.scale.per_table;
        first..first + self.scale.per_table
    }

    /// The spans that `pages` touch.
    pub(super) fn spans(&self, pages: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let per_table = self.scale.per_table;
        let spans = pages.start / per_table..pages.end.div_ceil(per_table);
        spans.map(move |span| span * per_table..(span + 1) * per_table)
    }

    /// Somebody else maps a page, or a huge leaf's worth. `frame` is the first.
    pub(super) fn map_foreign(&mut self, first: u64, pages: u64, frame: u64) {
        for index in 0..pages {
            let page = Page {
                frame: frame + index,
                kind: Kind::Foreign { huge: pages > 1 },
                contents: Contents {
                    order: 0,
                    born: 0,
                    reserved: false,
                    node: 0,
                },
            };
            self.set(first + index, Some(page));
        }
        self.tables.make(first, pages == 1, Table::Foreign);
        self.touch(first..first + pages);
    }

    /// Somebody else's leaf at a page goes.
    pub(super) fn unmap_foreign(&mut self, first: u64) {
        let pages = match self.page(first) {
            Some(page) if page.is_huge() => self.scale.per_table,
            _ => 1,
        };
        for page in first..first + pages {
            self.set(page, None);
        }
        self.touch(first..first + pages);
    }

    /// Forgets what the kernel has written into the descriptors of `pages`.
    fn forget_written(&mut self, pages: Range<u64>) {
        if self.written.is_empty() {
            return;
        }
        let frames = pages.start * self.scale.per_page..pages.end * self.scale.per_page;
        let gone: Vec<u64> = self
            .written
            .range(frames)
            .map(|(frame, _)| *frame)
            .collect();
        for frame in gone {
            self.written.remove(&frame);
        }
    }

    /// How many frames of `frames` are marked.
    pub(super) fn marked(&self, frames: PfnRange) -> u64 {
        let range = frames.start().get()..=frames.last().get();
        self.marks.range(range).count() as u64
    }
}

/// How tails are shared that are asked for so, where heads are in place.
pub(super) fn sharing(scale: &Scale, order: u8, tails: Tails) -> Tails {
    let unit = scale.unit(order);
    match tails {
        Tails::PerCompound if unit > 2 => Tails::PerCompound,
        Tails::PerOrder if unit > 1 => Tails::PerOrder,
        _ => Tails::None,
    }
}

/// How `request` shares tails: stubs are those of all pages of an order.
pub(super) fn sharing_of(scale: &Scale, request: &Request) -> Tails {
    let order = request.order.get();
    match packs(scale, order, request.packed) {
        true => Tails::PerOrder,
        false => sharing(scale, order, request.tails),
    }
}
