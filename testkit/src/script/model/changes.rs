//! What comes online and goes offline.

use super::{Contents, Kind, Model, Page, Table, packs, sharing_of};
use crate::script::op::Request;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::pagemap::{Tables, Tails};
use std::collections::BTreeSet;
use std::ops::Range;

/// Says which frame the reader of bytes sees at a page.
pub(in crate::script) type Seen<'a> = &'a dyn Fn(u64) -> Option<u64>;

/// The descriptors of pages of `order`, written for `node`.
pub(super) fn written_for(order: u8, node: u32) -> Contents {
    Contents {
        order,
        born: order,
        node: node as u8,
        reserved: false,
    }
}

impl Model {
    /// Enters `piece` of `request`, with huge leaves at the pages in `huge`.
    pub(in crate::script) fn enter(
        &mut self,
        request: &Request,
        piece: PfnRange,
        huge: &BTreeSet<u64>,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        let pages = self.scale.pages(piece);
        let altmap = request.altmap();
        let base_pages = request.base_pages().map(|part| self.scale.pages(part));
        let reserved = altmap.map(|part| self.scale.pages(part));
        let is_reserved = |number| reserved.as_ref().is_some_and(|part| part.contains(&number));
        let sharing = sharing_of(&self.scale, request);
        let packs = packs(&self.scale, request.order.get(), request.packed);
        let unit = self.scale.unit(request.order.get());
        let mut tail: Option<(u64, Page)> = None;
        for number in pages.clone() {
            let frame = seen(number).ok_or(format!("page {number:#x} is not mapped"))?;
            let is_base = base_pages
                .as_ref()
                .is_some_and(|part| part.contains(&number));
            let order = if is_base { 0 } else { request.order.get() };
            let head = number - number % unit;
            let of_all = sharing == Tails::PerOrder;
            let is_tail = sharing != Tails::None && !is_base && (number != head || packs);
            let page = Page {
                frame,
                kind: match is_tail {
                    true if packs => Kind::Stub,
                    true => Kind::Tail { of_all },
                    false => Kind::Own {
                        huge: huge.contains(&self.span_of(number).start),
                    },
                },
                contents: Contents {
                    reserved: is_reserved(number),
                    ..written_for(order, request.node)
                },
            };
            if !is_tail {
                self.check_source(number, frame, altmap)?;
                self.set(number, Some(page));
                continue;
            }
            // One for each compound page, or one for all.
            let of = if of_all { 0 } else { head };
            let known = match tail.filter(|(same, _)| *same == of) {
                Some((_, known)) if known.frame == frame => known,
                Some((_, known)) => {
                    return Err(format!("page {number:#x}: tail {frame:#x}, not {known:x?}"));
                }
                None if of_all => self.tail_of_all(number, page)?,
                None => self.tail(number, page, altmap)?,
            };
            tail = Some((of, known));
            self.set(number, Some(known));
        }
        for span in self.spans(&pages) {
            let is_huge = huge.contains(&span.start);
            let shared = (request.tables == Tables::Shared)
                .then(|| self.only_tail(&span))
                .flatten()
                .filter(|_| pages.start <= span.start && span.end <= pages.end)
                .filter(|_| self.tables.leaf_table(span.start).is_none());
            self.tables
                .make(span.start, !is_huge && shared.is_none(), Table::Ours);
            if let Some(frame) = shared {
                self.tables
                    .set_leaf_table(span.start, Some(Table::Shared(frame)));
            }
        }
        self.touch(pages);
        Ok(())
    }

    /// All of `request` has come online: tables that are alike become one, unless each came with
    /// one step.
    pub(in crate::script) fn settle(&mut self, request: &Request) {
        let describes = self.scale.per_table * self.scale.per_page;
        let small = self.step(request).is_some_and(|step| step < describes);
        let order = request.order.get();
        let sharing = sharing_of(&self.scale, request);
        let packs = packs(&self.scale, order, request.packed) && request.tables == Tables::Shared;
        if small && (packs || self.shares_tables(order, sharing, request.tables)) {
            for range in &request.ranges {
                self.merge(&self.scale.pages(*range));
            }
        }
    }

    /// Whether leaf tables of compound pages of `order` can be alike, and are to be shared. Those of stubs always can.
    pub(super) fn shares_tables(&self, order: u8, tails: Tails, tables: Tables) -> bool {
        tables == Tables::Shared
            && tails != Tails::None
            && self.scale.unit(order) >= 2 * self.scale.per_table
    }

