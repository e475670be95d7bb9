//! Pages that become pages of another order.

use super::{Cell, Model, Policy, Span};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Tables, Tails};
use std::ops::Range;

impl Model {
    /// The pages of the vmemmap that describe the page which `page` is part of.
    fn around(&self, page: u64) -> Option<Range<u64>> {
        let unit = self.pages_of(self.cell(page).order()?);
        let first = page - page % unit;
        Some(first..first + unit)
    }

    /// `part`, and the rest of the pages at its ends.
    pub(in crate::churn) fn whole(&self, part: &Range<u64>) -> Option<Range<u64>> {
        let (first, last) = (self.around(part.start)?, self.around(part.end - 1)?);
        Some(first.start.min(part.start)..last.end.max(part.end))
    }

    /// Whether the pages at the ends of `part`, if they reach beyond it, are all there: no other page is in
    /// the place of some of it.
    fn is_complete(&self, part: &Range<u64>) -> bool {
        [part.start, part.end - 1].into_iter().all(|page| {
            let order = self.cell(page).order();
            let around = self.around(page).filter(|all| !Self::covers(part, all));
            let mut rest = around.unwrap_or(page..page);
            rest.all(|page| !self.cell(page).is_ours() || self.cell(page).order() == order)
        })
    }

    /// The largest order of the pages in `pages`.
    pub(in crate::churn) fn largest_order(&self, pages: &Range<u64>) -> u8 {
        let orders = pages.clone().filter_map(|page| self.cell(page).order());
        orders.max().unwrap_or(0)
    }

    /// The units that the first step of a change of `part` to pages of `order` can be about: a page of the
    /// larger order, or all that a table describes.
    pub(in crate::churn) fn units(
        &self,
        part: &Range<u64>,
        order: u8,
    ) -> Result<[Range<u64>; 2], ErrorKind> {
        let whole = self.whole(part).ok_or(ErrorKind::NotOnline)?;
        if !self.is_complete(part) {
            return Err(ErrorKind::Misaligned);
        }
        let first = self.cell(part.start).order().max(Some(order));
        let of_page = self.pages_of(first.unwrap_or(order));
        let unit = whole.start..whole.start + of_page;
        let table = whole.start..whole.start + self.layout.table;
        let is_group = table.start % self.layout.table == 0
            && of_page <= self.layout.table
            && table.end <= whole.end;
        Ok([unit.clone(), if is_group { table } else { unit }])
    }

    /// Whether all of `pages` are ours.
    pub(in crate::churn) fn is_ours(&self, pages: &Range<u64>) -> bool {
        pages.clone().all(|page| self.cell(page).is_ours())
    }

    /// The pages that `unit` becomes if `part` becomes pages of `order`: their first pages of the vmemmap,
    /// how many they have, and their orders. What is not in `part` is halved until it fits.
    fn pages_then(&self, unit: &Range<u64>, part: &Range<u64>, order: u8) -> Vec<(u64, u64, u8)> {
        let mut pages = Vec::new();
        let in_part = part.start.max(unit.start)..part.end.min(unit.end);
        let vmemmap_page = self.layout.model.vmemmap_page_order().get();
        for rest in [
            unit.start..in_part.start,
            in_part.clone(),
            in_part.end..unit.end,
        ] {
            let mut first = rest.start;
            while first < rest.end {
                let fits = 63 - (rest.end - first).leading_zeros();
                let larger = fits.min(first.trailing_zeros()) as u8 + vmemmap_page;
                let order = if rest == in_part { order } else { larger };
                let count = self.pages_of(order);
                pages.push((first, count, order));
                first += count;
            }
        }
        pages
    }

    /// How many pages have frames of their own once `part` has become pages of the policy's order.
    pub(in crate::churn) fn own_then(&self, part: &Range<u64>, policy: &Policy) -> u64 {
        let Some(whole) = self.whole(part) else {
            return 0;
        };
        let pages = self.pages_then(&whole, part, policy.order).into_iter();
        pages
            .map(
                |(_, count, order)| match self.tails_of(&Policy { order, ..*policy }) {
                    Tails::None => count,
                    _ => 1,
                },
            )
            .sum()
    }

    /// `unit` becomes what the change of `part` makes of it. The answer is the first pages of what may be
    /// mapped by huge leaves now.
    pub(in crate::churn) fn reorder(
        &mut self,
        unit: &Range<u64>,
        part: &Range<u64>,
        policy: &Policy,
    ) -> Vec<u64> {
        for (head, count, order) in self.pages_then(unit, part, policy.order) {
            let policy = Policy { order, ..*policy };
            let tails = self.tails_of(&policy);
            for page in head..head + count {
                let before = self.cell(page);
                let is_own = tails == Tails::None || page == head;
                let huge = matches!(before, Cell::Own { huge: true, .. });
                let cell = match is_own {
                    true => Cell::Own { order, huge },
                    false => Cell::Tail {
                        order,
                        key: self.key(tails, &policy, head),
                    },
                };
                // What the kernel wrote stays in what was a first one and is one, or a tail and is one.
                let was_tail = match before {
                    Cell::Own { order, .. } => Some(page % self.pages_of(order) != 0),
                    _ => None,
                };
                if !is_own || was_tail != Some(page != head) {
                    self.notes.remove(&page);
                }
                self.set(page, cell);
            }
        }
        let mut candidates = Vec::new();
        for span in self.spans_of(unit) {
            let pages = self.span_pages(span);
            let mut in_unit = pages.start.max(unit.start)..pages.end.min(unit.end);
            let is_whole = in_unit == pages;
            let all_own = in_unit.all(|page| matches!(self.cell(page), Cell::Own { .. }));
            match self.spans[span] {
                Span::Huge if !all_own => self.part_leaf(span),
                Span::Shared(_) => self.spans[span] = Span::Private,
                Span::Huge | Span::Private | Span::Foreign => {}
            }
            if policy.huge_leaves && all_own && is_whole && self.spans[span] == Span::Private {
                candidates.push(pages.start);
            }
        }
        if self.has_tables && policy.tables == Tables::Shared {
            self.merge_tables(unit);
        }
        candidates
    }
}
