//! What memory has to cost, by closed formulas over page, descriptor and compound size.

use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Tables, Tails};
use mm_core::vmemmap::AuditReport;
use std::collections::BTreeSet;

/// Memory, and how it is used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// The frames, whole pages of `order`.
    pub frames: PfnRange,
    /// The pages that they are used in.
    pub order: Order,
    /// How tails are shared.
    pub tails: Tails,
    /// Whether all that huge leaves can map is mapped by those.
    pub huge_leaves: bool,
}

impl Used {
    /// Compound pages of `order`.
    pub const fn compound(frames: PfnRange, order: Order, tails: Tails) -> Self {
        Self {
            frames,
            order,
            tails,
            huge_leaves: false,
        }
    }

    /// Base pages.
    pub const fn base_pages(frames: PfnRange, huge_leaves: bool) -> Self {
        Self {
            frames,
            order: Order::BASE,
            tails: Tails::None,
            huge_leaves,
        }
    }
}

/// The sizes of a backend, as far as formulas need them.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The frames that a vmemmap page describes.
    per_page: u64,
    /// The base-2 logarithm of the vmemmap pages that a leaf table maps, and of the tables that one
    /// above it links.
    index_bits: u32,
    /// How many levels of tables there are below the root.
    levels: u32,
}

impl Costs {
    /// Those of `kind` with descriptors as `model` says.
    pub fn of(kind: BackendKind, model: &MemoryModel) -> Self {
        let granule = model.granule();
        Self {
            per_page: granule.bytes() / model.descriptor_bytes(),
            index_bits: granule.shift() - 3,
            levels: kind.table_levels().saturating_sub(1),
        }
    }

    /// What was counted, with an altmap of `reserved` frames in use: 64 bytes, and 4 for each.
    pub fn with_altmap(self, report: AuditReport, reserved: PfnRange) -> AuditReport {
        AuditReport {
            count_frames: (64 + 4 * reserved.frames()).div_ceil(8 << self.index_bits),
            ..report
        }
    }

    /// How many vmemmap pages describe a page of `order`.
    pub fn pages(self, order: Order) -> u64 {
        order.frames().div_ceil(self.per_page)
    }

    /// How tails are shared in pages of `order`: not where that would save nothing.
    pub fn tails(self, order: Order, tails: Tails) -> Tails {
        let own = match tails {
            Tails::PerCompound => 2,
            Tails::PerOrder => 1,
            _ => return Tails::None,
        };
        match order > Order::BASE && self.pages(order) > own {
            true => tails,
            false => Tails::None,
        }
    }

    /// What all of `used` costs, on one node.
    pub fn report(self, used: &[Used], tables: Tables) -> AuditReport {
        let mut descriptor_frames = 0;
        let mut mapped_pages = 0;
        let mut orders = BTreeSet::new();
        // Leaf tables of their own, spans that a huge leaf maps, and tail frames with a table.
        let mut leaf_tables = BTreeSet::new();
        let mut huge = BTreeSet::new();
        let mut shared_spans = BTreeSet::new();
        let mut shared = BTreeSet::new();
        for one in used {
            let first = one.frames.start().get() / self.per_page;
            let pages = one.frames.frames() / self.per_page;
            let compounds = one.frames.frames() >> one.order.get();
            let in_compound = self.pages(one.order);
            let tails = self.tails(one.order, one.tails);
            mapped_pages += pages;
            descriptor_frames += match tails {
                Tails::PerCompound => 2 * compounds,
                Tails::PerOrder => {
                    orders.insert(one.order);
                    compounds
                }
                _ => pages,
            };
            let table = 1 << self.index_bits;
            for span in first / table..=(first + pages - 1) / table {
                let whole = first <= span * table && (span + 1) * table <= first + pages;
                let compound = span * table / in_compound;
                let behind_head = span * table > compound * in_compound;
                let all_tails = (span + 1) * table <= (compound + 1) * in_compound && behind_head;
                if one.huge_leaves && tails == Tails::None && whole {
                    huge.insert(span);
                } else if tables == Tables::Shared && tails != Tails::None && all_tails {
                    shared_spans.insert(span);
                    shared.insert((one.order, (tails == Tails::PerCompound).then_some(compound)));
                } else {
                    leaf_tables.insert(span);
                }
            }
        }
        let spans: BTreeSet<u64> = [&leaf_tables, &huge, &shared_spans]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let upper_tables = (1..self.levels).map(|level| {
            let above = |span: &u64| span >> (level * self.index_bits);
            let tables: BTreeSet<u64> = spans.iter().map(above).collect();
            tables.len() as u64
        });
        let upper_tables = upper_tables.sum();
        let leaf_tables = match self.levels {
            0 => 0,
            _ => (leaf_tables.len() + shared.len()) as u64,
        };
        AuditReport {
            descriptor_frames: descriptor_frames + orders.len() as u64,
            head_frames: 0,
            leaf_tables,
            upper_tables,
            mapped_pages,
            mark_frames: 0,
            online_map_frames: 0,
            record_frames: 0,
            reserve_frames: 0,
            count_frames: 0,
        }
    }
}
