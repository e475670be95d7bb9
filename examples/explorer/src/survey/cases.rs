//! What a survey is made of: geometries with policies, and how much memory each gets.

use crate::args::AltmapSize;
use crate::need::Need;
use crate::request::{Request, heads_name, tails_name};
use crate::size::{ByteRange, ByteSize};
use hosted::{BackendFacts, BackendKind};
use mm_core::addr::{NodeId, Order};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Heads, Piece, Tables, Tails};
use mm_core::vmemmap::Notes;

pub(super) const GIB: u64 = 1 << 30;

/// How much memory there would be at most.
pub(super) const MOST: u64 = 1024 * GIB;

/// The same for a backend without tables: it has an entry for each vmemmap page, whatever is shared,
/// and makes them one by one.
pub(super) const MOST_WITHOUT_TABLES: u64 = 128 * GIB;

/// Where the memory is, and how much of it there would be: 1 TiB behind as much, or half of all that
/// `model` describes, if that is less.
pub(super) fn whole(model: &MemoryModel) -> ByteRange {
    let frames = model.all_frames().frames();
    let all = frames.saturating_mul(model.granule().bytes());
    let half = MOST.min(1 << (all / 2).max(1).ilog2());
    ByteRange {
        start: half,
        size: half,
    }
}

/// How much host memory the descriptors of a region may take; it is halved until they do. Base
/// pages cost the same per GiB whatever their number, so less of them is enough.
pub(super) const fn descriptor_bytes(tails: Tails) -> u64 {
    match tails {
        Tails::None => GIB / 16,
        _ => GIB / 8,
    }
}

/// How much host memory the descriptors of a region to fold may take as base pages. Unfolding takes
/// as much again.
pub(super) const FOLDED_BYTES: u64 = GIB / 16;

/// What is larger as base pages, because one compound page is, is not folded.
pub(super) const MOST_FOLDED_BYTES: u64 = GIB / 2;

/// A geometry with policies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) align: u64,
    pub(super) heads: Heads,
    pub(super) tails: Tails,
    pub(super) tables: Tables,
    pub(super) piece: Piece,
    pub(super) huge_leaves: bool,
    /// Whether descriptors lie in an altmap that is as small as possible.
    pub(super) altmap: bool,
}

impl Case {
    pub(super) fn request(self, backend: BackendKind, range: ByteRange) -> Request {
        Request {
            backend,
            ranges: vec![range],
            align: ByteSize(self.align),
            heads: self.heads,
            tails: Some(self.tails),
            tables: self.tables,
            piece: self.piece,
            huge_leaves: self.huge_leaves,
            altmap: self.altmap.then_some(AltmapSize::Auto),
            node: NodeId::new(0),
            fail_after: None,
        }
    }

