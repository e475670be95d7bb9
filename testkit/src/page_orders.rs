//! Pages of memory by the vmemmap pages that describe them: which pages a change of order is about, and
//! what they become. Plain arithmetic, which knows no code of the library's.

use mm_core::error::ErrorKind;
use std::ops::Range;

/// What pages there are.
pub(crate) struct PageOrders<F> {
    /// The order of what a vmemmap page describes.
    pub(crate) vmemmap_page: u8,
    /// How many vmemmap pages a leaf table maps.
    pub(crate) table: u64,
    /// By vmemmap page, the order of the pages that it describes, if it is ours.
    pub(crate) order_at: F,
}

impl<F: Fn(u64) -> Option<u8>> PageOrders<F> {
    fn order_at(&self, page: u64) -> Option<u8> {
        (self.order_at)(page)
    }

    /// How many vmemmap pages describe a page of `order`, at least 1.
    pub(crate) fn pages_of(&self, order: u8) -> u64 {
        1 << order.saturating_sub(self.vmemmap_page)
    }

    /// The vmemmap pages that describe the page which `page` is about.
    fn around(&self, page: u64) -> Option<Range<u64>> {
        let unit = self.pages_of(self.order_at(page)?);
        let first = page - page % unit;
        Some(first..first + unit)
    }

    /// `part`, and the rest of the pages at its ends.
    pub(crate) fn whole(&self, part: &Range<u64>) -> Option<Range<u64>> {
        let (first, last) = (self.around(part.start)?, self.around(part.end - 1)?);
        Some(first.start.min(part.start)..last.end.max(part.end))
    }

    /// Whether the pages at the ends of `part`, if they reach beyond it, are all there: no other page is in
    /// the place of some of it.
    fn is_complete(&self, part: &Range<u64>) -> bool {
        self.incomplete(part).is_none()
    }

    /// The order of a page at the ends of `part` that reaches beyond it, and has another page in the place of
    /// some of it.
    pub(crate) fn incomplete(&self, part: &Range<u64>) -> Option<u8> {
        let is_split = |page: &u64| {
            let page = *page;
            let order = self.order_at(page);
            let reaches = |all: &Range<u64>| all.start < part.start || part.end < all.end;
            let mut rest = self.around(page).filter(reaches).unwrap_or(page..page);
            rest.any(|page| {
                self.order_at(page)
                    .is_some_and(|other| Some(other) != order)
            })
        };
        let page = [part.start, part.end - 1].into_iter().find(is_split);
        self.order_at(page?)
    }

    /// The largest order of the pages in `pages`.
    pub(crate) fn largest(&self, pages: &Range<u64>) -> u8 {
        let orders = pages.clone().filter_map(|page| self.order_at(page));
        orders.max().unwrap_or(0)
    }

    /// Whether all of `pages` are ours.
    pub(crate) fn are_ours(&self, pages: &Range<u64>) -> bool {
        pages.clone().all(|page| self.order_at(page).is_some())
    }

    /// Whether `pages`, which are online, are whole pages of whatever orders.
    pub(crate) fn are_whole(&self, pages: &Range<u64>) -> bool {
        let is_in = |all: Range<u64>| pages.start <= all.start && all.end <= pages.end;
        let mut ends = [pages.start, pages.end - 1].into_iter();
        ends.all(|page| self.around(page).is_none_or(is_in))
    }

    /// The units that the first step of a change of `part` to pages of `order` can be about: a page of the
    /// larger order, or all that a table describes.
    pub(crate) fn units(&self, part: &Range<u64>, order: u8) -> Result<[Range<u64>; 2], ErrorKind> {
        let whole = self.whole(part).ok_or(ErrorKind::NotOnline)?;
        if !self.is_complete(part) {
            return Err(ErrorKind::Misaligned);
        }
        let first = self.order_at(part.start).max(Some(order));
        let of_page = self.pages_of(first.unwrap_or(order));
        let unit = whole.start..whole.start + of_page;
        let table = whole.start..whole.start + self.table;
        let is_group = table.start.is_multiple_of(self.table)
            && of_page <= self.table
            && table.end <= whole.end;
        Ok([unit.clone(), if is_group { table } else { unit }])
    }

    /// The same, where a page of which some tails are mapped to its own tail frame already changes by itself, and
    /// keeps that: `shares_own_tail` says whether the tails of pages of an order are to be mapped so, and `is_own_tail`
    /// whether a vmemmap page is.
    pub(crate) fn units_by_tails(
        &self,
        part: &Range<u64>,
        order: u8,
        shares_own_tail: impl Fn(u8) -> bool,
        is_own_tail: impl Fn(u64, u8) -> bool,
    ) -> Result<[Range<u64>; 2], ErrorKind> {
        let [small, large] = self.units(part, order)?;
        let is_partly_there = |(head, count, order): (u64, u64, u8)| {
            let tails = (head + 1..head + count).filter(|page| is_own_tail(*page, order));
            let there = tails.count() as u64;
            shares_own_tail(order)
                && there > 0
                && there < count - 1
                && large != (head..head + count)
        };
        let mut then = self.pages_then(&large, part, order).into_iter();
        match small != large && self.are_ours(&large) && then.any(is_partly_there) {
            true => Ok([small.clone(), small]),
            false => Ok([small, large]),
        }
    }

    /// The pages that `unit` becomes if `part` becomes pages of `order`: their first vmemmap pages, how many
    /// they have, and their orders. What is not in `part` is halved until it fits.
    pub(crate) fn pages_then(
        &self,
        unit: &Range<u64>,
        part: &Range<u64>,
        order: u8,
    ) -> Vec<(u64, u64, u8)> {
        let mut pages = Vec::new();
        let in_part = part.start.max(unit.start)..part.end.min(unit.end);
        for rest in [
            unit.start..in_part.start,
            in_part.clone(),
            in_part.end..unit.end,
        ] {
            let mut first = rest.start;
            while first < rest.end {
                let fits = 63 - (rest.end - first).leading_zeros();
                let larger = fits.min(first.trailing_zeros()) as u8 + self.vmemmap_page;
                let order = if rest == in_part { order } else { larger };
                let count = self.pages_of(order);
                pages.push((first, count, order));
                first += count;
            }
        }
        pages
    }
}
