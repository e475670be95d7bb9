//! Whether a page costs the same in much memory and in very much.

use crate::{Change, Operation, Pages, Piece, Tables, Tails};
use serde::{Deserialize, Serialize};

/// How much memory is much: from here on a page should cost the same.
const MUCH: u64 = 1 << 10;

/// What a compound page costs in the most memory that was measured, beside what it costs in 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// What was done.
    pub operation: Change,
    /// The pages that the memory is used in.
    pub case: Pages,
    /// What tails share.
    pub tails: Tails,
    /// Whether whole tables are shared.
    pub tables: Tables,
    /// How much comes online at a time.
    pub piece: Piece,
    /// The most memory that was measured.
    pub gib: u64,
    /// Nanoseconds for each page in 1 TiB.
    pub ns_per_page: f64,
    /// What a page costs in the most memory, as a multiple of that.
    pub ratio: f64,
}

impl Growth {
    /// What follows from `operations`: those on memory that was used before, of which there were several sizes
    /// from 1 TiB on.
    pub fn of(operations: &[Operation]) -> Vec<Self> {
        let warm = || operations.iter().filter(|of| !of.cold && of.gib >= MUCH);
        let ends = warm().filter(|of| of.gib == MUCH).filter_map(|least| {
            let most = warm()
                .filter(|of| of.is_like(least))
                .max_by_key(|of| of.gib)?;
            (most.gib > MUCH).then(|| Self {
                operation: least.operation,
                case: least.case,
                tails: least.tails,
                tables: least.tables,
                piece: least.piece,
                gib: most.gib,
                ns_per_page: least.ns_per_page,
                ratio: most.ns_per_page / least.ns_per_page,
            })
        });
        ends.collect()
    }
}

impl Operation {
    /// Whether `other` is the same with another amount of memory.
    fn is_like(&self, other: &Self) -> bool {
        let what = |of: &Self| (of.operation, of.case, of.tails, of.tables, of.piece);
        what(self) == what(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_memory_is_set_beside_1_tib_of_the_same() {
        let of = |operation, gib, cold, ns_per_page| Operation {
            operation,
            case: Pages::Size1G,
            tails: Tails::PerOrder,
            tables: Tables::Shared,
            piece: Piece::Range,
            gib,
            cold,
            ns: 0.0,
            ns_per_page,
            frames: 0,
        };
        let operations = [
            of(Change::Online, 64, false, 99.0),
            of(Change::Online, 1 << 10, true, 99.0),
            of(Change::Online, 1 << 10, false, 8.0),
            of(Change::Online, 64 << 10, false, 10.0),
            of(Change::Online, 8 << 10, false, 99.0),
            of(Change::Offline, 1 << 10, false, 3.0),
        ];
        let growth = Growth::of(&operations);
        let ratios: Vec<_> = growth.iter().map(|of| (of.gib, of.ratio)).collect();
        assert_eq!(ratios, [(64 << 10, 1.25)]);
    }
}
