//! Regions side by side, and pieces in any order: what is next to memory makes no difference to it.

use super::fold::TAILS;
use crate::bench::{Bench, part};
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure_at, equal, fail, skip};
use mm_core::addr::{Block, Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::paging::{Leaf, PageTable, Role};
use mm_core::vmemmap::Region;

/// What lies beside a region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Nothing,
    BasePages,
    HugeLeaf,
    PerCompound,
    PerOrder,
    /// As the last, but memory of another node.
    OtherNode,
    /// Compound pages of twice the size.
    OtherOrder,
    Foreign,
    ForeignHugeLeaf,
}

/// Those that need no huge leaf.
const SMALL: [Neighbour; 7] = [
    Neighbour::Nothing,
    Neighbour::BasePages,
    Neighbour::PerCompound,
    Neighbour::PerOrder,
    Neighbour::OtherNode,
    Neighbour::OtherOrder,
    Neighbour::Foreign,
];

/// Which frames tails are shared by: those of an order on a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SharedBy {
    Nobody,
    Order,
    OtherNode,
    OtherOrder,
}

impl Neighbour {
    fn pagemap<'r, H: Harness>(
        self,
        bench: &Bench<'_, H, Mask>,
        ranges: &'r [PfnRange],
    ) -> Result<Option<DevPagemap<'r>>, Stop> {
        let small = bench.small();
        let tails = |order, tails| bench.sharing(ranges, order, tails);
        let larger = Order::new(small.get() + 1).unwrap_or(small);
        let pagemap = match self {
            Self::Nothing | Self::Foreign | Self::ForeignHugeLeaf => return Ok(None),
            Self::BasePages => tails(Order::BASE, Tails::None)?.with_huge_leaves(false),
            Self::HugeLeaf => tails(Order::BASE, Tails::None)?.with_piece(Piece::Range),
            Self::PerCompound => tails(small, Tails::PerCompound)?,
            Self::PerOrder => tails(small, Tails::PerOrder)?,
            Self::OtherNode => tails(small, Tails::PerOrder)?.with_node(bench.other_node()),
            Self::OtherOrder => tails(larger, Tails::PerOrder)?,
        };
        Ok(Some(pagemap))
    }

    /// Frames of its own that `range` takes, and whom it shares a tail frame with.
    fn frames<H: Harness>(
        self,
        bench: &Bench<'_, H, Mask>,
        range: PfnRange,
    ) -> (u64, u64, SharedBy) {
        let pages = bench.pages(range);
        let compound = range.frames() / bench.small().frames();
        let (frames, shared_by) = match self {
            Self::Nothing | Self::Foreign | Self::ForeignHugeLeaf => {
                return (0, 0, SharedBy::Nobody);
            }
            Self::BasePages | Self::HugeLeaf => (pages, SharedBy::Nobody),
            Self::PerCompound => (2 * compound, SharedBy::Nobody),
            Self::PerOrder => (compound, SharedBy::Order),
            Self::OtherNode => (compound, SharedBy::OtherNode),
            Self::OtherOrder => (compound / 2, SharedBy::OtherOrder),
        };
        (frames, pages, shared_by)
    }

    fn order<H: Harness>(self, bench: &Bench<'_, H, Mask>) -> Order {
        let small = bench.small();
        match self {
            Self::BasePages | Self::HugeLeaf => Order::BASE,
            Self::OtherOrder => Order::new(small.get() + 1).unwrap_or(small),
            _ => small,
        }
    }
}

/// A neighbour that is there.
struct Beside<'r> {
    kind: Neighbour,
    range: PfnRange,
    region: Option<Region<'r>>,
    foreign: Option<(Pfn, Leaf)>,
}

impl<'r> Beside<'r> {
    /// Brings `ranges[0]` online as `kind` says, or has somebody map something for the page at
    /// `border`.
    fn new<H: Harness>(
        bench: &mut Bench<'_, H, Mask>,
        kind: Neighbour,
        ranges: &'r [PfnRange; 1],
        border: Pfn,
    ) -> Result<Self, Stop> {
        let [range] = *ranges;
        let mut beside = Self {
            kind,
            range,
            region: None,
            foreign: None,
        };
        if let Some(pagemap) = kind.pagemap(bench, ranges)? {
            beside.region = Some(bench.online(&pagemap)?);
        }
        // Somebody's memory, of which only the number matters: nobody may touch it.
        let (at, block) = match kind {
            Neighbour::Foreign => (border, Block::single(border)),
            Neighbour::ForeignHugeLeaf => {
                let (leaf, _) = bench.huge_leaf()?;
                match Block::new(range.start().align_down(leaf), leaf) {
                    Some(block) => (range.start(), block),
                    None => return fail("a block at an aligned frame"),
                }
            }
            _ => return Ok(beside),
        };
        let leaf = Leaf {
            block,
            role: Role::Foreign,
            writable: true,
        };
        let address = bench.address(at)?;
        if bench.controls.map_foreign(bench.table, address, leaf) {
            beside.foreign = Some((at, leaf));
        }
        Ok(beside)
    }

