//! What a format is tried with: entries that it makes, and words that are anybody's.

use super::any::AnyFormat;
use crate::outcome::{Verdict, ensure, equal, fail};
use mm_core::addr::{Block, Order, Pfn};
use mm_core::paging::{Entry, Leaf, Level, Link, Role};

pub(super) const OWN_ROLES: [Role; 2] = [Role::Descriptors, Role::Tail];

pub(super) const ALL_ROLES: [Role; 3] = [Role::Descriptors, Role::Tail, Role::Foreign];

/// An entry, and what it has to say.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) entry: u64,
    pub(super) depth: usize,
    pub(super) says: Entry,
}

impl Sample {
    pub(super) fn leaf(format: &AnyFormat, leaf: Leaf, depth: usize) -> Self {
        Self {
            entry: (format.leaf)(leaf, depth),
            depth,
            says: Entry::Leaf(leaf),
        }
    }

    pub(super) fn link(format: &AnyFormat, frame: Pfn, shared: bool, depth: usize) -> Self {
        let link = Link::of(true, shared);
        Self {
            entry: (format.table)(frame, shared),
            depth,
            says: Entry::Table { frame, link },
        }
    }

    /// The same after it was invalidated; `None` if it is not this library's.
    pub(super) fn invalidated(self, format: &AnyFormat) -> Option<Self> {
        let says = match self.says {
            Entry::Leaf(leaf) if leaf.role != Role::Foreign => Entry::InvalidLeaf(leaf),
            Entry::Table { frame, link } if link != Link::Foreign => Entry::InvalidTable { frame },
            _ => return None,
        };
        let entry = (format.invalidated)(self.entry);
        Some(Self {
            entry,
            says,
            ..self
        })
    }

    /// The same with `bits` in place of the status bits.
    pub(super) fn with_status(self, format: &AnyFormat, bits: u64) -> Self {
        let entry = self.entry & !format.status_bits | bits;
        Self { entry, ..self }
    }

    /// Fails unless the entry says what it has to say.
    pub(super) fn read(self, format: &AnyFormat) -> Verdict {
        let found = (format.decode)(self.entry, self.depth);
        equal(kind(self.says), kind(found), "what kind an entry is of")?;
        match (self.says, found) {
            (Entry::Leaf(expected), Entry::Leaf(found))
            | (Entry::InvalidLeaf(expected), Entry::InvalidLeaf(found)) => {
                same_frame(expected.block.first(), found.block.first())?;
                let orders = [expected, found].map(|leaf| u64::from(leaf.block.order().get()));
                equal(orders[0], orders[1], "the order of a leaf")?;
                ensure(expected.role == found.role, "the role of a leaf")?;
                let writable = [expected, found].map(|leaf| u64::from(leaf.writable));
                equal(writable[0], writable[1], "whether a leaf allows stores")
            }
            (
                Entry::Table { frame, link },
                Entry::Table {
                    frame: found,
                    link: other,
                },
            ) => {
                same_frame(frame, found)?;
                ensure(link == other, "whose a link is")
            }
            (Entry::InvalidTable { frame }, Entry::InvalidTable { frame: found }) => {
                same_frame(frame, found)
            }
            _ => Ok(()),
        }
    }
}

fn same_frame(expected: Pfn, found: Pfn) -> Verdict {
    equal(expected.get(), found.get(), "where an entry points")
}

/// A number for what an entry is: 0 free, 1 a link, 2 a leaf, 3 and 4 these invalidated, 5
/// reserved.
fn kind(entry: Entry) -> u64 {
    match entry {
        Entry::Free => 0,
        Entry::Table { .. } => 1,
        Entry::Leaf(_) => 2,
        Entry::InvalidTable { .. } => 3,
        Entry::InvalidLeaf(_) => 4,
        Entry::Reserved => 5,
    }
}

/// Whether what an entry says is that it is this library's.
pub(super) fn is_own(entry: Entry) -> bool {
    match entry {
        Entry::Leaf(leaf) => leaf.role != Role::Foreign,
        Entry::Table { link, .. } => link != Link::Foreign,
        Entry::InvalidTable { .. } | Entry::InvalidLeaf(_) => true,
        Entry::Free | Entry::Reserved => false,
    }
}

/// The depth of the tables that hold base pages.
pub(super) fn last_depth(format: &AnyFormat) -> usize {
    format.levels.len().saturating_sub(1)
}

/// The size of a leaf of `level`.
fn order(format: &AnyFormat, level: &Level) -> Option<Order> {
    let pages = level.shift.checked_sub(format.granule.shift())?;
    Order::new(u8::try_from(pages).ok()?)
}

/// The depths that have leaves, with the size of each.
pub(super) fn leaf_depths(format: &AnyFormat) -> impl Iterator<Item = (usize, Option<Order>)> {
    let levels = format.levels.iter().enumerate();
    levels
        .filter(|(_, level)| level.leaf)
        .map(|(depth, level)| (depth, order(format, level)))
}

