//! What becomes of memory whose pages change their order.

use super::changes::{Seen, written_for};
use super::{Described, Expected, Kind, Model, Page, Table, Use, packs, sharing};
use mm_core::addr::PfnRange;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Tables, Tails};
use std::ops::Range;

impl Model {
    /// Whether `frames` can be asked for, by a pagemap of `ranges` that is used so.
    pub(in crate::script) fn reorder_request(
        &self,
        ranges: &[PfnRange],
        frames: PfnRange,
        used: &Use,
        same_for_all: bool,
    ) -> Expected {
        if !frames.is_aligned(used.order) {
            return Expected::refused(ErrorKind::Misaligned);
        }
        if !ranges.iter().any(|range| range.contains_range(frames)) {
            return Expected::refused(ErrorKind::OutOfRange);
        }
        match (used.tails == Tails::PerOrder || used.packed) && !same_for_all {
            true => Expected::refused(ErrorKind::Unsupported),
            false => Expected::Done,
        }
    }

    /// The units that the first step of a change of `part` can be about.
    pub(in crate::script) fn units(
        &self,
        part: &Range<u64>,
        used: &Use,
    ) -> Result<[Range<u64>; 2], Expected> {
        let is_there = |page: u64| self.own_page(page).is_some();
        if !is_there(part.start) || !is_there(part.end - 1) {
            return Err(self.all_ours(part, used.altmap));
        }
        let tails_of = |order| used.sharing(self, order);
        let is_own_tail = |number, order| {
            let page = self.own_page(number);
            page.is_some_and(|page| {
                page.kind == Kind::Tail { of_all: false } && page.contents.order == order
            })
        };
        let units = self.orders().units_by_tails(
            part,
            used.order.get(),
            |order| tails_of(order) == Tails::PerCompound,
            is_own_tail,
        );
        let by_tails = units.map_err(Expected::refused)?;
        let all = self.orders().units(part, used.order.get());
        let all = all.map_err(Expected::refused)?;
        // What is refused is refused as a whole.
        Ok(match self.reorder_unit(&all[1], used) {
            Expected::Done => by_tails,
            Expected::Refused(..) => all,
        })
    }

    /// Whether all of `pages` is this library's, in frames of RAM or of `altmap`.
    fn all_ours(&self, pages: &Range<u64>, altmap: Option<PfnRange>) -> Expected {
        match self.scale.frames(pages) {
            Some(frames) => self.depopulate(altmap, frames),
            None => Expected::refused(ErrorKind::OutOfRange),
        }
    }

    /// Whether `unit` can be changed, if there is enough in reserve.
    pub(in crate::script) fn reorder_unit(&self, unit: &Range<u64>, used: &Use) -> Expected {
        let Some(frames) = self.scale.frames(unit) else {
            return Expected::refused(ErrorKind::OutOfRange);
        };
        let of_own = used.altmap.is_some_and(|altmap| altmap.overlaps(frames));
        let reserved = match of_own || self.other_reserving(frames, None).is_some() {
            true => Expected::refused(ErrorKind::Overlap),
            false => Expected::Done,
        };
        reserved
            .and(|| self.usable(used.altmap))
            .and(|| self.all_ours(unit, used.altmap))
    }

    /// How many vmemmap pages have frames of their own once `part` has changed.
    pub(in crate::script) fn own_then(&self, part: &Range<u64>, used: &Use) -> u64 {
        let orders = self.orders();
        let Some(whole) = orders.whole(part) else {
            return 0;
        };
        let then = orders.pages_then(&whole, part, used.order.get());
        let own = |(_, count, order): (u64, u64, u8)| match used.sharing(self, order) {
            _ if packs(&self.scale, order, used.packed) => 0,
            Tails::None => count,
            _ => 1,
        };
        then.into_iter().map(own).sum()
    }

