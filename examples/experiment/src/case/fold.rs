//! What is folded: memory that came online as base pages.

use super::{Case, Leaves, Size, ram_case, with_tails_per_compound};
use crate::memory::MemoryMap;
use crate::{Subject, TableShape};
use core::fmt;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tables, Tails};

/// Base pages, and the compound pages that they are folded into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    /// As it comes online.
    pub(crate) base: Case,
    /// As it is folded.
    pub(crate) folded: Case,
}

impl Fold {
    /// As it is unfolded: compound pages, each vmemmap page with a frame of its own.
    pub(crate) fn unfolded(&self) -> Case {
        Case {
            page_bytes: self.folded.page_bytes,
            order: self.folded.order,
            ..self.base
        }
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            heads,
            tails,
            tables,
            ..
        } = self.folded;
        let leaves = match self.base.leaves {
            Leaves::Huge => "huge",
            Leaves::Small => "small",
        };
        write!(
            f,
            "{:<5} {:<13} {:<8} {leaves:<6}",
            Size(self.folded.page_bytes),
            super::TailsName(heads, tails),
            super::tables_name(tables),
        )
    }
}

/// How large a huge leaf may be for all orders to be tried on one, in bytes. Larger ones (512 MiB
/// with 64 KiB pages) are slow to fill in an emulator: the smallest order has to do.
const MOST_IN_A_LEAF: u64 = 64 << 20;

/// Everything that is folded: compound pages of each order, with tails per compound page and for
/// all, from huge leaves and from base pages; with shared tables where there can be any.
pub(crate) fn folds<'f>(
    model: &'f MemoryModel,
    shape: &'f TableShape,
    subject: &'f Subject<'f>,
) -> impl Iterator<Item = Fold> + 'f {
    let policies = [
        (Tails::PerCompound, Tables::Private),
        (Tails::PerCompound, Tables::Shared),
        (Tails::PerOrder, Tables::Private),
        (Tails::PerOrder, Tables::Shared),
    ];
    let orders = subject.compound.iter();
    let all = orders.flat_map(move |order| policies.map(|policy| (*order, policy)));
    let all = all.flat_map(|way| [Leaves::Huge, Leaves::Small].map(|leaves| (way, leaves)));
    let smallest = subject.compound.iter().min();
    let in_time = 1 << shape.leaf_span() <= MOST_IN_A_LEAF;
    let all = all.filter(move |((order, _), leaves)| {
        in_time || *leaves == Leaves::Small || Some(order) == smallest
    });
    all.filter_map(move |((order, (tails, tables)), leaves)| {
        let base = Case {
            leaves,
            piece: Piece::Range,
            ..ram_case(model, shape, range(leaves, model, shape, subject)?)
        };
        let folded = with_tails_per_compound(Case {
            page_bytes: order.bytes(model.granule())?,
            order,
            ..base
        });
        let folded = Case {
            tails,
            tables,
            ..folded
        };
        let possible = tables == Tables::Private || folded.shares_tables(model, shape);
        possible.then_some(Fold { base, folded })
    })
}

/// Memory of one compound page of the largest order, and of a huge leaf where there are to be any:
/// of the device where it has so much, else addresses behind all memory.
fn range(
    leaves: Leaves,
    model: &MemoryModel,
    shape: &TableShape,
    subject: &Subject<'_>,
) -> Option<PfnRange> {
    let largest = subject.compound.iter().copied().max()?;
    let unit = match leaves {
        Leaves::Huge => largest.max(described_by_leaf(model, shape)?),
        Leaves::Small => largest,
    };
    let of_device = super::whole_blocks(subject.device, unit);
    let range = of_device.or_else(|| behind(subject.map, unit))?;
    Some(range.take_first(unit.frames()).0)
}

/// The order of the memory whose descriptors a huge leaf maps, or a leaf table.
pub(crate) fn described_by_leaf(model: &MemoryModel, shape: &TableShape) -> Option<Order> {
    let frames = (1u64 << shape.leaf_span()) / model.descriptor_bytes();
    Order::new(u8::try_from(frames.trailing_zeros()).ok()?)
}

/// The first block of `unit` behind all memory.
fn behind(map: &MemoryMap, unit: Order) -> Option<PfnRange> {
    let ranges = map.ram.as_slice().iter().chain(map.device.as_slice());
    let last = ranges.map(|range| range.last().get()).max()?;
    let first = Pfn::new((last + 1).checked_next_multiple_of(unit.frames())?)?;
    PfnRange::new(first, unit.frames()).ok()
}
