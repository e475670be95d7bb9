//! Cutting ranges at multiples of a block.

use crate::addr::{Order, Pfn, PfnRange};

/// The parts of a range between multiples of a block.
#[derive(Clone)]
pub(super) struct Pieces {
    rest: Option<PfnRange>,
    unit: Option<Order>,
}

impl Pieces {
    pub(super) fn new(range: PfnRange, unit: Option<Order>) -> Self {
        Self {
            rest: Some(range),
            unit,
        }
    }
}

impl Iterator for Pieces {
    type Item = PfnRange;

    fn next(&mut self) -> Option<PfnRange> {
        let rest = self.rest?;
        let frames = match self.unit {
            Some(unit) => unit.frames() - (rest.start().get() & (unit.frames() - 1)),
            None => rest.frames(),
        };
        let (piece, rest) = rest.take_first(frames);
        self.rest = rest;
        Some(piece)
    }
}

/// The largest part of `range` that starts and ends at multiples of a block of `unit`.
pub(super) fn aligned_part(range: PfnRange, unit: Order) -> Option<PfnRange> {
    let start = range
        .start()
        .get()
        .checked_next_multiple_of(unit.frames())?;
    let end = (range.last().get() + 1) & !(unit.frames() - 1);
    PfnRange::new(Pfn::new(start)?, end.checked_sub(start)?).ok()
}