    /// Checks that it is there, as it was.
    fn is_there<H: Harness>(&self, bench: &Bench<'_, H, Mask>) -> Verdict {
        if self.region.is_some() {
            bench.described(self.range, self.kind.order(bench))?;
        } else if let Some((at, leaf)) = self.foreign {
            let at = bench.address(at)?;
            let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
            ensure_at(found == Some(leaf), "the foreign leaf stays", at)?;
        } else {
            bench.absent(self.range)?;
        }
        Ok(())
    }

    fn go<H: Harness>(self, bench: &mut Bench<'_, H, Mask>) -> Verdict {
        if let Some((at, _)) = self.foreign {
            let at = bench.address(at)?;
            bench.controls.unmap_foreign(bench.table, at);
        }
        if let Some(region) = self.region {
            bench.offline(region);
        }
        Ok(())
    }
}

/// Checks that what is online costs what each costs by itself, and one tail frame for all that
/// share it.
fn costs<H: Harness>(bench: &mut Bench<'_, H, Mask>, all: &[(Neighbour, PfnRange)]) -> Verdict {
    let mut sum = (0, 0);
    for (kind, range) in all {
        let (frames, pages, _) = kind.frames(bench, *range);
        sum = (sum.0 + frames, sum.1 + pages);
    }
    for key in [SharedBy::Order, SharedBy::OtherNode, SharedBy::OtherOrder] {
        let shares = |(kind, range): &(Neighbour, PfnRange)| {
            let (_, _, shared_by) = kind.frames(bench, *range);
            shared_by == key
        };
        sum.0 += u64::from(all.iter().any(shares));
    }
    bench.costs(sum.0, sum.1)
}

pub(super) fn a_region_between_any_two_others_is_as_it_would_be_alone<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    // Two compound pages each, all of them in one leaf table.
    let (left, middle, right) = (
        [bench.blocks(order, 2, 2)?],
        [bench.blocks(order, 4, 2)?],
        [bench.blocks(order, 6, 2)?],
    );
    for tails in [Neighbour::PerCompound, Neighbour::PerOrder] {
        for before in SMALL {
            for after in SMALL {
                let page = bench.pages(left[0]) - 1;
                let border = bench.frame_of_page(left[0], page);
                let one = Beside::new(bench, before, &left, border)?;
                let between = Beside::new(bench, tails, &middle, middle[0].start())?;
                let other = Beside::new(bench, after, &right, right[0].start())?;
                let all = [(before, left[0]), (tails, middle[0]), (after, right[0])];
                costs(bench, &all)?;
                for beside in [&one, &between, &other] {
                    beside.is_there(bench)?;
                }
                // Each of the three goes first.
                if after == before {
                    between.go(bench)?;
                    costs(bench, &[all[0], all[2]])?;
                    one.is_there(bench)?;
                    other.is_there(bench)?;
                    one.go(bench)?;
                    other.go(bench)?;
                } else {
                    one.go(bench)?;
                    costs(bench, &all[1..])?;
                    between.is_there(bench)?;
                    other.go(bench)?;
                    costs(bench, &all[1..2])?;
                    between.is_there(bench)?;
                    between.go(bench)?;
                }
            }
        }
    }
    bench.absent(middle[0])
}

pub(super) fn a_large_compound_page_between_huge_leaves_takes_nothing_of_theirs<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (_, describes) = bench.huge_leaf()?;
    let order = bench.large()?.max(describes);
    if order > bench.model.max_order() {
        return skip("a huge leaf describes more than any compound page");
    }
    let middle = bench.blocks(order, 1, 1)?;
    let before = bench.blocks(order, 0, 1)?;
    let left = [part(
        before,
        before.frames() - describes.frames(),
        describes.frames(),
    )];
    let right = [part(bench.blocks(order, 2, 1)?, 0, describes.frames())];
    let ranges = [middle];
    let pairs = [
        (
            Neighbour::HugeLeaf,
            Neighbour::ForeignHugeLeaf,
            Tails::PerCompound,
        ),
        (
            Neighbour::ForeignHugeLeaf,
            Neighbour::HugeLeaf,
            Tails::PerOrder,
        ),
        (Neighbour::Nothing, Neighbour::HugeLeaf, Tails::PerCompound),
    ];
    for (before, after, tails) in pairs {
        let one = Beside::new(bench, before, &left, left[0].start())?;
        let other = Beside::new(bench, after, &right, right[0].start())?;
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let region = bench.online(&pagemap)?;
        let pages = |beside: &Beside<'_>| match beside.region {
            Some(_) => bench.pages(beside.range),
            None => 0,
        };
        let theirs = pages(&one) + pages(&other);
        bench.costs(2 + theirs, bench.pages(middle) + theirs)?;
        bench.described(middle, order)?;
        one.is_there(bench)?;
        other.is_there(bench)?;
        one.go(bench)?;
        bench.described(middle, order)?;
        bench.offline(region);
        other.is_there(bench)?;
        other.go(bench)?;
        bench.absent(middle)?;
    }
    Ok(())
}

