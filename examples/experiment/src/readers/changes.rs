//! Changes of order: what the pages of a case become beside readers, and how they come back.
//!
//! ```text
//!   tails shared        unfold ▶ reshape to base pages ▶ fold
//!                       unfold ▶ reshape to the smaller size ▶ fold ▶ unfold ▶ fold
//!   compound pages      reshape to base pages ▶ reshape
//!                       reshape to the smaller size ▶ reshape
//!                       fold ▶ unfold: a huge leaf is split, and comes back
//!   base pages          fold to the smaller size ▶ unfold ▶ reshape
//!   packed heads        none
//! ```

use crate::Case;
use mm_core::addr::Order;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Heads, Tables, Tails};
use mm_core::vmemmap::Change;

/// What becomes of pages, and what they are then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) change: Change,
    /// The case that the pages would be brought online by.
    pub(super) case: Case,
}

/// The most steps of a round trip.
const MOST_STEPS: usize = 5;

/// Steps that lead back to where they begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip([Option<Step>; MOST_STEPS]);

impl RoundTrip {
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
pub(super) struct RoundTrips {
    round_trips: [Option<RoundTrip>; 3],
    /// The orders that pages have on these.
    pub(super) orders: [Order; 3],
    /// Whether each is made once only: pages of the larger size take long.
    only_once: bool,
}

impl RoundTrips {
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
        let round_trips = if case.heads == Heads::Packed {
            [None; 3]
        } else if case.order == Order::BASE {
            let [fold, unfold] = fold();
            let round_trip = RoundTrip::new([fold, unfold, base]);
            [fits.then_some(round_trip), None, None]
        } else if case.shares_tails(model) {
            let [fold, unfold] = fold();
            let [own_fold, own_unfold] = [Change::Fold, Change::Unfold].map(own);
            let steps = [own_unfold, unshared(smaller), fold, unfold, own_fold];
            [
                is_larger.then(|| RoundTrip::new(steps)),
                Some(RoundTrip::new([own_unfold, base, own_fold])),
                None,
            ]
        } else {
            let back = unshared(case.order);
            let fold = [Change::Fold, Change::Unfold].map(|change| folded(change, case.order));
            [
                shares(case.order).then(|| RoundTrip::new(fold)),
                is_larger.then(|| RoundTrip::new([unshared(smaller), back])),
                Some(RoundTrip::new([base, back])),
            ]
        };
        Self {
            round_trips,
            orders,
            only_once: case.order > smaller,
        }
    }

    /// The round trip number `index`, and again from the first, unless that takes long.
    pub(super) fn get(&self, index: u64) -> Option<&RoundTrip> {
        let count = self.round_trips.iter().flatten().count() as u64;
        let index = match self.only_once {
            true => index,
            false => index.checked_rem(count)?,
        };
        self.round_trips.iter().flatten().nth(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TableShape;
    use crate::readers::PARTS;
    use crate::readers::cases::reader_cases;
    use arch_aarch64::{MODEL_4K, MODEL_16K, MODEL_64K};
    use mm_core::addr::{PfnRange, PhysAddr};

    fn orders_of(model: &MemoryModel, bytes: [u64; 2]) -> [Order; 2] {
        bytes.map(|bytes| Order::from_bytes(bytes, model.granule()).unwrap_or(Order::BASE))
    }

    /// Pages that were folded stay so until they are unfolded, and shared tails are never reshaped.
    #[test]
    fn each_way_leads_back_and_unfolds_before_it_reshapes() {
        for (model, compound) in [
            (MODEL_4K, [2 << 20, 1 << 30]),
            (MODEL_16K, [32 << 20, 1 << 30]),
            (MODEL_64K, [512 << 20, 2 << 30]),
        ] {
            let granule = model.granule();
            let shape = TableShape {
                granule,
                address_bits: 48,
            };
            let device = PfnRange::from_bytes(PhysAddr::new(8 << 30), 8 << 30, granule);
            let compound = orders_of(&model, compound);
            let mut changing = 0;
            for case in device
                .into_iter()
                .flat_map(|device| reader_cases(&model, &shape, device, &compound))
            {
                let part = case.range.frames() / PARTS;
                let round_trips = RoundTrips::of(&case, &model, compound[0], part);
                changing += usize::from(round_trips.get(0).is_some());
                for round_trip in (0..3).map_while(|index| round_trips.get(index)) {
                    let is_shared = case.shares_tails(&model);
                    let (mut order, mut is_folded) = (case.order, is_shared);
                    for step in round_trip.steps() {
                        let to = step.case.order;
                        assert!(round_trips.orders.contains(&to), "{case}: {to}");
                        assert_eq!(is_folded, step.change == Change::Unfold, "{case}");
                        assert!(step.change != Change::Unfold || to == order, "{case}");
                        is_folded = step.change == Change::Fold;
                        order = to;
                    }
                    assert_eq!((order, is_folded), (case.order, is_shared), "{case}");
                }
            }
            assert!(changing > 0, "{granule:?}: {changing}");
        }
    }
}