    /// What is shared, in a word: packed heads share all else per order.
    pub(super) const fn shares(self) -> &'static str {
        match self.heads {
            Heads::Packed => heads_name(self.heads),
            _ => tails_name(self.tails),
        }
    }

    /// The same with each policy that shares something.
    fn sharing(self) -> impl Iterator<Item = Case> {
        let tables = [Tables::Private, Tables::Shared];
        let tails = [Tails::PerCompound, Tails::PerOrder].into_iter();
        let with = move |tails, altmap| {
            tables.map(|tables| Case {
                tails,
                tables,
                altmap,
                ..self
            })
        };
        let in_place = tails.flat_map(move |tails| {
            [false, true]
                .into_iter()
                .flat_map(move |altmap| with(tails, altmap))
        });
        // Packed heads are in RAM.
        let packed = with(Tails::PerOrder, false).map(|case| Case {
            heads: Heads::Packed,
            ..case
        });
        in_place.chain(packed)
    }

    /// Whether a backend does all of it as asked.
    fn exists_on(self, facts: &BackendFacts) -> bool {
        let request = self.request(BackendKind::Sim, whole(&facts.model));
        let Ok(frames) = request.in_frames(facts.model.granule()) else {
            return false;
        };
        frames.pagemap(&facts.model, None).is_ok_and(|pagemap| {
            Notes::known_ahead(&pagemap, facts.huge_leaf, facts.shares_tables).is_empty()
        })
    }

    /// What the vmemmap is mapped by.
    fn leaf(self, facts: &BackendFacts) -> ByteSize {
        let order = match (self.tails, self.huge_leaves) {
            (Tails::None, true) => facts.huge_leaf.unwrap_or(Order::BASE),
            _ => Order::BASE,
        };
        ByteSize(order.frames() * facts.model.granule().bytes())
    }

    /// The case on a backend, if that does all of it as asked.
    fn on(self, facts: &BackendFacts) -> Option<Row> {
        // Section by section where that leaves a place for huge leaves.
        let pieces = [Piece::Section, Piece::Range];
        let mut cases = pieces.map(|piece| Case { piece, ..self }).into_iter();
        let case = cases.find(|case| case.exists_on(facts))?;
        let leaf = case.leaf(facts);
        let least = described_by(facts, leaf).max(case.align);
        let range = case.largest_range(facts, descriptor_bytes(case.tails), least);
        let row = Row { case, range, leaf };
        // An altmap takes whole pages; the only page of a range cannot be one.
        let fits = !case.altmap || case.has_altmap_in(facts, range);
        fits.then_some(row)
    }

    /// Whether a part of `range` can be an altmap that is large enough.
    fn has_altmap_in(self, facts: &BackendFacts, range: ByteRange) -> bool {
        let request = self.request(BackendKind::Sim, range);
        let frames = request.in_frames(facts.model.granule());
        frames.is_ok_and(|frames| frames.altmap_needed(&facts.model).is_ok())
    }

    /// How many bytes the descriptors of `range` take on a backend; `None` for what is no range.
    fn descriptor_bytes_of(self, facts: &BackendFacts, range: ByteRange) -> Option<u64> {
        let request = self.request(BackendKind::Sim, range);
        let frames = request.in_frames(facts.model.granule()).ok()?;
        let need = Need::of(facts, &frames.pagemap(&facts.model, None).ok()?);
        Some(need.descriptor_frames * facts.model.granule().bytes())
    }

    /// The largest part of [`whole`] whose descriptors fit into `bytes`, but no less than `least`.
    fn largest_range(self, facts: &BackendFacts, bytes: u64, least: u64) -> ByteRange {
        let most = match facts.has_tables {
            true => MOST,
            false => MOST_WITHOUT_TABLES,
        };
        let fits = |range: &ByteRange| {
            // What is no range fails, and is reported, when it is brought online.
            let needed = self.descriptor_bytes_of(facts, *range);
            range.size <= most && needed.is_none_or(|needed| needed <= bytes)
        };
        let half = |range: ByteRange| ByteRange {
            size: range.size / 2,
            ..range
        };
        let mut range = whole(&facts.model);
        while !fits(&range) && range.size > least {
            range = half(range);
        }
        range
    }
}

/// The bytes of memory that a leaf of `leaf` bytes of vmemmap describes.
fn described_by(facts: &BackendFacts, ByteSize(leaf): ByteSize) -> u64 {
    leaf / facts.model.descriptor_bytes() * facts.model.granule().bytes()
}

/// A case, where it is run, and what leaves it is mapped by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) range: ByteRange,
    pub(super) leaf: ByteSize,
}

/// All that there is on a backend, in pages of some sizes.
pub(super) struct Rows<'s> {
    pub(super) pages: &'s [u64],
}

