//! What becomes of memory that is folded, unfolded or reshaped.

use super::changes::{Seen, written_for};
use super::{Contents, Expected, Kind, Model, Page, Table, packs};
use crate::script::op::Change;
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Tables, Tails};
use std::collections::BTreeSet;
use std::ops::Range;

/// The pagemap of a change.
#[derive(Clone, Copy, Debug)]
pub(in crate::script) struct Use {
    pub(in crate::script) order: Order,
    /// How tails are shared, as far as they can be.
    pub(in crate::script) tails: Tails,
    pub(in crate::script) tables: Tables,
    pub(in crate::script) node: u32,
    pub(in crate::script) huge_leaves: bool,
    /// Whether heads are packed, where they can be.
    pub(in crate::script) packed: bool,
    pub(in crate::script) altmap: Option<PfnRange>,
}

/// How many compound pages have their tails shared, and how many have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::script) struct Survey {
    pub(in crate::script) folded: u64,
    pub(in crate::script) unfolded: u64,
}

impl Model {
    /// Whether `frames` can be changed, by a pagemap of `ranges` that is used so; and what they are.
    pub(in crate::script) fn survey(
        &self,
        change: Change,
        ranges: &[PfnRange],
        frames: PfnRange,
        used: &Use,
        same_for_all: bool,
    ) -> Result<Survey, Expected> {
        let unit = used.order.frames().max(self.scale.per_page);
        if !frames.start().get().is_multiple_of(unit) || !frames.frames().is_multiple_of(unit) {
            return Err(Expected::refused(ErrorKind::Misaligned));
        }
        if !ranges.iter().any(|range| range.contains_range(frames)) {
            return Err(Expected::refused(ErrorKind::OutOfRange));
        }
        if used.altmap.is_some_and(|altmap| altmap.overlaps(frames)) {
            return Err(Expected::refused(ErrorKind::Overlap));
        }
        // Readers find whole pages, so a part of one is refused before anything else is looked at.
        if self.has_readers() && change != Change::Unfold {
            match self.depopulate(used.altmap, frames) {
                Expected::Done => {}
                refused => return Err(refused),
            }
            if !self.orders().are_whole(&self.scale.pages(frames)) {
                return Err(Expected::refused(ErrorKind::Misaligned));
            }
        }
        // Pages with packed heads keep them.
        let pages = self.scale.pages(frames);
        if packs(&self.scale, used.order.get(), used.packed) || self.has_packed(&pages) {
            return Err(Expected::refused(ErrorKind::Unsupported));
        }
        let differ = used.tails == Tails::PerOrder && !same_for_all;
        if change == Change::Fold && (used.tails == Tails::None || differ) {
            return Err(Expected::refused(ErrorKind::Unsupported));
        }
        let survey = self.survey_pages(&pages, used)?;
        if change == Change::Reshape {
            let is_tail = |number: &u64| self.page(*number).is_some_and(|page| page.is_tail());
            let tail = pages.clone().find(is_tail);
            let tail = tail.or_else(|| self.tail_behind(&pages));
            if let Some(page) = tail {
                return Err(Expected::Refused(ErrorKind::Overlap, Some(page)));
            }
        }
        Ok(survey)
    }

    /// Whether there is something to change in the compound page of `pages`.
    pub(in crate::script) fn fits(&self, change: Change, pages: &Range<u64>, order: Order) -> bool {
        let is = |kind: fn(&Page) -> bool| {
            move |number: u64| self.own_page(number).is_some_and(|page| kind(&page))
        };
        let tails = pages.clone().skip(1);
        is(|page| !page.is_tail())(pages.start)
            && match change {
                Change::Fold | Change::Reshape => tails.into_iter().all(is(|page| !page.is_tail())),
                Change::Unfold => {
                    let right = |page: Page| page.is_tail() && page.contents.order == order.get();
                    let mut tails = tails.map(|number| self.own_page(number).is_some_and(right));
                    pages.end - pages.start > 1 && tails.all(|fits| fits)
                }
            }
    }

    fn survey_pages(&self, pages: &Range<u64>, used: &Use) -> Result<Survey, Expected> {
        let unit = self.scale.unit(used.order.get());
        let mut survey = Survey::default();
        let mut tails = 0;
        for number in pages.clone() {
            let Some(page) = self.own_page(number) else {
                return Err(Expected::Refused(ErrorKind::NotOnline, Some(number)));
            };
            if self.other_altmap(page.frame, used.altmap) {
                return Err(Expected::refused(ErrorKind::Unsupported));
            }
            if page.is_tail() {
                let is_other = page.contents.order != used.order.get() || page.kind == Kind::Stub;
                if is_other || number % unit == 0 {
                    return Err(Expected::Refused(ErrorKind::Overlap, Some(number)));
                }
                tails += 1;
            }
            if (number + 1) % unit == 0 {
                match std::mem::take(&mut tails) {
                    0 => survey.unfolded += 1,
                    tails if tails == unit - 1 => survey.folded += 1,
                    _ => {
                        let head = number + 1 - unit;
                        return Err(Expected::Refused(ErrorKind::Overlap, Some(head)));
                    }
                }
            }
        }
        Ok(survey)
    }

    /// The first tail behind `pages` of a compound page whose head is in the last of them.
    fn tail_behind(&self, pages: &Range<u64>) -> Option<u64> {
        let last = pages.end - 1;
        let order = self.page(last)?.contents.order;
        let unit = self.scale.unit(order);
        let mut behind = pages.end..(last / unit + 1) * unit;
        behind.find(|number| {
            let page = self.own_page(*number);
            let is_tail = |page: Page| page.is_tail() && page.kind != Kind::Stub;
            page.is_some_and(|page| is_tail(page) && page.contents.order == order)
        })
    }