    /// Makes one table of those that lie in `pages` and are nothing but one tail frame.
    pub(super) fn merge(&mut self, pages: &Range<u64>) {
        let spans: Vec<u64> = self.whole_spans(pages).collect();
        for start in spans {
            let span = self.span_of(start);
            if self.tables.leaf_table(start) == Some(Table::Ours)
                && let Some(frame) = self.only_tail(&span)
            {
                self.tables
                    .set_leaf_table(start, Some(Table::Shared(frame)));
            }
        }
    }

    /// The tail frame that all pages of `span` are mapped to.
    fn only_tail(&self, span: &Range<u64>) -> Option<u64> {
        let first = self.page(span.start).filter(Page::is_tail)?;
        let same = |page: Page| (page.frame, page.kind) == (first.frame, first.kind);
        let alike = span.clone().all(|page| self.page(page).is_some_and(same));
        alike.then_some(first.frame)
    }

    /// Frames come from the altmap, if there is one, or from RAM.
    pub(super) fn check_source(
        &self,
        number: u64,
        frame: u64,
        altmap: Option<PfnRange>,
    ) -> Result<(), String> {
        let right = match altmap {
            Some(altmap) => Pfn::new(frame).is_some_and(|frame| altmap.contains(frame)),
            None => !self.is_device(frame),
        };
        match right {
            true => Ok(()),
            false => Err(format!(
                "page {number:#x}: frame {frame:#x} comes from elsewhere"
            )),
        }
    }

    /// The tail `page` of a compound page: its frame is one that another piece of that has, where
    /// one has one that is not another altmap's; else a new one.
    pub(super) fn tail(
        &self,
        number: u64,
        page: Page,
        altmap: Option<PfnRange>,
    ) -> Result<Page, String> {
        let unit = self.scale.unit(page.contents.order);
        let head = number - number % unit;
        let others = self.mapped_in(head..head + unit).map(|(_, other)| other);
        let mut others = others.filter(|other| {
            other.kind == page.kind
                && other.contents.order == page.contents.order
                && !self.other_altmap(other.frame, altmap)
        });
        let mut known = false;
        let same = others.find(|other| {
            known = true;
            other.frame == page.frame
        });
        match (same, known) {
            (Some(same), _) => Ok(same),
            (None, true) => Err(format!("page {number:#x}: another tail frame, {page:x?}")),
            (None, false) => self.new_tail(number, page, altmap),
        }
    }

    /// The tail `page` of all compound pages of its order and node: its frame is that of the others,
    /// else a new one of RAM.
    pub(super) fn tail_of_all(&self, number: u64, page: Page) -> Result<Page, String> {
        let key = |page: &Page| (page.kind, page.contents.order, page.contents.node);
        let mut known = self.pages.iter().flatten();
        match known.find(|known| key(known) == key(&page)) {
            Some(known) if known.frame == page.frame => Ok(*known),
            Some(known) => Err(format!(
                "page {number:#x}: {page:x?}, that of all is {known:x?}"
            )),
            None => self.new_tail(number, page, None),
        }
    }

    fn new_tail(&self, number: u64, page: Page, altmap: Option<PfnRange>) -> Result<Page, String> {
        if self.tails.contains_key(&page.frame) {
            return Err(format!("page {number:#x}: {page:x?} is another's"));
        }
        self.check_source(number, page.frame, altmap)?;
        Ok(page)
    }

    /// Takes out `piece`. What reaches across its ends is split first. Answers with how many of
    /// its frames were marked.
    pub(in crate::script) fn take_piece(&mut self, piece: PfnRange) -> u64 {
        let pages = self.scale.pages(piece);
        for span in self.straddlers(&pages) {
            self.part(&span);
        }
        self.take_out(&pages);
        self.take_marks(piece)
    }

    /// What one leaf or a shared table maps gets a table of its own.
    fn part(&mut self, span: &Range<u64>) {
        self.split(span);
        if let Some(Table::Shared(_)) = self.tables.leaf_table(span.start) {
            self.tables.set_leaf_table(span.start, Some(Table::Ours));
        }
    }

