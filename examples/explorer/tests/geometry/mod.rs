//! What vmemmap of a region costs by closed formulas, on any backend.
#![allow(dead_code, reason = "each test binary uses what it needs")]

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
}

const SMALL: Geometry = Geometry {
    backend: "x86_64",
    page: 0x1000,
    root_entry: 39,
    has_tables: true,
    natural: [2 * MIB, GIB],
    section: 128 * MIB,
    subsection: 2 * MIB,
};

pub(crate) const BACKENDS: [Geometry; 6] = [
    Geometry {
        backend: "sim",
        has_tables: false,
        ..SMALL
    },
    SMALL,
    Geometry {
        backend: "x86_64-la57",
        root_entry: 48,
        ..SMALL
    },
    Geometry {
        backend: "aarch64-4k",
        ..SMALL
    },
    Geometry {
        backend: "aarch64-16k",
        page: 0x4000,
        root_entry: 47,
        natural: [32 * MIB, GIB],
        subsection: 4 * MIB,
        ..SMALL
    },
    Geometry {
        backend: "aarch64-64k",
        page: 0x1_0000,
        root_entry: 42,
        natural: [512 * MIB, 16 * GIB],
        section: 512 * MIB,
        subsection: 64 * MIB,
        ..SMALL
    },
];

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

    /// The bytes of the smallest altmap for `bytes` in pages of `align`, and of all that it makes
    /// base pages.
    pub(crate) fn smallest_altmap(&self, tails: &str, align: u64, bytes: u64) -> [u64; 2] {
        let fits = |altmap: u64| {
            let base = altmap.next_multiple_of(align);
            let pages = bytes.saturating_sub(base) / align;
            let [own, _] = self.compound_frames(tails, align, pages);
            (own + self.vmemmap_pages(base)) * self.page <= altmap
        };
        let sizes = (1..).map(|subsections| subsections * self.subsection);
        let altmap = sizes.into_iter().find(|altmap| fits(*altmap)).unwrap_or(0);
        [altmap, altmap.next_multiple_of(align)]
    }
}
