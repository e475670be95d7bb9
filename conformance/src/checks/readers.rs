//! What readers find, at every flush.

use super::fold::TAILS;
use super::reorder_parts::order_at;
use crate::bench::{Bench, part};
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, equal, fail};
use crate::watch::{PAGES, Part, Session};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{Change, Changed, FoldError, OfflineError, Region};

/// Of how many parts a page is made at most, of which another part changes.
const MOST: usize = 12;

/// All pages, of which the first and the last are online and stay, and the others are as `middle` says.
fn beside(session: &Session<'_, '_>, middle: [Part; 2]) -> [Part; 4] {
    let large = Some(session.large);
    let [second, third] = middle;
    [
        Part::still(session.page(0), large),
        second,
        third,
        Part::still(session.page(PAGES - 1), large),
    ]
}

/// Brings all pages online.
#[inline(never)]
fn online<'p>(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, Stop> {
    let order = Some(pagemap.geometry().order());
    let all = [Part::of(session.range, None, order)];
    let mut region = None;
    session.doing(&all, false, &mut |session| {
        let online = session.vmemmap.online(&mut session.table, pagemap);
        region = Some(session.expect(online, "memory comes online")?);
        Ok(())
    })?;
    region.map_or_else(|| fail("memory comes online"), Ok)
}

/// Takes all of `region` offline that is online. `orders`: what each page is in.
#[inline(never)]
fn offline(
    session: &mut Session<'_, '_>,
    region: Region<'_>,
    orders: [Option<Order>; PAGES as usize],
) -> Verdict {
    let mut pages = 0..PAGES;
    let all = orders.map(|order| {
        let page = pages.next().unwrap_or_default();
        Part::of(session.page(page), order, None)
    });
    let mut region = Some(region);
    session.doing(&all, false, &mut |session| {
        let Some(region) = region.take() else {
            return Ok(());
        };
        let offlined = session.vmemmap.offline(&mut session.table, region);
        session.expect(offlined, "memory goes offline").map(|_| ())
    })
}

/// Brings `piece` online, or takes it offline, while readers find `parts`.
#[inline(never)]
fn piece(
    session: &mut Session<'_, '_>,
    parts: &[Part],
    pagemap: &DevPagemap<'_>,
    (piece, comes): (PfnRange, bool),
) -> Verdict {
    session.doing(parts, false, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        if comes {
            let online = vmemmap.populate(table, pagemap, piece);
            session.expect(online, "a piece comes online").map(|_| ())
        } else {
            let offline = vmemmap.depopulate(table, pagemap, piece);
            session.expect(offline, "a piece goes offline").map(|_| ())
        }
    })
}

/// Brings all pages online by one piece, or takes them offline.
#[inline(never)]
fn all(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'_>, comes: bool) -> Verdict {
    let range = session.range;
    let order = Some(pagemap.geometry().order());
    let mut parts = [Part::of(range, None, order)];
    if !comes {
        parts.iter_mut().for_each(Part::turn);
    }
    piece(session, &parts, pagemap, (range, comes))
}

pub(super) fn readers_find_memory_when_all_of_it_is_online_and_none_after_the_wait<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.beside_readers(coming_and_going)
}

fn coming_and_going(session: &mut Session<'_, '_>) -> Verdict {
    TAILS
        .into_iter()
        .try_for_each(|tails| by_pieces(session, tails))
}

/// A page comes online by pieces between two others, and goes by pieces.
fn by_pieces(session: &mut Session<'_, '_>, tails: Tails) -> Verdict {
    let order = Some(session.large);
    let ranges = [session.range];
    let pagemap = session.pagemap(&ranges, session.large, tails)?;
    let [first, page, third, fourth] = [0, 1, 2, 3].map(|index| session.page(index));
    let fourth = Part::still(fourth, None);
    let (without, with) = (Part::still(third, None), Part::still(third, order));
    let comes = [Part::of(first, None, order), without, fourth];
    piece(session, &comes, &pagemap, (first, true))?;
    let first = Part::still(first, order);
    let comes = [first, Part::of(third, None, order), fourth];
    piece(session, &comes, &pagemap, (third, true))?;
    let around = |middle| [first, middle, with, fourth];
    let last = session.subsections(page).last();
    for one in session.subsections(page) {
        let after = order.filter(|_| Some(one) == last);
        let parts = around(Part::of(page, None, after));
        piece(session, &parts, &pagemap, (one, true))?;
    }
    // The last one goes first, and the page with it.
    let others = session.subsections(page).filter(|one| Some(*one) != last);
    let mut before = order;
    for one in last.into_iter().chain(others) {
        let waits = session.waits();
        let parts = around(Part::of(page, before, None));
        piece(session, &parts, &pagemap, (one, false))?;
        ensure(
            before.is_none() || session.waits() > waits,
            "readers are waited for before what they have found goes",
        )?;
        before = None;
    }
    let goes = [first, Part::of(third, order, None), fourth];
    piece(session, &goes, &pagemap, (third, false))?;
    let first = session.page(0);
    let goes = [Part::of(first, order, None), without, fourth];
    piece(session, &goes, &pagemap, (first, false))
}

