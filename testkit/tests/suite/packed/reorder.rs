//! Packed memory changes its order, and heads are packed and are in place again: what it costs, how much it takes
//! from the reserve, failures, and what is in heads.

use super::{assert_packed, report};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Piece, Tables, Tails};
use mm_core::vmemmap::{ReorderStopped, Reordered};
use testkit::testbed::{Costs, Setup, Sizes, Testbed, Used};
use testkit::{OnBackend, on_backends};

const NODE: NodeId = NodeId::new(0);

/// How memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    order: Order,
    heads: Heads,
    tails: Tails,
    tables: Tables,
}

impl Form {
    const fn packed(order: Order, tables: Tables) -> Self {
        let (heads, tails) = (Heads::Packed, Tails::PerOrder);
        Self {
            order,
            heads,
            tails,
            tables,
        }
    }

    const fn in_place(order: Order, tails: Tails) -> Self {
        Self {
            order,
            heads: Heads::InPlace,
            tails,
            tables: Tables::Private,
        }
    }

    fn pagemap<'p>(&self, model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
        let pages = Geometry::compound(self.order);
        let pagemap = DevPagemap::new(model, ranges, pages).unwrap();
        pagemap
            .with_heads(self.heads)
            .with_tails(self.tails)
            .with_tables(self.tables)
            .with_piece(Piece::Range)
            .with_huge_leaves(false)
    }

    /// Whether `memory` is as this says, and costs what it should.
    fn check(&self, bed: &mut dyn Testbed<'_>, kind: BackendKind, memory: PfnRange) {
        let model = kind.model();
        let tables = match bed.shares_tables() {
            true => self.tables,
            false => Tables::Private,
        };
        let is_packed = self.heads == Heads::Packed;
        let expected = match is_packed {
            true => report(kind, &[(memory, self.order)], tables),
            false => {
                let used = Used::compound(memory, self.order, self.tails);
                Costs::of(kind, &model).report(&[used], tables)
            }
        };
        assert_eq!(bed.audit(), expected, "{self:?}");
        match is_packed {
            true => assert_packed(bed, memory, self.order),
            false => bed.assert_described(memory, self.order),
        }
    }
}

/// Fills the reserve with what is needed, and changes orders with an allocator that refuses everything.
fn reorder(
    bed: &mut dyn Testbed<'_>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
    largest: Order,
) -> Result<Reordered, ReorderStopped> {
    let needed = bed.reserve_needed(pagemap, frames, largest);
    assert!(bed.fill_reserve(NODE, needed).unwrap().is_empty());
    let before = (bed.frames().allocations(), bed.frames().outstanding());
    bed.frames().fail_after(0);
    let done = bed.reorder(pagemap, frames);
    bed.frames().no_more_faults();
    let after = (bed.frames().allocations(), bed.frames().outstanding());
    // Where tables come from the page table's own allocator, these too.
    if done.is_ok() {
        assert_eq!(before, after, "nothing is allocated, and nothing freed");
    }
    bed.audit();
    bed.empty_reserve();
    done
}

/// Every change from one of `forms` to another one, and of each of them to itself, once.
fn every_change(kind: BackendKind, memory: PfnRange, forms: &[Form]) {
    let model = kind.model();
    let ranges = [memory];
    let largest = forms.iter().map(|form| form.order).max().unwrap();
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&forms[0].pagemap(&model, &ranges)).unwrap();
        let mut change_to = |form: &Form| {
            let pagemap = form.pagemap(&model, &ranges);
            let done = reorder(bed, &pagemap, memory, largest);
            let done = done.unwrap_or_else(|stopped| panic!("{form:?}: {stopped:?}"));
            assert_eq!((done.rest, done.notes.is_empty()), (None, true), "{form:?}");
            form.check(bed, kind, memory);
        };
        for (index, form) in forms.iter().enumerate() {
            change_to(form);
            change_to(form);
            for other in &forms[index + 1..] {
                change_to(other);
                change_to(form);
            }
        }
        bed.offline(region);
    });
}

fn small_pages_change_between_packed_and_in_place(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let forms = [
        Form::packed(sizes.natural(), Tables::Private),
        Form::packed(sizes.vmemmap_page(), Tables::Private),
        Form::in_place(Order::BASE, Tails::None),
        Form::in_place(Order::new(2).unwrap(), Tails::None),
        Form::in_place(sizes.natural(), Tails::None),
        Form::in_place(sizes.natural(), Tails::PerCompound),
        Form::in_place(sizes.natural(), Tails::PerOrder),
    ];
    every_change(kind, sizes.blocks(sizes.natural(), 8, 2), &forms);
}

fn large_packed_pages_change_their_order(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let forms = [
        Form::packed(sizes.gigantic(), Tables::Shared),
        Form::packed(sizes.natural(), Tables::Shared),
        Form::packed(sizes.natural(), Tables::Private),
        Form::packed(sizes.table(), Tables::Shared),
        Form::in_place(sizes.natural(), Tails::PerOrder),
    ];
    every_change(kind, sizes.blocks(sizes.gigantic(), 4, 1), &forms);
}

on_backends!(all:
    small_pages_change_between_packed_and_in_place,
    large_packed_pages_change_their_order,
);