    /// The compound pages of `frames` whose tails are not shared are folded. Answers with how many
    /// huge leaves were split.
    pub(in crate::script) fn fold(
        &mut self,
        frames: PfnRange,
        used: &Use,
        seen: Seen<'_>,
    ) -> Result<u64, String> {
        let order = used.order.get();
        let unit = self.scale.unit(order);
        let pages = self.scale.pages(frames);
        let mut splits = 0;
        let mut of_all = None;
        for head in pages.clone().step_by(unit as usize) {
            let second = self.page(head + 1);
            let (Some(first), Some(second)) = (self.page(head), second) else {
                return Err(format!("page {head:#x} should be online"));
            };
            if second.is_tail() {
                continue;
            }
            let spans: Vec<_> = self.spans(&(head..head + unit)).collect();
            splits += spans.iter().filter(|span| self.split(span)).count() as u64;
            let contents = Contents {
                order,
                ..first.contents
            };
            let kind = Kind::Own { huge: false };
            self.set(
                head,
                Some(Page {
                    kind,
                    contents,
                    ..first
                }),
            );
            let tail = match (used.tails, of_all) {
                (Tails::PerOrder, Some(tail)) => tail,
                (Tails::PerOrder, None) => {
                    let tail = Page {
                        frame: seen(head + 1).ok_or("a tail is not mapped")?,
                        kind: Kind::Tail { of_all: true },
                        contents: written_for(order, used.node),
                    };
                    *of_all.insert(self.tail_of_all(head + 1, tail)?)
                }
                _ => Page {
                    frame: second.frame,
                    kind: Kind::Tail { of_all: false },
                    contents: written_for(order, used.node),
                },
            };
            for number in head + 1..head + unit {
                self.set(number, Some(tail));
            }
            self.forget_written(head + 1..head + unit);
        }
        if self.shares_tables(order, used.tails, used.tables) {
            self.merge(&pages);
        }
        self.touch(pages);
        Ok(splits)
    }

    /// The spans in `frames`, which are online, that a huge leaf could map: their first pages.
    pub(in crate::script) fn joins(&self, frames: PfnRange) -> Vec<u64> {
        let spans = self.whole_spans(&self.scale.pages(frames));
        let small = |start: &u64| {
            let table = self.tables.leaf_table(*start);
            table != Some(Table::Foreign) && self.page(*start).is_some_and(|page| !page.is_huge())
        };
        spans.filter(small).collect()
    }

    /// How many single frames unfolding takes, where the spans in `joined` become huge leaves.
    pub(in crate::script) fn singles(&self, frames: PfnRange, joined: &[u64], order: Order) -> u64 {
        let unit = self.scale.unit(order.get());
        let joined: BTreeSet<u64> = joined.iter().copied().collect();
        let needs = |(number, page): &(u64, Page)| {
            page.is_tail()
                && !joined.contains(&self.span_of(*number).start)
                && !keeps(*number, page, unit)
        };
        self.mapped_in(self.scale.pages(frames))
            .filter(needs)
            .count() as u64
    }

    /// All tails of `frames` get frames of their own, and the spans in `joined` huge leaves.
    pub(in crate::script) fn unfold(
        &mut self,
        frames: PfnRange,
        joined: &[u64],
        used: &Use,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        let unit = self.scale.unit(used.order.get());
        let pages = self.scale.pages(frames);
        let joined: BTreeSet<u64> = joined.iter().copied().collect();
        for number in pages.clone() {
            let Some(page) = self.page(number) else {
                return Err(format!("page {number:#x} should be online"));
            };
            let huge = joined.contains(&self.span_of(number).start);
            let stays = !page.is_tail() || keeps(number, &page, unit);
            if stays && !huge {
                let kind = Kind::Own {
                    huge: page.is_huge(),
                };
                self.set(number, Some(Page { kind, ..page }));
                continue;
            }
            let frame = seen(number).ok_or(format!("page {number:#x} is not mapped"))?;
            self.check_source(number, frame, used.altmap)?;
            let kind = Kind::Own { huge };
            self.set(
                number,
                Some(Page {
                    frame,
                    kind,
                    ..page
                }),
            );
        }
        for span in self.spans(&pages) {
            let shared = matches!(self.tables.leaf_table(span.start), Some(Table::Shared(_)));
            if joined.contains(&span.start) {
                self.tables.set_leaf_table(span.start, None);
            } else if shared {
                self.tables.set_leaf_table(span.start, Some(Table::Ours));
            }
        }
        self.touch(pages);
        Ok(())
    }

    /// The descriptors of `frames` become those of pages of `order`.
    pub(in crate::script) fn reshape(&mut self, frames: PfnRange, order: Order) {
        let pages = self.scale.pages(frames);
        for number in pages.clone() {
            if let Some(page) = self.page(number) {
                let contents = Contents {
                    order: order.get(),
                    ..page.contents
                };
                self.set(number, Some(Page { contents, ..page }));
            }
        }
        self.touch(pages);
    }
}

/// Whether a tail page stays with its frame when it is unfolded: the first of a compound page does,
/// with the compound page's own tail frame.
fn keeps(number: u64, page: &Page, unit: u64) -> bool {
    number % unit == 1 && page.kind == Kind::Tail { of_all: false }
}
