//! Memory of one span of the online map that is frozen in several parts, each by itself.

use super::bed::Bed;
use super::freeze::{Online, on_pages};
use hosted::BackendKind;
use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Page};
use mm_core::vmemmap::{Frozen, OfflineError};
use std::thread;
use testkit::on_backends;
use testkit::threads::ThreadKernel;

type FrozenPage<'m, 'p> = Frozen<'m, 'p, Page<Mask>, ThreadKernel<'m>>;

fn freeze<'m, 'p>(
    bed: &mut Bed<'m>,
    online: &Online<'p>,
    frames: PfnRange,
) -> Result<FrozenPage<'m, 'p>, OfflineError> {
    // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
    unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, frames, 1) }
}

/// Ends a freeze.
fn end<'m>(bed: &mut Bed<'m>, frozen: FrozenPage<'m, '_>, goes_offline: bool) {
    if goes_offline {
        let quiescent = frozen.wait();
        let offlined = bed.vmemmap.commit(&mut bed.table, quiescent);
        offlined.map(drop).unwrap();
    }
}

/// Each of two is thawed or goes offline, one after the other, while a third one waits.
fn each_of_several_freezes_ends_by_itself(kind: BackendKind) {
    let both = [false, true];
    for (first_goes, second_goes) in both
        .map(|first| both.map(|second| (first, second)))
        .concat()
    {
        on_pages(kind, |bed, online| {
            let first = freeze(bed, online, online.page(0)).unwrap();
            let second = freeze(bed, online, online.page(2)).unwrap();
            let third = freeze(bed, online, online.page(3)).unwrap();
            online.expect(bed, &[0, 2, 3]);
            end(bed, second, second_goes);
            let gone: Vec<_> = [0, 3].into_iter().chain(second_goes.then_some(2)).collect();
            online.expect(bed, &gone);
            end(bed, first, first_goes);
            let ended = [(first_goes, 0), (second_goes, 2)];
            let ended = ended.into_iter().filter(|(goes, _)| *goes);
            let gone: Vec<_> = ended.map(|(_, page)| page).collect();
            online.expect(bed, &[&gone[..], &[3]].concat());
            drop(third);
            online.expect(bed, &gone);
            online.rest_goes_offline(bed, &gone);
        });
    }
}

/// The frame of bits stays as long as one of them may be thawed, and no longer.
fn bits_go_with_the_last_freeze(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let pages = [0, 1, 2, 3].map(|page| freeze(bed, online, online.page(page)).unwrap());
        for (page, frozen) in (1..).zip(pages) {
            assert_eq!(bed.audit().online_map_frames, 1);
            end(bed, frozen, true);
            assert_eq!(bed.audit().online_map_frames, u64::from(page < 4));
        }
        online.expect(bed, &[0, 1, 2, 3]);
    });
}

/// What overlaps is refused by name, and changes nothing.
fn what_is_frozen_is_not_frozen_twice(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let frozen = freeze(bed, online, online.page(1)).unwrap();
        let first = online.page(1).start();
        let more = PfnRange::new(online.all.start(), 3 * online.order.frames()).unwrap();
        for frames in [online.page(1), more] {
            let refused = freeze(bed, online, frames).err();
            assert_eq!(refused, Some(OfflineError::Frozen { first }));
            online.expect(bed, &[1]);
        }
        drop(frozen);
        let frozen = freeze(bed, online, more).unwrap();
        end(bed, frozen, true);
        online.rest_goes_offline(bed, &[0, 1, 2]);
    });
}

/// Other CPUs thaw while the holder of the lock takes the same pages away as soon as it may.
fn what_is_thawed_on_another_cpu_can_be_taken_away_at_once(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        for round in 0..8 {
            let one = freeze(bed, online, online.page(round % 2)).unwrap();
            let other = freeze(bed, online, online.page(2)).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| drop(one));
                scope.spawn(|| drop(other));
                for page in [2, round % 2] {
                    loop {
                        let frames = online.page(page);
                        let table = &mut bed.table;
                        match bed.vmemmap.depopulate(table, &online.pagemap, frames) {
                            Ok(_) => break,
                            Err(OfflineError::Frozen { .. }) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    let frames = online.page(page);
                    let populated = bed
                        .vmemmap
                        .populate(&mut bed.table, &online.pagemap, frames);
                    populated.map(drop).unwrap();
                }
            });
            online.expect(bed, &[]);
        }
        online.rest_goes_offline(bed, &[]);
    });
}

on_backends!(radix:
    each_of_several_freezes_ends_by_itself,
    bits_go_with_the_last_freeze,
    what_is_frozen_is_not_frozen_twice,
    what_is_thawed_on_another_cpu_can_be_taken_away_at_once,
);