pub(super) fn readers_find_pages_as_before_or_as_after_while_their_order_changes<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    bench.beside_readers(changing_orders)
}

fn changing_orders(session: &mut Session<'_, '_>) -> Verdict {
    for tails in TAILS {
        for frozen in [false, true] {
            let ranges = [session.range];
            let large = session.large;
            let pagemap = session.pagemap(&ranges, large, tails)?;
            all(session, &pagemap, true)?;
            there_and_back(session, (tails, frozen))?;
            a_part_and_back(session, (tails, frozen))?;
            all(session, &pagemap, false)?;
        }
    }
    Ok(())
}

/// One page becomes smaller ones, and the page that it was.
#[inline(never)]
fn there_and_back(session: &mut Session<'_, '_>, (tails, frozen): (Tails, bool)) -> Verdict {
    let ranges = [session.range];
    let (large, small) = (session.large, session.small);
    let [second, third] = [session.page(1), session.page(2)];
    for [from, to] in [[large, small], [small, large]] {
        let pagemap = session.pagemap(&ranges, to, tails)?;
        let changes = Part::of(second, Some(from), Some(to));
        let parts = beside(session, [changes, Part::still(third, Some(large))]);
        reorder(session, &parts, frozen, (&pagemap, second))?;
    }
    Ok(())
}

/// A part of a page becomes base pages, and the page becomes one again.
#[inline(never)]
fn a_part_and_back(session: &mut Session<'_, '_>, (tails, frozen): (Tails, bool)) -> Verdict {
    let ranges = [session.range];
    let large = session.large;
    let page = session.page(2);
    let per_page = session.per_page();
    let some = part(page, large.frames() / 2 + per_page, per_page);
    let mut parts = [Part::still(session.page(0), Some(large)); MOST];
    let mut rest = Some(page);
    let mut count = 1;
    for place in parts.iter_mut().skip(1) {
        let Some(left) = rest else { break };
        let order = order_at(large, some, Order::BASE, left.start());
        let frames = match some.contains(left.start()) {
            true => some.frames(),
            false => order.frames(),
        };
        let (frames, behind) = left.take_first(frames);
        *place = Part::of(frames, Some(large), Some(order));
        count += 1;
        rest = behind;
    }
    for (to, frames) in [(Order::BASE, some), (large, page)] {
        let pagemap = session.pagemap(&ranges, to, tails)?;
        let (parts, _) = parts.split_at_mut(count);
        reorder(session, parts, frozen, (&pagemap, frames))?;
        parts.iter_mut().for_each(Part::turn);
    }
    Ok(())
}

/// Makes `frames` what `pagemap` says: frozen first, or while nobody has references.
#[inline(never)]
fn reorder(
    session: &mut Session<'_, '_>,
    parts: &[Part],
    frozen: bool,
    (pagemap, frames): (&DevPagemap<'_>, PfnRange),
) -> Verdict {
    session.fill_reserve(pagemap, frames)?;
    let waits = session.waits();
    session.doing(parts, frozen, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        if !frozen {
            let done = vmemmap.reorder(table, pagemap, frames);
            let done = done.map_err(|stopped| stopped.error);
            return session.expect(done, "pages change their order").map(|_| ());
        }
        // SAFETY: 1: the references are those with which memory came online, and not used.
        let changed = unsafe { vmemmap.reorder_beside_readers(table, pagemap, frames, (1, 1)) };
        is_whole(session, changed)
    })?;
    ensure(!frozen || session.waits() > waits, "readers are waited for")?;
    session.vmemmap.empty_reserve(&mut session.table);
    Ok(())
}

/// Checks that all was changed that was frozen, and nothing busy.
fn is_whole(session: &Session<'_, '_>, changed: Result<Changed, FoldError>) -> Verdict {
    let changed = session.expect(changed, "pages are frozen to be changed")?;
    equal(0, changed.busy, "pages that are busy")?;
    let changed = changed.error.map_or(Ok(()), Err);
    session.expect(changed, "pages that are frozen are changed")
}

pub(super) fn readers_find_the_same_pages_while_they_are_folded_and_unfolded<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    bench.beside_readers(folding)
}

fn folding(session: &mut Session<'_, '_>) -> Verdict {
    for tails in TAILS {
        let ranges = [session.range];
        let large = session.large;
        let pagemap = session.pagemap(&ranges, large, tails)?;
        all(session, &pagemap, true)?;
        for fold in [false, true] {
            folded(session, &pagemap, fold)?;
        }
        let base = session.pagemap(&ranges, Order::BASE, Tails::None)?;
        for (change, pagemap, orders) in [
            (Change::Unfold, &pagemap, [large, large]),
            (Change::Reshape, &base, [large, Order::BASE]),
            (Change::Fold, &pagemap, [Order::BASE, large]),
        ] {
            changed(session, change, pagemap, orders)?;
        }
        all(session, &pagemap, false)?;
    }
    Ok(())
}

