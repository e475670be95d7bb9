//! What a survey is made of: geometries with policies, and how much memory each gets.

use crate::args::AltmapSize;
use crate::geometry::natural;
use crate::need::Need;
use crate::request::Request;
use crate::size::{ByteRange, ByteSize};
use hosted::{Backend, BackendKind, WithBackend};
use mm_core::addr::{NodeId, Order};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::Notes;

pub(super) const GIB: u64 = 1 << 30;

/// How much memory there would be at most.
pub(super) const MOST: u64 = 1024 * GIB;

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
        Tails::None => GIB / 4,
        _ => GIB / 2,
    }
}

/// How much host memory the descriptors of a region to fold may take as base pages. Unfolding takes
/// as much again.
pub(super) const FOLDED_BYTES: u64 = GIB / 8;

/// A geometry with policies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) align: u64,
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
            tails: Some(self.tails),
            tables: self.tables,
            piece: self.piece,
            huge_leaves: self.huge_leaves,
            altmap: self.altmap.then_some(AltmapSize::Auto),
            node: NodeId::new(0),
            fail_after: None,
        }
    }

    /// Whether `B` does all of it as asked.
    fn exists_on<B: Backend>(self) -> bool {
        let request = self.request(BackendKind::Sim, whole(&B::MODEL));
        let Ok(frames) = request.in_frames(B::MODEL.granule()) else {
            return false;
        };
        frames.pagemap(&B::MODEL, None).is_ok_and(|pagemap| {
            Notes::known_ahead(&pagemap, B::HUGE_LEAF, B::SHARES_TABLES).is_empty()
        })
    }

    /// What the vmemmap is mapped by.
    fn leaf<B: Backend>(self) -> ByteSize {
        let order = match (self.tails, self.huge_leaves) {
            (Tails::None, true) => B::HUGE_LEAF.unwrap_or(Order::BASE),
            _ => Order::BASE,
        };
        ByteSize(order.frames() * B::MODEL.granule().bytes())
    }

    /// The case on `B`, if `B` does all of it as asked.
    fn on<B: Backend>(self) -> Option<Row> {
        // Section by section where that leaves a place for huge leaves.
        let pieces = [Piece::Section, Piece::Range];
        let mut cases = pieces.map(|piece| Case { piece, ..self }).into_iter();
        let case = cases.find(|case| case.exists_on::<B>())?;
        let leaf = case.leaf::<B>();
        let least = described_by::<B>(leaf).max(case.align);
        Some(Row {
            case,
            range: case.largest_range::<B>(descriptor_bytes(case.tails), least),
            leaf,
        })
    }

    /// The largest part of [`whole`] whose descriptors fit into `bytes`, but no less than `least`.
    fn largest_range<B: Backend>(self, bytes: u64, least: u64) -> ByteRange {
        let fits = |range: &ByteRange| {
            let request = self.request(BackendKind::Sim, *range);
            let frames = request.in_frames(B::MODEL.granule()).ok();
            let need = frames.and_then(|frames| {
                let pagemap = frames.pagemap(&B::MODEL, None).ok()?;
                Some(Need::of::<B>(&pagemap))
            });
            // What is no range fails, and is reported, when it is brought online.
            need.is_none_or(|need| need.descriptor_frames * B::MODEL.granule().bytes() <= bytes)
        };
        let half = |range: ByteRange| ByteRange {
            size: range.size / 2,
            ..range
        };
        let mut range = whole(&B::MODEL);
        while !fits(&range) && range.size > least {
            range = half(range);
        }
        range
    }
}

/// The bytes of memory that a leaf of `leaf` bytes of vmemmap describes.
fn described_by<B: Backend>(ByteSize(leaf): ByteSize) -> u64 {
    leaf / B::MODEL.descriptor_bytes() * B::MODEL.granule().bytes()
}

/// A case, where it is run, and what leaves it is mapped by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) range: ByteRange,
    pub(super) leaf: ByteSize,
}

/// All that there is on a backend.
pub(super) struct Rows;

impl WithBackend for Rows {
    type Output = Vec<Row>;

    fn with<B: Backend>(self) -> Vec<Row> {
        let granule = B::MODEL.granule();
        let base_pages = |huge_leaves| Case {
            align: granule.bytes(),
            tails: Tails::None,
            tables: Tables::Private,
            piece: Piece::Section,
            huge_leaves,
            altmap: false,
        };
        let mut cases = Vec::new();
        // Without tables it makes no difference what the leaves are.
        if B::HAS_TABLES {
            cases.push(base_pages(false));
        }
        cases.push(base_pages(true));
        cases.push(Case {
            altmap: true,
            ..base_pages(true)
        });
        for align in natural(granule) {
            for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
                let case = Case {
                    align,
                    tails,
                    ..base_pages(true)
                };
                let tables = [Tables::Private, Tables::Shared];
                let of_ram = tables.map(|tables| Case { tables, ..case });
                cases.extend(of_ram);
                if tails != Tails::None {
                    cases.extend(of_ram.map(|case| Case {
                        altmap: true,
                        ..case
                    }));
                }
            }
        }
        cases.into_iter().filter_map(Case::on::<B>).collect()
    }
}

