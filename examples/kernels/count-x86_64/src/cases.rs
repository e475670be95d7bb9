//! What is counted: the cases of `figures::Counted`, which is hosted.

use arch_x86_64::MODEL_4_LEVEL;
use mm_core::addr::PfnRange;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};

pub const GIB: u64 = 1 << 30;

/// A policy, and the two sizes whose difference is taken, in GiB.
pub struct Case {
    pub pages: &'static str,
    pub tails: &'static str,
    pub tables: &'static str,
    pub piece: &'static str,
    pub sizes: [u64; 2],
}

/// As on the explorer's command line.
pub const CASES: [Case; 6] = [
    case(["1G", "per-order", "shared", "section"], [64, 128]),
    case(["1G", "per-order", "shared", "range"], [64, 128]),
    case(["1G", "per-compound", "private", "section"], [64, 128]),
    case(["2M", "per-order", "private", "section"], [16, 32]),
    case(["2M", "per-compound", "private", "section"], [16, 32]),
    case(["4K", "none", "private", "section"], [4, 8]),
];

const fn case([pages, tails, tables, piece]: [&'static str; 4], sizes: [u64; 2]) -> Case {
    Case {
        pages,
        tails,
        tables,
        piece,
        sizes,
    }
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
