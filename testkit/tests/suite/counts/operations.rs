//! The operations that are counted, on a machine of each backend.

use super::formulas;
use super::{Counts, Row};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use std::sync::atomic::Ordering;
use testkit::OnBackend;
use testkit::testbed::{Setup, Sizes, Testbed, Used, pagemap};

const NODE: NodeId = NodeId::new(0);

/// More sections than this take too long to be looked at one by one.
const MANY_SECTIONS: u64 = 512;

/// Memory, and how it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) frames: PfnRange,
    pub(super) order: Order,
    pub(super) tails: Tails,
    pub(super) tables: Tables,
    pub(super) huge_leaves: bool,
}

impl Geometry {
    const fn base_pages(frames: PfnRange, huge_leaves: bool) -> Self {
        Self {
            frames,
            order: Order::BASE,
            tails: Tails::None,
            tables: Tables::Private,
            huge_leaves,
        }
    }

    pub(super) fn name(&self, model: &MemoryModel) -> String {
        let bytes = self.order.frames() << model.granule().shift();
        let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        let (unit, shift) = units.into_iter().find(|unit| bytes >> unit.1 > 0).unwrap();
        let size = format!("{}{unit}", bytes >> shift);
        let how = match (self.tails, self.huge_leaves) {
            (Tails::PerCompound, _) => "per compound",
            (Tails::PerOrder, _) => "per order",
            (_, true) => "huge leaves",
            (_, false) => "base pages",
        };
        match self.tables {
            Tables::Shared => format!("{size} {how}, shared"),
            _ => format!("{size} {how}"),
        }
    }

    pub(super) const fn used(&self) -> Used {
        Used {
            frames: self.frames,
            order: self.order,
            tails: self.tails,
            huge_leaves: self.huge_leaves,
        }
    }

    fn pagemap<'p>(&self, model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
        pagemap(model, ranges, self.order, self.tails)
            .with_tables(self.tables)
            .with_huge_leaves(self.huge_leaves)
            .with_piece(Piece::Range)
    }
}

/// All that is done on the backend.
pub(super) fn rows(kind: BackendKind) -> Vec<Row> {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let with_small_pages = model.granule().shift() == 12;
    let (natural, table) = (sizes.natural(), sizes.table());
    // 1 GiB, or the smallest page with a leaf table of tails only.
    let large = match with_small_pages {
        true => sizes.order(1 << 30),
        false => sizes.gigantic(),
    };
    let several_tables = sizes.blocks(table, 16, if with_small_pages { 8 } else { 1 });
    // With the largest pages, descriptors of a table's worth of memory take too much of the host's.
    let is_much = model.granule().shift() == 16;
    let naturals = match is_much {
        true => several_tables.take_first(64 * natural.frames()).0,
        false => several_tables,
    };
    let few = several_tables.take_first(16 * natural.frames()).0;
    let larges = sizes.blocks(large, 2, if is_much { 1 } else { 2 });

    let of = |frames, order, tails, tables| Geometry {
        frames,
        order,
        tails,
        tables,
        huge_leaves: true,
    };
    let (private, shared) = (Tables::Private, Tables::Shared);
    let (per_compound, per_order) = (Tails::PerCompound, Tails::PerOrder);
    let mut rows = Vec::new();

    let huge = sizes.blocks(table, 16, 2);
    for base in [
        with_small_pages.then_some(Geometry::base_pages(huge, true)),
        Some(Geometry::base_pages(few, false)),
    ] {
        rows.extend(base.iter().flat_map(|one| there_and_back(kind, one)));
    }
    for geometry in [
        of(naturals, natural, per_compound, private),
        of(naturals, natural, per_order, private),
        of(larges, large, per_compound, private),
        of(larges, large, per_compound, shared),
        of(larges, large, per_order, private),
        of(larges, large, per_order, shared),
    ] {
        rows.extend(there_and_back(kind, &geometry));
    }

    let one_large = larges.take_first(large.frames()).0;
    let folded = [
        Some(of(few, natural, per_compound, private)),
        Some(of(few, natural, per_order, private)),
        with_small_pages.then_some(of(one_large, large, per_compound, private)),
        with_small_pages.then_some(of(one_large, large, per_order, shared)),
    ];
    for geometry in folded.iter().flatten() {
        rows.extend(fold_and_unfold(kind, geometry));
    }

    // Heads of a table's worth of the largest granule take too much, too.
    let from = if is_much { sizes.order(1 << 34) } else { large };
    let split = several_tables.take_first(from.frames()).0;
    let split = if is_much { split } else { one_large };
    for (tails, tables) in [
        (per_compound, private),
        (per_order, private),
        (per_order, shared),
    ] {
        let geometry = of(split, from, tails, tables);
        rows.extend(split_and_merge(kind, &geometry, natural));
    }
    rows
}

