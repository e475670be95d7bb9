//! What is in the descriptors of folded and unfolded memory.

use super::{SHARED_TAILS, base_pages, compound, little_memory, memory};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::Tails;
use testkit::testbed::{Encoding, Setup, Sizes, Testbed};
use testkit::{OnBackend, on_backends};

fn pointers_name_the_right_head_after_either(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for (order, memory) in [
        (sizes.natural(), little_memory(sizes)),
        (sizes.table(), memory(sizes, 1)),
    ] {
        let ranges = [memory];
        let setup = Setup::new(&ranges).with_encoding(Encoding::Pointer);
        kind.testbed(&setup, |bed| {
            let region = bed.online(&base_pages(&model, &ranges, true)).unwrap();
            let folded_as = compound(&model, &ranges, order, Tails::PerCompound);
            bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
            bed.assert_described(ranges[0], order);
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            bed.assert_described(ranges[0], order);
            bed.offline(region);
        });
    }
}

/// A number for what is kept in the descriptor of `frame`.
fn seed(frame: Pfn) -> u64 {
    frame.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn states(bed: &dyn Testbed<'_>, frames: &[Pfn]) -> Vec<[u64; 4]> {
    let state = |frame: &Pfn| bed.state_of(*frame).unwrap();
    frames.iter().map(state).collect()
}

fn live_fields_of_the_head_page_survive(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let per_page = model.descriptors_per_page();
    for (memory, huge_leaves) in [(memory(sizes, 1), true), (little_memory(sizes), false)] {
        let ranges = [memory];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let base = base_pages(&model, &ranges, huge_leaves);
            let region = bed.online(&base).unwrap();
            let folded_as = compound(&model, &ranges, order, Tails::PerCompound);
            let folded_as = folded_as.with_huge_leaves(huge_leaves);
            // The head, the tails that real kernels keep state in, and the last of the head's page.
            let kept: Vec<Pfn> = (0..ranges[0].frames())
                .step_by(order.frames() as usize)
                .flat_map(|head| [0, 1, 3, per_page - 1].map(|tail| head + tail))
                .map(|index| ranges[0].start().saturating_add(index))
                .collect();
            for frame in &kept {
                bed.set_state_of(*frame, seed(*frame));
            }
            let lost = ranges[0].start().saturating_add(per_page);
            let never_set = bed.state_of(lost.saturating_add(1)).unwrap();
            bed.set_state_of(lost, seed(lost));
            let before = states(bed, &kept);
            bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(states(bed, &kept), before);
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(states(bed, &kept), before);
            // What tails outside the head's page had in them is gone, not mixed up; but for the
            // one reference of a base page.
            let [flags, _, mappings, private] = bed.state_of(lost).unwrap();
            let [old_flags, _, old_mappings, old_private] = never_set;
            assert_eq!(
                (flags, mappings, private),
                (old_flags, old_mappings, old_private)
            );
            bed.offline(region);
        });
    }
}

fn every_unfolded_page_has_memory_of_its_own(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [memory(sizes, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let folded_as = compound(&model, &ranges, order, Tails::PerCompound);
        let region = bed.online(&folded_as).unwrap();
        let folded = bed.audit();
        for huge_leaves in [false, true] {
            let folded_as = folded_as.with_huge_leaves(huge_leaves);
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            // One descriptor of each vmemmap page, another one in each.
            let sample: Vec<Pfn> = (0..ranges[0].frames() / model.descriptors_per_page())
                .map(|page| page * model.descriptors_per_page() + page % 61)
                .map(|index| ranges[0].start().saturating_add(index))
                .collect();
            for frame in &sample {
                bed.set_state_of(*frame, seed(*frame));
            }
            for frame in &sample {
                assert_eq!(bed.state_of(*frame).unwrap()[0], seed(*frame), "{frame}");
            }
            bed.audit();
            bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(bed.audit(), folded);
        }
        bed.offline(region);
    });
}

/// The middle of three huge leaves' memory, with both ends within leaves.
fn neighbours_are_left_as_they_are(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let quarter = sizes.table().frames() / 4;
    let ranges = [memory(sizes, 3)];
    let larger = Order::new(sizes.table().get() - 2).unwrap();
    for (tails, order) in [
        (Tails::PerOrder, sizes.natural()),
        (Tails::PerCompound, larger),
    ] {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges, true)).unwrap();
            let start = ranges[0].start().saturating_add(3 * quarter);
            let part = PfnRange::new(start, 6 * quarter).unwrap();
            let others: Vec<Pfn> = (0..ranges[0].frames())
                .step_by(model.descriptors_per_page() as usize / 4)
                .map(|index| ranges[0].start().saturating_add(index))
                .chain([
                    start.saturating_add(6 * quarter),
                    Pfn::new(start.get() - 1).unwrap(),
                ])
                .filter(|frame| !part.contains(*frame))
                .collect();
            for frame in &others {
                bed.set_state_of(*frame, seed(*frame));
            }
            let states_before = states(bed, &others);
            let (below, rest) = ranges[0].split_at(3 * quarter);
            let above = rest.unwrap().split_at(6 * quarter).1;
            let unchanged = |bed: &mut dyn Testbed<'_>| {
                bed.audit();
                assert_eq!(states(bed, &others), states_before);
                bed.assert_described(below.unwrap(), Order::BASE);
                bed.assert_described(above.unwrap(), Order::BASE);
                bed.assert_described(part, order);
            };
            let base = bed.audit();
            let folded_as = compound(&model, &ranges, order, tails);
            let folded = bed.fold(&folded_as, part).unwrap();
            assert_eq!(folded.changed, (6 * quarter) >> order.get());
            unchanged(bed);

            // One huge leaf is within the part and comes back; two are not, and come back when all
            // of them are asked for.
            bed.unfold(&folded_as, part).map(drop).unwrap();
            unchanged(bed);
            let partly = bed.audit();
            assert_eq!(partly.descriptor_frames, base.descriptor_frames);
            assert_eq!(partly.leaf_tables, if bed.has_tables() { 2 } else { 0 });
            let rest = bed.unfold(&folded_as, ranges[0]).unwrap();
            let all = ranges[0].frames() >> order.get();
            assert_eq!((rest.changed, rest.unchanged), (0, all));
            unchanged(bed);
            assert_eq!(bed.audit(), base);
            bed.offline(region);
        });
    }
}

/// The page that others read while it is exchanged says the same before and after.
fn head_pages_keep_their_frames_while_they_are_folded(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 9, 4)];
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges, false)).unwrap();
            let folded_as = compound(&model, &ranges, order, tails).with_huge_leaves(false);
            let heads = |bed: &dyn Testbed<'_>| -> Vec<Option<Pfn>> {
                let head = |index: u64| sizes.blocks(order, 9 + index, 1).start();
                (0..4).map(|index| bed.holder_of(head(index))).collect()
            };
            let before = heads(bed);
            bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(heads(bed), before);
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(heads(bed), before);
            bed.offline(region);
        });
    }
}

on_backends!(all:
    pointers_name_the_right_head_after_either,
    live_fields_of_the_head_page_survive,
    every_unfolded_page_has_memory_of_its_own,
    neighbours_are_left_as_they_are,
    head_pages_keep_their_frames_while_they_are_folded,
);