impl Rows<'_> {
    /// Those on a backend.
    pub(super) fn on(&self, facts: &BackendFacts) -> Vec<Row> {
        let granule = facts.model.granule();
        let base_pages = |huge_leaves| Case {
            align: granule.bytes(),
            heads: Heads::InPlace,
            tails: Tails::None,
            tables: Tables::Private,
            piece: Piece::Section,
            huge_leaves,
            altmap: false,
        };
        let mut rows = Vec::new();
        for align in self.pages.iter().copied() {
            if align == granule.bytes() {
                // Without tables it makes no difference what the leaves are.
                let leaves = facts.has_tables.then(|| base_pages(false));
                let huge = base_pages(true);
                let in_altmap = Case {
                    altmap: true,
                    ..huge
                };
                let cases = leaves.into_iter().chain([huge, in_altmap]);
                rows.extend(cases.filter_map(|case| case.on(facts)));
                continue;
            }
            let case = Case {
                align,
                ..base_pages(true)
            };
            let mut shared = case.sharing().filter_map(|case| case.on(facts)).peekable();
            // Where nothing can be shared, that is the row. Elsewhere it would repeat base pages.
            match shared.peek() {
                Some(_) => rows.extend(shared),
                None => rows.extend(case.on(facts)),
            }
        }
        rows
    }
}

/// All that is folded on a backend: what shares tails, brought online in base pages first.
pub(super) struct FoldRows<'s> {
    pub(super) pages: &'s [u64],
}

