//! What vmemmap of a region costs by closed formulas, on any backend.

use hosted::BackendKind;
use mm_core::addr::Order;
use std::collections::BTreeSet;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 64;

/// What decides how many tables a backend needs.
pub(crate) struct Geometry {
    pub(crate) backend: &'static str,
    /// Bytes of a page.
    pub(crate) page: u64,
    /// The base-2 logarithm of what an entry of the root translates.
    root_entry: u32,
    pub(crate) has_tables: bool,
    /// The sizes of natural compound pages.
    pub(crate) natural: [u64; 2],
    /// Bytes of a section.
    section: u64,
    /// Bytes of a subsection.
    subsection: u64,
    /// Where the vmemmap and packed heads begin, and how many places the largest half of these is for, in
    /// base pages.
    vmemmap: u64,
    heads: u64,
    room: u64,
}

/// That of every backend.
pub(crate) fn all() -> impl Iterator<Item = Geometry> {
    BackendKind::ALL.into_iter().map(Geometry::of)
}

/// What compound pages with packed heads cost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Frames that hold heads.
    pub(crate) heads: u64,
    pub(crate) leaf_tables: u64,
    pub(crate) upper_tables: u64,
}

/// How many tables map a region.
pub(crate) struct Tables {
    /// Leaf tables, if no huge leaf maps anything.
    pub(crate) leaf: u64,
    /// Tables above them, without the root.
    pub(crate) upper: u64,
    /// How many of the leaf tables map nothing but the region.
    pub(crate) whole: u64,
}

impl Geometry {
    fn of(backend: BackendKind) -> Self {
        let model = backend.model();
        let granule = model.granule();
        let page = granule.bytes();
        let bytes = |order: Order| order.frames() * page;
        let table = page / 8 * page;
        let index_bits = (page / 8).ilog2();
        // A plain map has none, and the model of x86-64.
        let levels = match backend.table_levels() {
            0 => 4,
            levels => levels,
        };
        Self {
            backend: backend.name(),
            page,
            root_entry: page.ilog2() + (levels - 1) * index_bits,
            has_tables: backend.has_tables(),
            // What an entry above the leaf tables translates, and the next in size that is used.
            natural: [table, if table < GIB / 2 { GIB } else { 16 * GIB }],
            section: bytes(model.section()),
            subsection: bytes(model.subsection()),
            vmemmap: model.config().vmemmap_base.get(),
            heads: model.heads().unwrap().start().get(),
            room: model.all_frames().frames().next_power_of_two(),
        }
    }

    /// Entries of a table.
    pub(crate) const fn entries(&self) -> u64 {
        self.page / 8
    }

    /// Vmemmap pages of `bytes` of memory.
    pub(crate) const fn vmemmap_pages(&self, bytes: u64) -> u64 {
        bytes / self.page * DESCRIPTOR / self.page
    }

    /// The memory that the entries of a leaf table, or a huge leaf, describe.
    pub(crate) const fn leaf_table_describes(&self) -> u64 {
        self.entries() * self.page / DESCRIPTOR * self.page
    }

    /// Whether a piece is as large as what a huge leaf describes, wherever the region is.
    pub(crate) fn huge_leaf_fits(&self, piece: &str) -> bool {
        match piece {
            "subsection" => false,
            "section" => self.section >= self.leaf_table_describes(),
            _ => true,
        }
    }

    /// The tables for `bytes` of memory at `start`.
    pub(crate) fn tables(&self, start: u64, bytes: u64) -> Tables {
        // The vmemmap begins where an entry of the root does.
        let offset = |at: u64| at / self.page * DESCRIPTOR;
        let (first, end) = (offset(start), offset(start + bytes));
        let touched = |span: u32| ((end - 1) >> span) - (first >> span) + 1;
        let leaf_span = self.page.ilog2() + self.entries().ilog2();
        let spans = (leaf_span..=self.root_entry).step_by(self.entries().ilog2() as usize);
        let tables: Vec<u64> = spans.map(touched).collect();
        Tables {
            leaf: tables[0],
            upper: tables[1..].iter().sum(),
            whole: (end >> leaf_span).saturating_sub(first.div_ceil(1 << leaf_span)),
        }
    }

