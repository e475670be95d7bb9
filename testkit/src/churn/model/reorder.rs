//! Pages that become pages of another order.

use super::{Cell, Key, Model, Policy, Span};
use crate::page_orders::PageOrders;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Tables, Tails};
use std::collections::BTreeSet;
use std::ops::Range;

impl Model {
    /// The pages that there are.
    fn orders(&self) -> PageOrders<impl Fn(u64) -> Option<u8>> {
        PageOrders {
            vmemmap_page: self.layout.model.vmemmap_page_order().get(),
            table: self.layout.table,
            order_at: |page| self.cells.get(page as usize).and_then(|cell| cell.order()),
        }
    }

    /// See [`PageOrders::whole`].
    pub(in crate::churn) fn whole(&self, part: &Range<u64>) -> Option<Range<u64>> {
        self.orders().whole(part)
    }

    /// See [`PageOrders::largest`].
    pub(in crate::churn) fn largest_order(&self, pages: &Range<u64>) -> u8 {
        self.orders().largest(pages)
    }

    /// See [`PageOrders::units_by_tails`].
    pub(in crate::churn) fn units(
        &self,
        part: &Range<u64>,
        policy: &Policy,
    ) -> Result<[Range<u64>; 2], ErrorKind> {
        let tails_of = |order| self.tails_of(&Policy { order, ..*policy });
        let is_own_tail = |page, order| match self.cell(page) {
            Cell::Tail { key, .. } => {
                key == Key::Compound(order, page - page % self.pages_of(order))
            }
            _ => false,
        };
        self.orders().units_by_tails(
            part,
            policy.order,
            |order| tails_of(order) == Tails::PerCompound,
            is_own_tail,
        )
    }

    /// Whether all of `pages` are ours.
    pub(in crate::churn) fn is_ours(&self, pages: &Range<u64>) -> bool {
        self.orders().are_ours(pages)
    }

    /// Whether `pages`, which are online, are whole pages of whatever orders.
    pub(in crate::churn) fn are_whole(&self, pages: &Range<u64>) -> bool {
        self.orders().are_whole(pages)
    }

    /// How many pages have frames of their own once `part` has become pages of the policy's order.
    pub(in crate::churn) fn own_then(&self, part: &Range<u64>, policy: &Policy) -> u64 {
        let Some(whole) = self.whole(part) else {
            return 0;
        };
        let pages = self
            .orders()
            .pages_then(&whole, part, policy.order)
            .into_iter();
        pages
            .map(
                |(_, count, order)| match self.tails_of(&Policy { order, ..*policy }) {
                    Tails::None => count,
                    Tails::PerOrder if policy.packed => 0,
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
        let then = self.orders().pages_then(unit, part, policy.order);
        let mut changed = BTreeSet::new();
        for &(head, count, order) in &then {
            let policy = Policy { order, ..*policy };
            let tails = self.tails_of(&policy);
            for page in head..head + count {
                let before = self.cell(page);
                let is_own = tails == Tails::None || page == head && !self.packs(&policy);
                let huge = matches!(before, Cell::Own { huge: true, .. });
                let cell = match is_own {
                    true => Cell::Own { order, huge },
                    false => Cell::Tail {
                        order,
                        key: self.key(tails, &policy, head),
                    },
                };
                // What the kernel wrote stays in what was a first one and is one, or a tail and is one.
                let keeps = is_own || page == head;
                if !keeps || self.is_first(page, before) != Some(page == head) {
                    self.notes.remove(&page);
                }
                if before != cell {
                    changed.insert((page / self.layout.table) as usize);
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
                Span::Huge if !all_own || is_whole && !policy.huge_leaves => self.part_leaf(span),
                // Where nothing else changes, it is not looked at whose the rest of it is.
                Span::Shared(_) if !is_whole && !changed.contains(&span) => {}
                Span::Shared(_) => self.spans[span] = Span::Private,
                Span::Huge | Span::Private | Span::Foreign => {}
            }
            if policy.huge_leaves && all_own && is_whole && self.spans[span] == Span::Private {
                candidates.push(pages.start);
            }
        }
        if self.has_tables && policy.tables == Tables::Shared {
            // Stubs of what changes and of what is left of a page are not looked at together.
            for span in self.spans_of(unit) {
                let pages = self.span_pages(span);
                let mut then = then.iter();
                let is_one = Self::covers(part, &pages)
                    || then.any(|(head, count, _)| Self::covers(&(*head..head + count), &pages));
                if is_one && Self::covers(unit, &pages) {
                    self.merge_tables(&pages);
                }
            }
        }
        candidates
    }
}