/// How many blocks of `order` have all of their frames in entries.
pub(super) fn blocks(format: &AnyFormat, order: Order) -> u64 {
    (format.last_frame.get() + 1) >> order.get()
}

/// Numbers up to `last`: both ends, each bit alone, all bits below it, and some of every second bit.
pub(super) fn numbers(last: u64) -> impl Iterator<Item = u64> {
    let ends = [0, last, last.saturating_sub(1)];
    let halves = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa].map(|bits: u64| bits & last);
    let edges = bits(u64::MAX).flat_map(|bit| [bit, bit - 1]);
    let edges = edges.filter(move |number| *number <= last);
    ends.into_iter().chain(halves).chain(edges)
}

/// The bits of `mask`, each alone.
pub(super) fn bits(mask: u64) -> impl Iterator<Item = u64> {
    (0..64)
        .map(|bit| 1 << bit)
        .filter(move |bit| bit & mask != 0)
}

/// The bits that hardware may have set of its own: each alone, none, and all combinations as long
/// as there are at most eight bits.
pub(super) fn statuses(format: &AnyFormat) -> impl Iterator<Item = u64> {
    let mut next = Some(format.status_bits);
    let combinations = core::iter::from_fn(move || {
        let current = next?;
        next = current
            .checked_sub(1)
            .map(|below| below & format.status_bits);
        Some(current)
    });
    bits(format.status_bits)
        .chain([0])
        .chain(combinations.take(256))
}

/// Words to try at `depth`: each bit alone, all but each, some without a pattern, and entries that
/// the format makes with one or two bits the other way round.
pub(super) fn words(format: &AnyFormat, depth: usize) -> impl Iterator<Item = u64> {
    let mut state: u64 = 1;
    let mixed = core::iter::from_fn(move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        Some(state ^ state >> 31)
    });
    let single = bits(u64::MAX).flat_map(|bit| [bit, !bit]);
    let level = format.levels.get(depth).filter(|level| level.leaf);
    let block = level
        .and_then(|level| order(format, level))
        .and_then(|order| Block::new(Pfn::ZERO, order));
    let leaf = block.map(|block| Leaf {
        block,
        role: Role::Descriptors,
        writable: true,
    });
    let leaf = leaf.map(|leaf| (format.leaf)(leaf, depth));
    let link = (depth < last_depth(format)).then(|| (format.table)(Pfn::ZERO, false));
    let pairs = || bits(u64::MAX).flat_map(|bit| bits(u64::MAX).map(move |other| bit | other));
    let disturbed = [leaf, link]
        .into_iter()
        .flatten()
        .flat_map(move |entry| pairs().map(move |pair| entry ^ pair));
    single
        .chain([u64::MAX])
        .chain(mixed.take(1000))
        .chain(disturbed)
}

/// Shows leaves of each depth that has some, each of `roles`, writable and not, of frames from the
/// first to the last.
pub(super) fn each_leaf(
    format: &AnyFormat,
    roles: &[Role],
    visit: &mut dyn FnMut(Sample) -> Verdict,
) -> Verdict {
    for (depth, order) in leaf_depths(format) {
        let Some(order) = order else {
            return fail("an entry translates whole base pages");
        };
        let Some(last) = blocks(format, order).checked_sub(1) else {
            continue;
        };
        for number in numbers(last) {
            let first = Pfn::new(number << order.get());
            let Some(block) = first.and_then(|first| Block::new(first, order)) else {
                return fail("a frame up to the last can be named");
            };
            for (role, writable) in roles.iter().flat_map(|role| [(role, true), (role, false)]) {
                let role = *role;
                visit(Sample::leaf(
                    format,
                    Leaf {
                        block,
                        role,
                        writable,
                    },
                    depth,
                ))?;
            }
        }
    }
    Ok(())
}

/// Shows links of each depth that has tables below it, private and shared, to frames from the first
/// to the last.
pub(super) fn each_link(format: &AnyFormat, visit: &mut dyn FnMut(Sample) -> Verdict) -> Verdict {
    for depth in 0..last_depth(format) {
        for frame in numbers(format.last_frame.get()).filter_map(Pfn::new) {
            visit(Sample::link(format, frame, false, depth))?;
            visit(Sample::link(format, frame, true, depth))?;
        }
    }
    Ok(())
}

/// Shows all leaves and links that the format makes.
pub(super) fn each(format: &AnyFormat, visit: &mut dyn FnMut(Sample) -> Verdict) -> Verdict {
    each_leaf(format, &ALL_ROLES, visit)?;
    each_link(format, visit)
}

/// Shows all leaves and links that are this library's.
pub(super) fn each_own(format: &AnyFormat, visit: &mut dyn FnMut(Sample) -> Verdict) -> Verdict {
    each_leaf(format, &OWN_ROLES, visit)?;
    each_link(format, visit)
}