    /// What `bytes` of memory at `start`, whole leaf tables of it, cost in pages of `align` bytes whose heads are packed.
    pub(crate) fn packed(&self, start: u64, bytes: u64, align: u64, shared: bool) -> Packed {
        let per_page = align / self.page;
        let place = |at: u64| self.heads + (self.room + at / self.page) / per_page * DESCRIPTOR;
        let heads = [place(start), place(start + bytes - 1)];
        let descriptor = |at: u64| self.vmemmap + at / self.page * DESCRIPTOR;
        let stubs = [descriptor(start), descriptor(start + bytes - 1)];
        let spans = |ends: &[[u64; 2]], span: u32| {
            let all = ends
                .iter()
                .flat_map(|[first, last]| first >> span..=last >> span);
            all.collect::<BTreeSet<u64>>().len() as u64
        };
        let index_bits = self.entries().ilog2();
        let leaf_span = self.page.ilog2() + index_bits;
        let above = (leaf_span + index_bits..=self.root_entry).step_by(index_bits as usize);
        let of_stubs = if shared {
            1
        } else {
            spans(&[stubs], leaf_span)
        };
        let tables = |tables: u64| if self.has_tables { tables } else { 0 };
        Packed {
            heads: spans(&[heads], self.page.ilog2()),
            leaf_tables: tables(of_stubs + spans(&[heads], leaf_span)),
            upper_tables: tables(above.map(|span| spans(&[stubs, heads], span)).sum()),
        }
    }

    /// Frames that hold the descriptors of `pages` compound pages of `align` bytes, and that of all
    /// their tails.
    pub(crate) fn compound_frames(&self, tails: &str, align: u64, pages: u64) -> [u64; 2] {
        match tails {
            "per-compound" => [2 * pages, 0],
            "per-order" => [pages, 1],
            _ => [self.vmemmap_pages(align * pages), 0],
        }
    }

    /// Leaf tables of `pages` compound pages of `align` bytes, of which `private` tables do not
    /// share any.
    pub(crate) fn compound_tables(
        &self,
        tails: &str,
        tables: &str,
        align: u64,
        pages: u64,
        private: u64,
    ) -> u64 {
        let fills_some = self.vmemmap_pages(align) / self.entries() > 1;
        match (tables, tails) {
            // The first table of each compound page has its head; the others are alike.
            ("shared", "per-compound") if fills_some => 2 * pages,
            ("shared", "per-order") if fills_some => pages + 1,
            _ => private,
        }
    }

    /// How many frames hold the counts of an altmap of so many bytes: 64 bytes, and 4 for each of its
    /// frames.
    pub(crate) fn altmap_counts(&self, altmap: u64) -> u64 {
        (64 + 4 * altmap / self.page).div_ceil(self.page)
    }

    /// The bytes of the smallest altmap for `bytes` in pages of `align`, and of all that it makes
    /// base pages.
    pub(crate) fn smallest_altmap(&self, tails: &str, align: u64, bytes: u64) -> [u64; 2] {
        let fits = |altmap: u64| {
            let base = altmap.next_multiple_of(align);
            let pages = bytes.saturating_sub(base) / align;
            let [own, _] = self.compound_frames(tails, align, pages);
            (own + self.vmemmap_pages(base) + self.altmap_counts(altmap)) * self.page <= altmap
        };
        let sizes = (1..).map(|subsections| subsections * self.subsection);
        let altmap = sizes.into_iter().find(|altmap| fits(*altmap)).unwrap_or(0);
        [altmap, altmap.next_multiple_of(align)]
    }
}