impl FoldRows<'_> {
    /// Those on a backend.
    pub(super) fn on(&self, facts: &BackendFacts) -> Vec<Row> {
        let all = Rows { pages: self.pages }.on(facts).into_iter();
        let shares = all.filter(|Row { case, .. }| {
            case.tails != Tails::None && case.heads == Heads::InPlace && !case.altmap
        });
        let rows = shares.filter_map(|row| {
            let base = Case {
                align: facts.model.granule().bytes(),
                tails: Tails::None,
                tables: Tables::Private,
                ..row.case
            };
            let range = base.largest_range(facts, FOLDED_BYTES, row.case.align);
            let needed = base.descriptor_bytes_of(facts, range);
            if needed.is_some_and(|needed| needed > MOST_FOLDED_BYTES) {
                return None;
            }
            let huge = base.on(facts)?;
            // Where the range is smaller than what a huge leaf describes, there is none.
            let (piece, leaf) = match described_by(facts, huge.leaf) <= range.size {
                true => (huge.case.piece, huge.leaf),
                false => (row.case.piece, ByteSize(facts.model.granule().bytes())),
            };
            Some(Row {
                case: Case { piece, ..row.case },
                range,
                leaf,
            })
        });
        rows.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::geometry::natural;
    use arch_sim::SimMemory;
    use hosted::{Radix, X86_64};
    use mm_core::addr::{Granule, Pfn};
    use mm_core::model::ModelConfig;

    /// Align, tails, tables or altmap, and leaves of each row.
    fn told(rows: Vec<Row>) -> Vec<String> {
        let text = |row: Row| {
            let tails = match row.case.shares() {
                "per-compound" => "C",
                "per-order" => "O",
                "packed" => "P",
                _ => "-",
            };
            let with = match (row.case.tables, row.case.altmap) {
                (Tables::Shared, false) => "+",
                (Tables::Shared, true) => "+@",
                (_, true) => "@",
                _ => "",
            };
            format!("{} {tails}{with} {}", ByteSize(row.case.align), row.leaf)
        };
        rows.into_iter().map(text).collect()
    }

    /// The rows of a backend with a base page, a huge leaf, and a large compound page.
    fn rows_of(base: &str, leaf: &str, large: &str, shared: bool) -> Vec<String> {
        let mut rows = vec![
            format!("{base} - {base}"),
            format!("{base} - {leaf}"),
            format!("{base} -@ {leaf}"),
            format!("{leaf} C {base}"),
            format!("{leaf} C@ {base}"),
            format!("{leaf} O {base}"),
            format!("{leaf} O@ {base}"),
            format!("{leaf} P {base}"),
            format!("{leaf} P+ {base}"),
            format!("{large} C {base}"),
            format!("{large} C+ {base}"),
            format!("{large} C@ {base}"),
            format!("{large} C+@ {base}"),
            format!("{large} O {base}"),
            format!("{large} O+ {base}"),
            format!("{large} O@ {base}"),
            format!("{large} O+@ {base}"),
            format!("{large} P {base}"),
            format!("{large} P+ {base}"),
        ];
        // Stubs run on from page to page, so they fill tables where tails do not.
        rows.retain(|row| shared || !row.contains('+') || row.contains('P'));
        rows
    }

    /// The sizes of a base page, a huge leaf, and a large compound page of a backend.
    fn sizes(backend: BackendKind) -> [&'static str; 3] {
        match backend.model().granule() {
            Granule::Size4K => ["4K", "2M", "1G"],
            Granule::Size16K => ["16K", "32M", "1G"],
            Granule::Size64K => ["64K", "512M", "16G"],
        }
    }

    /// The sizes that are surveyed if nothing is said.
    fn pages(backend: BackendKind) -> Vec<u64> {
        let granule = backend.model().granule();
        let [small, large] = natural(granule);
        vec![granule.bytes(), small, large]
    }

    fn rows_on(backend: BackendKind) -> Vec<Row> {
        let pages = &pages(backend);
        Rows { pages }.on(&backend.facts())
    }

    fn fold_rows_on(backend: BackendKind) -> Vec<Row> {
        let pages = &pages(backend);
        FoldRows { pages }.on(&backend.facts())
    }

    /// Whether a leaf table of a backend can be all tails of its large compound page.
    fn shares(backend: BackendKind) -> bool {
        backend.has_tables() && backend.model().granule() == Granule::Size4K
    }

    #[test]
    fn every_geometry_has_a_row_for_each_policy_that_its_backend_applies() {
        for backend in BackendKind::ALL {
            let [base, leaf, large] = sizes(backend);
            let mut rows = rows_of(base, leaf, large, shares(backend));
            // Leaves make no difference where there are no tables.
            rows.retain(|row| backend.has_tables() || *row != format!("{base} - {base}"));
            rows.retain(|row| backend.has_tables() || !row.contains("P+"));
            assert_eq!(told(rows_on(backend)), rows, "{}", backend.name());
        }
    }

    #[test]
    fn whatever_shares_tails_is_folded_from_the_largest_leaves_that_the_range_has() {
        for backend in BackendKind::ALL {
            let [base, leaf, large] = sizes(backend);
            // With 64K pages a huge leaf describes more than is folded.
            let (from, size) = match backend.model().granule() {
                Granule::Size4K => (leaf, "4G"),
                Granule::Size16K => (leaf, "16G"),
                Granule::Size64K => (base, "64G"),
            };
            let mut rows: Vec<String> = ["C", "O"].map(|t| format!("{leaf} {t} {from}")).into();
            for tails in ["C", "C+", "O", "O+"] {
                if shares(backend) || !tails.contains('+') {
                    rows.push(format!("{large} {tails} {from}"));
                }
            }
            let folded = fold_rows_on(backend);
            let size_of = |row: &Row| ByteSize(row.range.size).to_string();
            assert!(
                folded.iter().all(|row| size_of(row) == size),
                "{}",
                backend.name()
            );
            assert_eq!(told(folded), rows, "{}", backend.name());
        }
    }

    #[test]
    fn pages_of_any_size_have_rows_and_only_what_is_not_too_large_is_folded() {
        let told_of = |backend: BackendKind, align: u64| {
            let pages = &[align];
            let facts = &backend.facts();
            let folded = FoldRows { pages }.on(facts);
            (told(Rows { pages }.on(facts)), told(folded))
        };
        // Descriptors in one vmemmap page, which share nothing.
        let (rows, folded) = told_of(BackendKind::X86_64, 64 << 10);
        assert_eq!((rows, folded), (vec!["64K - 2M".to_owned()], vec![]));
        // 256 MiB of descriptors in base pages.
        let (rows, folded) = told_of(BackendKind::X86_64, 16 * GIB);
        assert!(rows.contains(&"16G O+@ 4K".to_owned()), "{rows:?}");
        assert_eq!(folded.len(), 4, "{folded:?}");
        // One page that is all of the range leaves nothing for an altmap, and is too large to fold.
        let (rows, folded) = told_of(BackendKind::X86_64, MOST);
        let packed = ["1T P 4K", "1T P+ 4K"];
        assert_eq!(rows[..4], ["1T C 4K", "1T C+ 4K", "1T O 4K", "1T O+ 4K"]);
        assert_eq!(rows[4..], packed);
        assert!(folded.is_empty(), "{folded:?}");
    }

    /// x86-64 with room for the descriptors of 256 GiB.
    enum Small {}

    impl Radix for Small {
        const RADIX_NAME: &'static str = "x86_64, small";
        const RADIX_ABOUT: &'static str = X86_64::RADIX_ABOUT;
        const RADIX_MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
            frames: 1 << 26,
            ..*X86_64::RADIX_MODEL.config()
        }) {
            Ok(model) => model,
            Err(_) => panic!("a smaller model"),
        };
        type Format = <X86_64 as Radix>::Format;
        type Walker = <X86_64 as Radix>::Walker;
        type Processors = <X86_64 as Radix>::Processors;
        type Mmu<'m> = <X86_64 as Radix>::Mmu<'m>;
        type Roots<'m> = <X86_64 as Radix>::Roots<'m>;

        fn walker() -> Self::Walker {
            X86_64::walker()
        }

        fn processors(memory: &SimMemory, root: Pfn, quiesce: bool) -> Self::Processors {
            X86_64::processors(memory, root, quiesce)
        }

        fn mmu(cpus: &Self::Processors) -> Self::Mmu<'_> {
            X86_64::mmu(cpus)
        }

        fn roots(cpus: &Self::Processors) -> Self::Roots<'_> {
            X86_64::roots(cpus)
        }

        fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
            X86_64::foreign_leaf(frame, huge)
        }

        fn foreign_table(frame: Pfn) -> u64 {
            X86_64::foreign_table(frame)
        }
    }

    #[test]
    fn a_backend_with_room_for_less_has_the_same_rows_with_smaller_ranges() {
        let pages = &pages(BackendKind::X86_64);
        let facts = &BackendFacts::of::<Small>();
        let (rows, folded) = (Rows { pages }.on(facts), FoldRows { pages }.on(facts));
        assert_eq!(told(rows.clone()), told(rows_on(BackendKind::X86_64)));
        let all = Small::RADIX_MODEL.all_frames().frames() << 12;
        for row in rows.iter().chain(&folded) {
            let range = row.range;
            assert!(range.start + range.size <= all, "{range:?}");
        }
        assert_eq!(told(folded), told(fold_rows_on(BackendKind::X86_64)));
        let largest = rows.into_iter().map(|row| row.range.size);
        assert_eq!(largest.max(), Some(128 * GIB));
    }

    #[test]
    fn ranges_are_as_large_as_their_descriptors_allow() {
        let size = |backend: BackendKind, what: &str| {
            let rows = rows_on(backend);
            let index = told(rows.clone()).iter().position(|row| row == what);
            ByteSize(rows[index.unwrap()].range.size).to_string()
        };
        // A flat 16 MiB per GiB; 2 of 8 frames and 1 of 8 of that; 2 frames per GiB.
        for (what, expected) in [
            ("4K - 4K", "4G"),
            ("4K -@ 2M", "4G"),
            ("2M C 4K", "32G"),
            ("2M C@ 4K", "32G"),
            ("2M O 4K", "32G"),
            ("1G C 4K", "1T"),
        ] {
            assert_eq!(size(BackendKind::X86_64, what), expected, "{what}");
        }
        // One huge leaf describes more than the limit.
        assert_eq!(size(BackendKind::AArch64_64K, "64K - 64K"), "64G");
        assert_eq!(size(BackendKind::Sim, "1G C 4K"), "128G");
        assert_eq!(size(BackendKind::AArch64_64K, "64K - 512M"), "512G");
    }
}