/// The leaf tables that map descriptors of `range`, by number.
fn tables<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange) -> Result<(u64, u64), Stop> {
    let granule = bench.model.granule();
    let bytes = granule.bytes() * granule.entries_per_table() as u64;
    let first = bench.address(range.start())?.get() / bytes;
    let last = bench.address(range.last())?.get() / bytes;
    Ok((first, last))
}

pub(super) fn regions_side_by_side_share_tables_at_their_borders<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let probe = [bench.blocks(order, 0, 1)?];
    let region = bench.online(&bench.pagemap(&probe, order)?)?;
    let tables = bench.audit()?.leaf_tables;
    bench.offline(region);
    if tables == 0 {
        return skip("the page table has no tables of the library's");
    }
    let leaves = bench.model.granule().entries_per_table() as u64;
    let per_table = leaves / bench.model.vmemmap_pages(order);
    // The second one lies across the border of two tables.
    let ranges = [
        [bench.blocks(order, per_table - 2, 1)?],
        [bench.blocks(order, per_table - 1, 2)?],
        [bench.blocks(order, per_table + 1, 1)?],
    ];
    let kinds = [Order::BASE, order, order];
    let before = bench.audit()?.leaf_tables;
    for sequence in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut regions = [None, None, None];
        for done in 0..3 {
            for (index, region) in regions.iter_mut().enumerate() {
                let (Some(ranges), Some(order)) = (ranges.get(index), kinds.get(index)) else {
                    continue;
                };
                if sequence.get(done) == Some(&index) {
                    let pagemap = bench.pagemap(ranges, *order)?.with_huge_leaves(false);
                    *region = Some(bench.online(&pagemap)?);
                }
            }
            count_tables(bench, &regions, before)?;
        }
        for index in sequence {
            if let Some(region) = regions.get_mut(index).and_then(Option::take) {
                bench.offline(region);
            }
            count_tables(bench, &regions, before)?;
        }
    }
    Ok(())
}

/// Checks that there are as many leaf tables, beyond those there were `before`, as `regions` touch.
fn count_tables<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    regions: &[Option<Region<'_>>],
    before: u64,
) -> Verdict {
    // In the order of addresses, so that a table counts once.
    let (mut expected, mut last_counted) = (0, None);
    for region in regions.iter().flatten() {
        for range in region.pagemap().ranges() {
            let (first, last) = tables(bench, *range)?;
            let from = match last_counted {
                Some(counted) if counted >= first => counted + 1,
                _ => first,
            };
            expected += (last + 1).saturating_sub(from);
            last_counted = Some(last);
        }
    }
    if H::Table::KEEPS_TABLES {
        return Ok(());
    }
    let found = bench.audit()?.leaf_tables - before;
    equal(expected, found, "leaf tables")
}

/// Pieces of one to five subsections that `range` consists of, with their numbers.
fn groups<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    range: PfnRange,
) -> impl Iterator<Item = (u64, PfnRange)> + use<H> {
    let unit = bench.model.subsection().frames();
    let mut rest = Some(range);
    let mut number = 0;
    core::iter::from_fn(move || {
        let lengths = [1, 3, 2, 5, 1, 4];
        let length = lengths.get(number as usize % lengths.len()).unwrap_or(&1);
        let (piece, after) = rest?.take_first(length * unit);
        rest = after;
        number += 1;
        Some((number - 1, piece))
    })
}

pub(super) fn subsections_of_a_compound_page_come_and_go_in_any_grouping<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    for tails in TAILS {
        for tables in [Tables::Private, Tables::Shared] {
            let pagemap = bench.sharing(&ranges, order, tails)?.with_tables(tables);
            let mut pages = 0;
            let mut heads = 0;
            // Every third group, from the third, the first, the second on.
            for turn in [2, 0, 1] {
                for (number, piece) in groups(bench, range) {
                    if number % 3 == turn {
                        bench.populate(&pagemap, piece)?;
                        pages += bench.pages(piece);
                        heads |= u64::from(number == 0);
                    }
                }
                bench.costs(heads + 1, pages)?;
            }
            bench.described(range, order)?;
            // In other groups: one subsection of each section, the rest of each.
            let section = bench.model.section().frames();
            let unit = bench.model.subsection().frames();
            for index in 0..range.frames() / section {
                let index = (index * 3 + 5) % (range.frames() / section);
                let piece = part(range, index * section + section - unit, unit);
                bench.depopulate(&pagemap, piece)?;
                bench.absent(piece)?;
            }
            for index in 0..range.frames() / section {
                let piece = part(range, index * section, section - unit);
                bench.depopulate(&pagemap, piece)?;
            }
            bench.costs(0, 0)?;
            bench.absent(range)?;
        }
    }
    Ok(())
}
