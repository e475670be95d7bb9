//! From every order and policy to every other one, and back.

use super::{Form, reorder};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{Tables, Tails};
use testkit::testbed::{Costs, Setup, Sizes};
use testkit::{OnBackend, on_backends};

const TAILS: [Tails; 3] = [Tails::None, Tails::PerCompound, Tails::PerOrder];

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Makes memory of each form one of each other form, each time from the form that it has become: every
/// change there is, once. Whatever it was before, it costs what it would if it had come online so.
fn every_change(kind: BackendKind, memory: PfnRange, forms: &[Form]) {
    let model = kind.model();
    let costs = Costs::of(kind, &model);
    let ranges = [memory];
    let largest = forms.iter().map(|form| form.order).max().unwrap();
    let changes = changes_of(forms.len());
    kind.testbed(&Setup::new(&ranges), |bed| {
        let shares = bed.shares_tables();
        let expected = |form: &Form| {
            let tables = if shares { form.tables } else { Tables::Private };
            costs.report(&[form.used(memory)], tables)
        };
        let first = &forms[changes[0].0];
        let region = bed.online(&first.pagemap(&model, &ranges)).unwrap();
        assert_eq!(bed.audit(), expected(first), "{first:?}");
        for (from, to) in changes {
            let (from, to) = (&forms[from], &forms[to]);
            let when = format!("{from:?} to {to:?}");
            let done = reorder(bed, &to.pagemap(&model, &ranges), memory, largest).unwrap();
            assert_eq!((done.rest, done.notes.is_empty()), (None, true), "{when}");
            assert_eq!(bed.audit(), expected(to), "{when}");
            bed.assert_described(memory, to.order);
            if from == to {
                assert_eq!(done.flushes, 0, "{when}");
            }
        }
        bed.offline(region);
    });
}

/// Every pair of two of `count` forms, and of one form twice, each once. A pair begins with what the one
/// before it ends with.
fn changes_of(count: usize) -> Vec<(usize, usize)> {
    let mut changes = Vec::new();
    for low in 0..count {
        changes.push((low, low));
        for high in low + 2..count {
            changes.extend([(low, high), (high, low)]);
        }
        changes.extend((low + 1 < count).then_some((low, low + 1)));
    }
    changes.extend((1..count).rev().map(|high| (high, high - 1)));
    changes
}

fn small_pages_of_every_order_and_policy(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let orders = [
        Order::BASE,
        order(2),
        sizes.vmemmap_page(),
        sizes.small(),
        sizes.natural(),
    ];
    let forms = orders.iter().flat_map(|order| {
        let tails = TAILS.iter();
        tails.map(move |tails| Form::new(*order, *tails, Tables::Private))
    });
    let forms: Vec<Form> = forms.collect();
    every_change(kind, sizes.blocks(sizes.natural(), 8, 2), &forms);
}

fn large_pages_of_every_policy(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let mut forms = Vec::new();
    for order in [sizes.natural(), sizes.table(), sizes.gigantic()] {
        for tails in [Tails::PerCompound, Tails::PerOrder] {
            for tables in [Tables::Private, Tables::Shared] {
                forms.push(Form::new(order, tails, tables));
            }
        }
    }
    every_change(kind, sizes.blocks(sizes.gigantic(), 4, 2), &forms);
}

fn large_pages_and_huge_leaves(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let mut forms = Vec::new();
    for order in [Order::BASE, sizes.natural(), sizes.gigantic()] {
        for huge_leaves in [false, true] {
            let form = Form::new(order, Tails::None, Tables::Private);
            forms.push(Form {
                huge_leaves,
                ..form
            });
        }
    }
    forms.push(Form::new(sizes.natural(), Tails::PerOrder, Tables::Private));
    forms.push(Form::new(sizes.gigantic(), Tails::PerOrder, Tables::Shared));
    every_change(kind, sizes.blocks(sizes.gigantic(), 4, 1), &forms);
}

on_backends!(all:
    small_pages_of_every_order_and_policy,
    large_pages_of_every_policy,
);

on_backends!(pages_of_4k: large_pages_and_huge_leaves);

#[test]
fn every_change_is_there_once_and_begins_where_the_one_before_ends() {
    for count in 1..6 {
        let changes = changes_of(count);
        let mut each = changes.clone();
        each.sort_unstable();
        each.dedup();
        assert_eq!((changes.len(), each.len()), (count * count, count * count));
        assert!(changes.windows(2).all(|two| two[0].1 == two[1].0));
    }
}