/// Counts of what `work` does.
fn counted<T>(
    bed: &mut dyn Testbed<'_>,
    work: impl FnOnce(&mut dyn Testbed<'_>) -> T,
) -> (Counts, T) {
    bed.table_watch().count_writes(bed.memory());
    let (mut counts, done) = counted_but_entries(bed, work);
    counts.0[0] = bed.table_watch().writes();
    (counts, done)
}

/// The same, without entries written: they take time that grows by the tables there are.
pub(super) fn counted_but_entries<T>(
    bed: &mut dyn Testbed<'_>,
    work: impl FnOnce(&mut dyn Testbed<'_>) -> T,
) -> (Counts, T) {
    let watch = bed.table_watch();
    let (looks, flushes, calls) = (watch.looks(), bed.flushes(), bed.frames().calls());
    let done = work(bed);
    let calls = bed.frames().calls().since(calls);
    let counts = Counts([
        0,
        watch.looks() - looks,
        calls.allocate,
        calls.acquire,
        calls.release + calls.free + calls.keep + calls.split,
        bed.flushes() - flushes,
        bed.frames().outstanding(),
    ]);
    (counts, done)
}

/// Does `work` on a machine with `geometry`'s memory, where frames that are handed out are full of something.
fn on_bed(
    kind: BackendKind,
    geometry: &Geometry,
    work: impl FnOnce(&mut dyn Testbed<'_>, &DevPagemap<'_>, &mut dyn FnMut(&'static str, Counts)),
) -> Vec<Row> {
    let model = kind.model();
    let ranges = [geometry.frames];
    let pagemap = geometry.pagemap(&model, &ranges);
    let mut rows = Vec::new();
    kind.testbed(&Setup::new(&ranges), |bed| {
        let memory = bed.memory().clone();
        bed.frames().on_allocate(move |frames| {
            for frame in 0..frames.frames() {
                let words = memory.words(frames.start().saturating_add(frame));
                let words = words.unwrap_or_default().iter();
                words.for_each(|word| word.store(0x5c5c_5c5c_5c5c_5c5c, Ordering::Relaxed));
            }
        });
        // A table that goes is written to by others.
        let watch = bed.table_watch().clone();
        bed.frames().on_free(move |frames| watch.forget(frames));
        let watch = bed.table_watch().clone();
        bed.frames().on_keep(move |frames| watch.forget(frames));
        work(bed, &pagemap, &mut |operation, counts| {
            rows.push(Row {
                geometry: geometry.name(&model),
                operation,
                counts,
            });
        });
    });
    rows
}

fn there_and_back(kind: BackendKind, geometry: &Geometry) -> Vec<Row> {
    let model = kind.model();
    let sections = geometry.frames.frames() / model.section().frames();
    on_bed(kind, geometry, |bed, pagemap, done| {
        let mut both = |piece| {
            let pagemap = pagemap.with_piece(piece);
            let (online, region) = counted(bed, |bed| bed.online(&pagemap).unwrap());
            let (offline, _) = counted(bed, |bed| bed.offline(region));
            formulas::check(kind, geometry, piece, online, offline);
            (online, offline)
        };
        let (online, offline) = both(Piece::Range);
        done("online", online);
        done("offline", offline);
        if sections <= MANY_SECTIONS {
            let (online, offline) = both(Piece::Section);
            done("online by sections", online);
            done("offline after sections", offline);
        }
    })
}

fn fold_and_unfold(kind: BackendKind, geometry: &Geometry) -> Vec<Row> {
    let model = kind.model();
    on_bed(kind, geometry, |bed, pagemap, done| {
        let ranges = [geometry.frames];
        let base = Geometry::base_pages(geometry.frames, true);
        let region = bed.online(&base.pagemap(&model, &ranges)).unwrap();
        let (fold, folded) = counted(bed, |bed| bed.fold(pagemap, geometry.frames).unwrap());
        let (unfold, unfolded) = counted(bed, |bed| bed.unfold(pagemap, geometry.frames).unwrap());
        let pages = geometry.frames.frames() >> geometry.order.get();
        assert_eq!((folded.changed, unfolded.changed), (pages, pages));
        done("fold", fold);
        done("unfold", unfold);
        bed.offline(region);
    })
}

fn split_and_merge(kind: BackendKind, geometry: &Geometry, smaller: Order) -> Vec<Row> {
    let model = kind.model();
    on_bed(kind, geometry, |bed, pagemap, done| {
        let ranges = [geometry.frames];
        let small = Geometry {
            order: smaller,
            tables: Tables::Private,
            ..*geometry
        };
        let smaller = small.pagemap(&model, &ranges);
        let region = bed.online(pagemap).unwrap();
        for (operation, to) in [("split", &smaller), ("merge", pagemap)] {
            let needed = bed.reserve_needed(to, geometry.frames, geometry.order);
            bed.fill_reserve(NODE, needed).unwrap();
            let (counts, _) = counted(bed, |bed| bed.reorder(to, geometry.frames).unwrap());
            assert_eq!(counts.0[2], 0, "nothing is allocated");
            done(operation, counts);
            bed.empty_reserve();
        }
        bed.offline(region);
    })
}