    /// `unit` becomes what the change of `part` makes of it. Pages that did not begin where they do have
    /// `references`. Answers with the first pages of what may be mapped by huge leaves now.
    pub(in crate::script) fn reorder(
        &mut self,
        unit: &Range<u64>,
        part: &Range<u64>,
        used: &Use,
        references: u32,
        seen: Seen<'_>,
    ) -> Result<Vec<u64>, String> {
        let then = self.orders().pages_then(unit, part, used.order.get());
        let shares = |order: u8| used.sharing(self, order) != Tails::None;
        let packed = |order: u8| packs(&self.scale, order, used.packed);
        let mut tails: Vec<Range<u64>> = Vec::new();
        for (head, count, order) in &then {
            if packed(*order) {
                tails.push(*head..head + count);
            } else if shares(*order) {
                tails.push(head + 1..head + count);
            }
        }
        let has_tails = |pages: &Range<u64>| {
            let mut tails = tails.iter();
            tails.any(|tails| tails.start < pages.end && pages.start < tails.end)
        };
        for span in self.spans(unit) {
            let in_unit = unit.start.max(span.start)..unit.end.min(span.end);
            let is_unwanted = in_unit == span && !used.huge_leaves;
            if has_tails(&in_unit) || is_unwanted {
                self.split(&span);
            }
        }
        let kind = |page: Option<Page>| page.map(|page| (page.kind, page.frame));
        let before: Vec<_> = unit.clone().map(|page| kind(self.page(page))).collect();
        for (head, count, order) in then.clone() {
            self.reorder_page(head..head + count, order, used, references, seen)?;
        }
        for span in self.spans(unit) {
            let mut in_unit = unit.start.max(span.start)..unit.end.min(span.end);
            let is_whole = in_unit == span;
            let has_changed = |page: u64| {
                before.get((page - unit.start) as usize) != Some(&kind(self.page(page)))
            };
            // Where nothing else changes, it is not looked at whose the rest of it is.
            if let Some(Table::Shared(_)) = self.tables.leaf_table(span.start)
                && (is_whole || in_unit.any(has_changed))
            {
                self.tables.set_leaf_table(span.start, Some(Table::Ours));
            }
        }
        let mut candidates = Vec::new();
        if used.huge_leaves {
            for start in self.whole_spans(unit) {
                let is_huge = self.page(start).is_some_and(|page| page.is_huge());
                let is_foreign = self.tables.leaf_table(start) == Some(Table::Foreign);
                if !is_huge && !is_foreign && !has_tails(&self.span_of(start)) {
                    candidates.push(start);
                }
            }
        }
        if used.tables == Tables::Shared {
            // Stubs of what changes and of what is left of a page are not looked at together.
            let covers = |pages: &Range<u64>, span: &Range<u64>| {
                pages.start <= span.start && span.end <= pages.end
            };
            let spans: Vec<_> = self.spans(unit).collect();
            for span in spans {
                let mut then = then.iter();
                let is_one = covers(part, &span)
                    || then.any(|(head, count, _)| covers(&(*head..head + count), &span));
                if is_one && covers(unit, &span) {
                    self.merge(&span);
                }
            }
        }
        self.touch(unit.clone());
        Ok(candidates)
    }

    /// `pages` become one page of `order`, or smaller ones that one of them describes.
    fn reorder_page(
        &mut self,
        pages: Range<u64>,
        order: u8,
        used: &Use,
        references: u32,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        if packs(&self.scale, order, used.packed) {
            return self.pack_page(pages, order, used, references, seen);
        }
        let sharing = used.sharing(self, order);
        let of_all = sharing == Tails::PerOrder;
        let mut tail: Option<Page> = None;
        for number in pages.clone() {
            let there = seen(number).ok_or(format!("page {number:#x} is not mapped"))?;
            let before = self.own_page(number);
            let before = before.ok_or(format!("page {number:#x} should be online"))?;
            if sharing != Tails::None && number != pages.start {
                let known = match tail {
                    Some(known) => known,
                    None => {
                        let new = Page {
                            frame: there,
                            kind: Kind::Tail { of_all },
                            contents: written_for(order, used.node),
                        };
                        let known = match of_all {
                            true => self.tail_of_all(number, new),
                            false => self.tail(number, new, used.altmap),
                        };
                        *tail.insert(known?)
                    }
                };
                if known.frame != there {
                    return Err(format!("page {number:#x}: tail {there:#x}, not {known:x?}"));
                }
                self.set(number, Some(known));
                self.forget_written(number..number + 1);
                continue;
            }
            let frame = match before.is_tail() {
                true => {
                    self.check_source(number, there, used.altmap)?;
                    there
                }
                false => before.frame,
            };
            let described = self.described_then(number, &before, order, used.node, references);
            let kind = Kind::Own {
                huge: before.is_huge(),
            };
            let contents = written_for(order, used.node);
            self.set(
                number,
                Some(Page {
                    frame,
                    kind,
                    contents,
                }),
            );
            self.describe(number, described);
        }
        Ok(())
    }

