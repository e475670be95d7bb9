//! A few cases, in the order in which they were added.

use super::Case;
use crate::{Cost, TableShape};
use mm_core::model::MemoryModel;

/// At most `N` cases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CaseList<const N: usize> {
    cases: [Case; N],
    used: usize,
}

impl<const N: usize> CaseList<N> {
    /// No case yet. `any` fills the places of those to come.
    pub(crate) const fn new(any: Case) -> Self {
        Self {
            cases: [any; N],
            used: 0,
        }
    }

    /// The same with no case yet.
    pub(crate) const fn emptied(&self) -> Self {
        Self { used: 0, ..*self }
    }

    /// Adds `case`. What there is no room for is left out.
    pub(crate) fn add(&mut self, case: Case) {
        if let Some(place) = self.cases.get_mut(self.used) {
            *place = case;
            self.used += 1;
        }
    }

    /// All but `case`.
    pub(crate) fn without(&self, case: &Case) -> Self {
        let mut list = self.emptied();
        let others = self.as_slice().iter().filter(|other| *other != case);
        others.for_each(|other| list.add(*other));
        list
    }

    pub(crate) fn as_slice(&self) -> &[Case] {
        self.cases.get(..self.used).unwrap_or_default()
    }

    /// What all of them cost together, by arithmetic.
    pub(crate) fn cost(&self, model: &MemoryModel, shape: &TableShape) -> Cost {
        let all = self.as_slice();
        (0..).zip(all).fold(Cost::default(), |sum, (index, case)| {
            let earlier = all.get(..index).unwrap_or_default();
            sum.plus(&Cost::of(case, earlier, model, shape))
        })
    }
}