/// All that is folded on a backend: what shares tails, brought online in base pages first.
pub(super) struct FoldRows;

impl WithBackend for FoldRows {
    type Output = Vec<Row>;

    fn with<B: Backend>(self) -> Vec<Row> {
        let all = Rows.with::<B>().into_iter();
        let shares = all.filter(|row| row.case.tails != Tails::None && !row.case.altmap);
        let rows = shares.filter_map(|row| {
            let base = Case {
                align: B::MODEL.granule().bytes(),
                tails: Tails::None,
                tables: Tables::Private,
                ..row.case
            };
            let range = base.largest_range::<B>(FOLDED_BYTES, row.case.align);
            let huge = base.on::<B>()?;
            // Where the range is smaller than what a huge leaf describes, there is none.
            let (piece, leaf) = match described_by::<B>(huge.leaf) <= range.size {
                true => (huge.case.piece, huge.leaf),
                false => (row.case.piece, ByteSize(B::MODEL.granule().bytes())),
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
    use arch_sim::SimMemory;
    use hosted::{Radix, X86_64};
    use mm_core::addr::{Granule, Pfn};
    use mm_core::model::ModelConfig;

    /// Align, tails, tables or altmap, and leaves of each row.
    fn told(rows: Vec<Row>) -> Vec<String> {
        let text = |row: Row| {
            let tails = match row.case.tails {
                Tails::PerCompound => "C",
                Tails::PerOrder => "O",
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
            format!("{leaf} - {leaf}"),
            format!("{leaf} C {base}"),
            format!("{leaf} C@ {base}"),
            format!("{leaf} O {base}"),
            format!("{leaf} O@ {base}"),
            format!("{large} - {leaf}"),
            format!("{large} C {base}"),
            format!("{large} C+ {base}"),
            format!("{large} C@ {base}"),
            format!("{large} C+@ {base}"),
            format!("{large} O {base}"),
            format!("{large} O+ {base}"),
            format!("{large} O@ {base}"),
            format!("{large} O+@ {base}"),
        ];
        rows.retain(|row| shared || !row.contains('+'));
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
            assert_eq!(told(backend.run(Rows)), rows, "{}", backend.name());
        }
    }

    #[test]
    fn whatever_shares_tails_is_folded_from_the_largest_leaves_that_the_range_has() {
        for backend in BackendKind::ALL {
            let [base, leaf, large] = sizes(backend);
            // With 64K pages a huge leaf describes more than is folded.
            let (from, size) = match backend.model().granule() {
                Granule::Size4K => (leaf, "8G"),
                Granule::Size16K => (leaf, "32G"),
                Granule::Size64K => (base, "128G"),
            };
            let mut rows: Vec<String> = ["C", "O"].map(|t| format!("{leaf} {t} {from}")).into();
            for tails in ["C", "C+", "O", "O+"] {
                if shares(backend) || !tails.contains('+') {
                    rows.push(format!("{large} {tails} {from}"));
                }
            }
            let folded = backend.run(FoldRows);
            let size_of = |row: &Row| ByteSize(row.range.size).to_string();
            assert!(
                folded.iter().all(|row| size_of(row) == size),
                "{}",
                backend.name()
            );
            assert_eq!(told(folded), rows, "{}", backend.name());
        }
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
        assert_eq!(
            told(Rows.with::<Small>()),
            told(BackendKind::X86_64.run(Rows))
        );
        let folded = told(FoldRows.with::<Small>());
        assert_eq!(folded, told(BackendKind::X86_64.run(FoldRows)));
        let all = Small::RADIX_MODEL.all_frames().frames() << 12;
        for row in Rows
            .with::<Small>()
            .into_iter()
            .chain(FoldRows.with::<Small>())
        {
            let range = row.range;
            assert!(range.start + range.size <= all, "{range:?}");
        }
        let largest = Rows.with::<Small>().into_iter().map(|row| row.range.size);
        assert_eq!(largest.max(), Some(128 * GIB));
    }

    #[test]
    fn ranges_are_as_large_as_their_descriptors_allow() {
        let size = |backend: BackendKind, what: &str| {
            let rows = backend.run(Rows);
            let index = told(rows.clone()).iter().position(|row| row == what);
            ByteSize(rows[index.unwrap()].range.size).to_string()
        };
        // A flat 16 MiB per GiB; 2 of 8 frames and 1 of 8 of that; 2 frames per GiB.
        for (what, expected) in [
            ("4K - 4K", "16G"),
            ("4K -@ 2M", "16G"),
            ("2M C 4K", "128G"),
            ("2M C@ 4K", "128G"),
            ("2M O 4K", "128G"),
            ("1G C 4K", "1T"),
        ] {
            assert_eq!(size(BackendKind::X86_64, what), expected, "{what}");
        }
        // One huge leaf describes more than the limit.
        assert_eq!(size(BackendKind::AArch64_64K, "64K - 64K"), "256G");
        assert_eq!(size(BackendKind::AArch64_64K, "64K - 512M"), "512G");
    }
}
