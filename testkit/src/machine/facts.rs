//! What is so of a backend.

use hosted::{BackendKind, Inspect};
use mm_core::addr::Order;
use mm_core::model::MemoryModel;

use crate::{OnBackend, WithInspect};

/// What a backend says of itself: see [`hosted::Backend`].
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is called.
    pub name: &'static str,
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// How many levels of tables there are; 0: none.
    pub table_levels: u32,
    /// Whether there are tables below the root that cost frames.
    pub has_tables: bool,
    /// The page table's leaf next in size above a base page.
    pub huge_leaf: Option<Order>,
    /// Whether the page table can link a table from several places.
    pub shares_tables: bool,
    /// For each level above the lowest, the order of what a table of it maps.
    pub table_spans: Vec<u32>,
}

impl Facts {
    /// Those of `kind`.
    pub fn of_kind(kind: BackendKind) -> Self {
        kind.run_inspect(FactsOf)
    }

    /// Those of `B`.
    pub fn of<B: Inspect>() -> Self {
        Self {
            name: B::NAME,
            model: B::MODEL,
            table_levels: B::TABLE_LEVELS,
            has_tables: B::HAS_TABLES,
            huge_leaf: B::HUGE_LEAF,
            shares_tables: B::SHARES_TABLES,
            table_spans: B::table_spans(),
        }
    }
}

struct FactsOf;

impl WithInspect for FactsOf {
    type Output = Facts;

    fn with<B: Inspect>(self) -> Facts {
        Facts::of::<B>()
    }
}