    /// The spans of huge leaves and shared tables that reach across an end of `pages`.
    pub(in crate::script) fn straddlers(&self, pages: &Range<u64>) -> Vec<Range<u64>> {
        let whole = |span: &Range<u64>| pages.start <= span.start && span.end <= pages.end;
        let one_leaf = |span: &Range<u64>| {
            let shared = matches!(self.tables.leaf_table(span.start), Some(Table::Shared(_)));
            shared || self.own_page(span.start).is_some_and(|page| page.is_huge())
        };
        self.spans(pages)
            .filter(|span| !whole(span) && one_leaf(span))
            .collect()
    }

    /// The huge leaf of `span`, if it is one of the library's, becomes base pages.
    pub(super) fn split(&mut self, span: &Range<u64>) -> bool {
        if !self.own_page(span.start).is_some_and(|page| page.is_huge()) {
            return false;
        }
        for number in span.clone() {
            if let Some(page) = self.page(number) {
                let kind = Kind::Own { huge: false };
                self.set(number, Some(Page { kind, ..page }));
            }
        }
        self.tables.make(span.start, true, Table::Ours);
        self.touch(span.clone());
        true
    }

    /// The spans of huge leaves and shared tables that a region of `ranges` has a part of, but for
    /// those of other altmaps than its own.
    pub(in crate::script) fn split_by_region(
        &self,
        ranges: &[PfnRange],
        altmap: Option<PfnRange>,
    ) -> Vec<Range<u64>> {
        let split = ranges.iter().map(|range| self.scale.pages(*range));
        let split = split.flat_map(|pages| self.straddlers(&pages));
        let own = split.filter(|span| !self.is_of_other_altmap(span.start, altmap));
        own.collect()
    }

    fn is_of_other_altmap(&self, number: u64, altmap: Option<PfnRange>) -> bool {
        let page = self.own_page(number);
        page.is_some_and(|page| self.other_altmap(page.frame, altmap))
    }

    /// How many frames of `ranges` are described in frames of other altmaps than this.
    pub(in crate::script) fn frames_in_other_altmaps(
        &self,
        ranges: &[PfnRange],
        altmap: Option<PfnRange>,
    ) -> u64 {
        let pages = ranges.iter().flat_map(|range| self.scale.pages(*range));
        let others = pages.filter(|page| self.is_of_other_altmap(*page, altmap));
        others.count() as u64 * self.scale.per_page
    }

    /// Takes out a region of `ranges` with this altmap: all that is online there, but for what is
    /// in frames of other altmaps, and but for the spans `kept`. Answers with how many frames that
    /// went were marked.
    pub(in crate::script) fn take_region(
        &mut self,
        ranges: &[PfnRange],
        altmap: Option<PfnRange>,
        kept: &[Range<u64>],
    ) -> u64 {
        for span in self.split_by_region(ranges, altmap) {
            if !kept.contains(&span) {
                self.part(&span);
            }
        }
        let mut marked = 0;
        for range in ranges {
            let pages = self.scale.pages(*range);
            let mut parts: Vec<Range<u64>> = Vec::new();
            for number in pages {
                let is_kept = kept.iter().any(|span| span.contains(&number));
                if is_kept || self.is_of_other_altmap(number, altmap) {
                    continue;
                }
                match parts.last_mut() {
                    Some(part) if part.end == number => part.end += 1,
                    _ => parts.push(number..number + 1),
                }
            }
            for part in parts {
                self.take_out(&part);
                let frames = self.scale.frames(&part);
                marked += frames.map_or(0, |frames| self.take_marks(frames));
            }
        }
        marked
    }

    /// Takes out all of `pages` that is this library's, none of it mapped together with others.
    fn take_out(&mut self, pages: &Range<u64>) {
        for span in self.spans(pages) {
            let part = pages.start.max(span.start)..pages.end.min(span.end);
            for number in part.clone() {
                if self.own_page(number).is_some() {
                    self.set(number, None);
                }
            }
            self.forget_written(part.clone());
            if let Some(Table::Shared(_)) = self.tables.leaf_table(span.start) {
                self.tables.set_leaf_table(span.start, None);
            }
            self.touch(part);
        }
        self.tables.sweep(pages);
        self.touch(pages.clone());
    }

    fn take_marks(&mut self, frames: PfnRange) -> u64 {
        let range = frames.start().get()..=frames.last().get();
        let gone: Vec<u64> = self.marks.range(range).copied().collect();
        for frame in &gone {
            self.marks.remove(frame);
        }
        gone.len() as u64
    }
}