    /// `pages` become one page of `order` with a packed head. If a page began there before, it is what that was.
    fn pack_page(
        &mut self,
        pages: Range<u64>,
        order: u8,
        used: &Use,
        references: u32,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        let first = pages.start;
        let before = self.own_page(first);
        let before = before.ok_or(format!("page {first:#x} should be online"))?;
        let frame = first * self.scale.per_page;
        let began = frame.is_multiple_of(1 << before.contents.order);
        let kept = self.own_before(first, frame, &before).filter(|_| began);
        let written = self.written.get(&frame).copied().filter(|_| kept.is_some());
        let stub = Page {
            frame: seen(first).ok_or(format!("page {first:#x} is not mapped"))?,
            kind: Kind::Stub,
            contents: written_for(order, used.node),
        };
        let stub = self.tail_of_all(first, stub)?;
        for number in pages.clone() {
            if seen(number) != Some(stub.frame) {
                return Err(format!("page {number:#x} is not mapped to {stub:x?}"));
            }
            self.set(number, Some(stub));
        }
        self.forget_written(pages);
        self.written.extend(written.map(|value| (frame, value)));
        let node = used.node as u8;
        self.describe_head(first, kept.unwrap_or(Described { references, node }));
        Ok(())
    }

    /// What the descriptors in a page that has a frame of its own say when its memory has become pages of
    /// `order`. What began where a page begins now stays, and so does a tail that was one in a frame of its
    /// own.
    fn described_then(
        &mut self,
        number: u64,
        before: &Page,
        order: u8,
        node: u32,
        references: u32,
    ) -> Vec<Described> {
        let per_page = self.scale.per_page;
        let is_first = |frame: u64, order: u8| frame.is_multiple_of(1 << order);
        let describe = |frame: u64| {
            let begins = is_first(frame, order);
            let stays = begins == is_first(frame, before.contents.order);
            match self.own_before(number, frame, before).filter(|_| stays) {
                Some(described) => described,
                None => Described {
                    references: if begins { references } else { 0 },
                    node: node as u8,
                },
            }
        };
        let frames = number * per_page..(number + 1) * per_page;
        let described = frames.clone().map(describe).collect();
        let is_new = |frame: &u64| {
            self.own_before(number, *frame, before).is_none()
                || is_first(*frame, order) != is_first(*frame, before.contents.order)
        };
        let written = self.written.range(frames).map(|(frame, _)| *frame);
        for frame in written.filter(is_new).collect::<Vec<_>>() {
            self.written.remove(&frame);
        }
        described
    }

    /// Huge leaves map what starts at the pages in `joined`.
    pub(in crate::script) fn join(
        &mut self,
        joined: &[u64],
        altmap: Option<PfnRange>,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        for first in joined {
            for number in self.span_of(*first) {
                let frame = seen(number).ok_or(format!("page {number:#x} is not mapped"))?;
                self.check_source(number, frame, altmap)?;
                if let Some(page) = self.own_page(number) {
                    let kind = Kind::Own { huge: true };
                    self.set(
                        number,
                        Some(Page {
                            frame,
                            kind,
                            ..page
                        }),
                    );
                }
            }
            self.tables.set_leaf_table(*first, None);
        }
        Ok(())
    }
}

impl Use {
    /// How tails of pages of `order` are shared: stubs are those of all of them.
    pub(super) fn sharing(&self, model: &Model, order: u8) -> Tails {
        match packs(&model.scale, order, self.packed) {
            true => Tails::PerOrder,
            false => sharing(&model.scale, order, self.tails),
        }
    }
}
