//! What is counted: the same cases as in the hosted program, from one list.

use arch_x86_64::MODEL_4_LEVEL;
use mm_core::addr::PfnRange;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};

#[path = "../../../../benches/figures/src/cases.rs"]
mod list;

pub const GIB: u64 = 1 << 30;

/// A policy, and the two sizes whose difference is taken, in GiB.
pub struct Case {
    pub pages: &'static str,
    pub tails: &'static str,
    pub tables: &'static str,
    pub piece: &'static str,
    pub sizes: [u64; 2],
}

/// All that are counted.
pub fn cases() -> impl Iterator<Item = Case> {
    list::CASES
        .into_iter()
        .map(|[pages, tails, tables, piece]| Case {
            pages,
            tails,
            tables,
            piece,
            sizes: match pages {
                "1G" => [64, 128],
                "2M" => [16, 32],
                _ => [4, 8],
            },
        })
}

impl Case {
    /// A pagemap of `ranges`.
    pub fn pagemap<'r>(&self, ranges: &'r [PfnRange]) -> Option<DevPagemap<'r>> {
        let granule = MODEL_4_LEVEL.granule();
        let geometry = match self.pages {
            "1G" => Geometry::from_bytes(GIB, granule)?,
            "2M" => Geometry::from_bytes(2 << 20, granule)?,
            _ => Geometry::BASE_PAGES,
        };
        let pagemap = DevPagemap::new(&MODEL_4_LEVEL, ranges, geometry).ok()?;
        Some(
            pagemap
                .with_tails(match self.tails {
                    "per-order" => Tails::PerOrder,
                    "per-compound" => Tails::PerCompound,
                    _ => Tails::None,
                })
                .with_tables(match self.tables {
                    "shared" => Tables::Shared,
                    _ => Tables::Private,
                })
                .with_piece(match self.piece {
                    "range" => Piece::Range,
                    _ => Piece::Section,
                }),
        )
    }
}