/// The second page changes from one order to another one, and those beside it stay.
fn second(session: &Session<'_, '_>, [from, to]: [Order; 2]) -> (PfnRange, [Part; 4]) {
    let [second, third] = [session.page(1), session.page(2)];
    let stays = Part::still(third, Some(session.large));
    let changes = Part::of(second, Some(from), Some(to));
    (second, beside(session, [changes, stays]))
}

/// The second page is folded or unfolded while nobody has references.
#[inline(never)]
fn folded(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'_>, fold: bool) -> Verdict {
    let (page, parts) = second(session, [session.large; 2]);
    session.doing(&parts, false, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        let folded = match fold {
            true => vmemmap.fold(table, pagemap, page),
            false => vmemmap.unfold(table, pagemap, page),
        };
        let folded = session.expect(folded, "memory is folded and unfolded")?;
        equal(1, folded.changed, "compound pages that were changed")
    })
}

/// The second page is frozen, and changed then.
#[inline(never)]
fn changed(
    session: &mut Session<'_, '_>,
    change: Change,
    pagemap: &DevPagemap<'_>,
    orders: [Order; 2],
) -> Verdict {
    let (page, parts) = second(session, orders);
    session.doing_quietly(&parts, true, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        // SAFETY: 1: the references are those with which memory came online, and not used.
        let changed =
            unsafe { vmemmap.change_beside_readers(table, change, pagemap, page, (1, 1)) };
        is_whole(session, changed)
    })
}

pub(super) fn readers_get_no_reference_to_what_is_frozen_and_find_it_again_when_it_thaws<
    H: Harness,
>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.beside_readers(freezing)
}

fn freezing(session: &mut Session<'_, '_>) -> Verdict {
    for tails in TAILS {
        let ranges = [session.range];
        let large = Some(session.large);
        let pagemap = session.pagemap(&ranges, session.large, tails)?;
        let region = online(session, &pagemap)?;
        is_busy(session, &pagemap)?;
        is_thawed(session, &pagemap)?;
        is_committed(session, &pagemap)?;
        offline(session, region, [large, None, large, large])?;
    }
    Ok(())
}

/// The second page, to which nothing is done in the end.
fn still(session: &Session<'_, '_>) -> (PfnRange, [Part; 4]) {
    let stays = |page| Part::still(session.page(page), Some(session.large));
    (session.page(1), beside(session, [stays(1), stays(2)]))
}

/// What somebody refers to is busy, and stays.
#[inline(never)]
fn is_busy(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'_>) -> Verdict {
    let (page, parts) = still(session);
    let reference = session.reference(page.last())?;
    session.doing_quietly(&parts, false, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        // SAFETY: 1 and 2: the one reference with which each page came online.
        let refused = unsafe { vmemmap.try_offline(table, pagemap, page, 1) };
        let is_busy = refused.is_err_and(|error| matches!(error, OfflineError::Busy { .. }));
        ensure(is_busy, "what is referred to stays online")
    })?;
    equal(
        page.start().get(),
        reference.first().get(),
        "what is referred to",
    )
}

/// What is frozen to go offline is not found. Thawed it is, with the references that it had.
#[inline(never)]
fn is_thawed(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'_>) -> Verdict {
    let (page, parts) = still(session);
    session.doing_quietly(&parts, false, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        // SAFETY: 1 to 3: the references with which memory came online; it is dropped next.
        let frozen = unsafe { vmemmap.freeze(table, pagemap, page, 1) };
        let frozen = session.expect(frozen, "memory is frozen")?;
        let found = session.found(page.start());
        drop(frozen);
        ensure(found.is_none(), "what is frozen to go offline is not found")
    })
}

/// Frozen memory goes offline after a wait.
#[inline(never)]
fn is_committed(session: &mut Session<'_, '_>, pagemap: &DevPagemap<'_>) -> Verdict {
    let (page, mut parts) = still(session);
    if let Some(goes) = parts.get_mut(1) {
        *goes = Part::of(page, Some(session.large), None);
    }
    let waits = session.waits();
    session.doing(&parts, false, &mut |session| {
        let Session { vmemmap, table, .. } = session;
        // SAFETY: 1 to 3: the references with which memory came online; it is committed next.
        let frozen = unsafe { vmemmap.freeze(table, pagemap, page, 1) };
        let frozen = session.expect(frozen, "memory is frozen")?;
        session.look();
        let quiescent = frozen.wait();
        session.look();
        let offline = session.vmemmap.commit(&mut session.table, quiescent);
        session
            .expect(offline, "frozen memory goes offline")
            .map(|_| ())
    })?;
    equal(1, session.waits() - waits, "waits for readers")
}
