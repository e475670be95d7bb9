//! Changes of order: what the pages of a case become beside readers, and how they come back.
//!
//! ```text
//!   tails shared        unfold ▶ reshape to base pages ▶ fold
//!                       unfold ▶ reshape to the smaller size ▶ fold ▶ unfold ▶ fold
//!   compound pages      reshape to base pages ▶ reshape
//!                       reshape to the smaller size ▶ reshape
//!                       fold ▶ unfold: a huge leaf is split, and comes back
//!   base pages          fold to the smaller size ▶ unfold ▶ reshape
//! ```

use crate::Case;
use mm_core::addr::Order;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Tables, Tails};
use mm_core::vmemmap::Change;

/// What becomes of pages, and what they are then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) change: Change,
    /// The case that the pages would be brought online by.
    pub(super) case: Case,
}

/// The most steps of a way.
const MOST_STEPS: usize = 5;

/// Steps that lead back to where they begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way([Option<Step>; MOST_STEPS]);

impl Way {
    fn new<const N: usize>(steps: [Step; N]) -> Self {
        let mut steps = steps.into_iter();
        Self([(); MOST_STEPS].map(|()| steps.next()))
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.0.iter().flatten()
    }
}

/// What is done with the pages of a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    ways: [Option<Way>; 3],
    /// The orders that pages have on the way.
    pub(super) orders: [Order; 3],
    /// Whether each way is gone once, since the pages are of the larger size and take long.
    is_once: bool,
}

impl Ways {
    /// Those of `case`, whose parts have `part` frames. `smaller` is the other size of compound pages.
    pub(super) fn of(case: &Case, model: &MemoryModel, smaller: Order, part: u64) -> Self {
        let with = |change, order: Order, tails, tables| Step {
            change,
            case: Case {
                order,
                page_bytes: order.bytes(model.granule()).unwrap_or(case.page_bytes),
                tails,
                tables,
                ..*case
            },
        };
        let own = |change| with(change, case.order, case.tails, case.tables);
        let private = |change, order, tails| with(change, order, tails, Tables::Private);
        let unshared = |order| private(Change::Reshape, order, Tails::None);
        let folded = |change, order| match case.tails {
            Tails::None => private(change, order, Tails::PerCompound),
            tails => private(change, order, tails),
        };
        let shares = |order| folded(Change::Fold, order).case.shares_tails(model);
        let base = unshared(Order::BASE);
        let mut orders = [case.order, Order::BASE, case.order];
        let fits = shares(smaller) && smaller.frames() <= part;
        let is_larger = case.order > smaller && fits;
        if is_larger || case.order == Order::BASE && fits {
            orders = [case.order, Order::BASE, smaller];
        }
        let fold = || [Change::Fold, Change::Unfold].map(|change| folded(change, smaller));
        let ways = if case.order == Order::BASE {
            let [fold, unfold] = fold();
            let way = Way::new([fold, unfold, base]);
            [fits.then_some(way), None, None]
        } else if case.shares_tails(model) {
            let [fold, unfold] = fold();
            let [own_fold, own_unfold] = [Change::Fold, Change::Unfold].map(own);
            let steps = [own_unfold, unshared(smaller), fold, unfold, own_fold];
            [
                is_larger.then(|| Way::new(steps)),
                Some(Way::new([own_unfold, base, own_fold])),
                None,
            ]
        } else {
            let back = unshared(case.order);
            let fold = [Change::Fold, Change::Unfold].map(|change| folded(change, case.order));
            [
                shares(case.order).then(|| Way::new(fold)),
                is_larger.then(|| Way::new([unshared(smaller), back])),
                Some(Way::new([base, back])),
            ]
        };
        Self {
            ways,
            orders,
            is_once: case.order > smaller,
        }
    }

    /// The way number `index`, and again from the first, unless that takes long.
    pub(super) fn get(&self, index: u64) -> Option<&Way> {
        let count = self.ways.iter().flatten().count() as u64;
        let index = match self.is_once {
            true => index,
            false => index.checked_rem(count)?,
        };
        self.ways.iter().flatten().nth(index as usize)
    }
}
