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

/// Makes memory of each form one of each other form, and back.
fn there_and_back(kind: BackendKind, memory: PfnRange, forms: &[Form]) {
    let model = kind.model();
    let costs = Costs::of(kind, &model);
    let ranges = [memory];
    let largest = forms.iter().map(|form| form.order).max().unwrap();
    kind.testbed(&Setup::new(&ranges), |bed| {
        for from in forms {
            for to in forms {
                let when = format!("{from:?} to {to:?}");
                let shares = bed.shares_tables();
                let expected = |form: &Form| {
                    let tables = if shares { form.tables } else { Tables::Private };
                    costs.report(&[form.used(memory)], tables)
                };
                let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
                let region = bed.online(&before).unwrap();
                assert_eq!(bed.audit(), expected(from), "{from:?}");
                let done = reorder(bed, &after, memory, largest).unwrap();
                assert_eq!((done.rest, done.notes.is_empty()), (None, true), "{when}");
                assert_eq!(bed.audit(), expected(to), "{when}");
                bed.assert_described(memory, to.order);
                if from == to {
                    assert_eq!(done.flushes, 0, "{when}");
                }
                let back = reorder(bed, &before, memory, largest).unwrap();
                assert_eq!((back.rest, back.notes.is_empty()), (None, true), "{when}");
                assert_eq!(bed.audit(), expected(from), "{when}, and back");
                bed.assert_described(memory, from.order);
                bed.offline(region);
            }
        }
    });
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
    there_and_back(kind, sizes.blocks(sizes.natural(), 8, 2), &forms);
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
    there_and_back(kind, sizes.blocks(sizes.gigantic(), 4, 2), &forms);
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
    there_and_back(kind, sizes.blocks(sizes.gigantic(), 4, 1), &forms);
}

on_backends!(all:
    small_pages_of_every_order_and_policy,
    large_pages_of_every_policy,
);

on_backends!(pages_of_4k: large_pages_and_huge_leaves);
