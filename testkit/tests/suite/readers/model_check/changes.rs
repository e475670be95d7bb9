//! Pages that change their order beside readers: one page becomes two, and two become one.

use super::super::protocol::{Put, get};
use super::world::{Access, Flaw, FrameSight, Of, TAILS, World, beside};
use super::{fails, holds, holds_for_most};
use core::cell::Cell;
use core::sync::atomic::Ordering;
use loom::thread;
use std::rc::Rc;

/// Takes a reference to the page of the second frame, if it can be had, looks whether the frame is part
/// of the page, and gives it back.
fn read(world: &World) {
    let guard = world.enter();
    let sight = FrameSight {
        world,
        frame: 1,
        seen: Cell::new(None),
    };
    let found = get(&sight);
    drop(guard);
    if let Ok(head) = found {
        // As long as the reference is there, the frame is part of this page.
        assert_eq!(world.head(1), head, "the wrong page");
        // SAFETY: 1: it was taken just now. The owner has another one.
        assert_eq!(unsafe { world.count(head).put() }, Put::Shared);
    }
}

/// One page becomes two. The second one's descriptor gets memory of its own.
fn split(world: &World) {
    if !world.freeze(0) {
        return;
    }
    world.wait();
    world.holders[1].change_memory();
    world.holders[1].set_count(if world.flaw == Flaw::NoFreeze {
        1
    } else {
        u32::MAX
    });
    world.map(1, 1);
    world.flush();
    world.unfreeze(0);
    world.unfreeze(1);
}

/// Two pages become one. What the second one's descriptor was in is freed.
fn merge(world: &World) {
    if !world.freeze(0) {
        return;
    }
    if !world.freeze(1) {
        return world.unfreeze(0);
    }
    world.wait();
    world.map(1, TAILS);
    world.flush();
    world.holders[1].change_memory();
    world.unfreeze(0);
}

fn one_becomes_two<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(&World::new(1, flaw, true), read, split);
}

fn two_become_one<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(&World::new(2, flaw, true), read, merge);
}

/// Others learn of a flush by nothing but what the writer does afterwards, as by a broadcast that no
/// CPU takes part in.
fn one_becomes_two_without_interrupts(flaw: Flaw) {
    beside::<1>(&World::new(1, flaw, false), read, split);
}

/// A holder gives its reference back, and somebody else freezes the page and frees it.
fn a_page_is_frozen_after_its_references_are_given_back(flaw: Flaw) {
    let world = World::new(2, flaw, true);
    let holder = {
        let world = Rc::clone(&world);
        assert!(world.count(1).try_get());
        thread::spawn(move || {
            world.head(1);
            // SAFETY: 1: taken above.
            let _ = unsafe { world.count(1).put() };
        })
    };
    if world.count(1).try_freeze(1) {
        world.holders[1].change_memory();
    }
    holder.join().unwrap();
}

/// Two holders give their references back, and the last one frees the page.
fn the_last_holder_frees_the_page(flaw: Flaw) {
    let world = World::new(2, flaw, true);
    assert!(world.count(1).try_get());
    let end = |world: &World| {
        world.head(1);
        // SAFETY: 1: one of two.
        if unsafe { world.count(1).put() } == Put::Last {
            world.holders[1].change_memory();
        }
    };
    let other = {
        let world = Rc::clone(&world);
        thread::spawn(move || end(&world))
    };
    end(&world);
    other.join().unwrap();
}

#[test]
fn a_page_becomes_two_beside_a_reader() {
    holds(one_becomes_two::<1>);
    holds(one_becomes_two_without_interrupts);
}

#[test]
fn two_pages_become_one_beside_a_reader() {
    holds(two_become_one::<1>);
}

#[test]
fn without_a_second_look_a_reader_has_a_page_that_the_frame_is_no_part_of() {
    fails(Flaw::NoSecondLook, one_becomes_two::<1>);
}

#[test]
fn without_freezing_a_reader_has_a_page_that_becomes_another() {
    fails(Flaw::NoFreeze, one_becomes_two::<1>);
    fails(Flaw::NoFreeze, two_become_one::<1>);
}

#[test]
fn without_a_wait_a_reader_stores_to_a_tail() {
    fails(Flaw::NoWait, two_become_one::<1>);
}

#[test]
fn without_a_flush_a_reader_reads_what_was_freed() {
    fails(Flaw::NoFlush, two_become_one::<1>);
}

#[test]
fn whoever_takes_a_reference_sees_what_was_flushed_before_the_page_was_unfrozen() {
    let case = one_becomes_two_without_interrupts;
    fails(Flaw::Relaxed(Of::Count, Access::Exchange), case);
    fails(Flaw::Relaxed(Of::Count, Access::Store), case);
}

#[test]
fn what_holders_did_is_done_before_the_page_is_frozen_or_freed() {
    holds(a_page_is_frozen_after_its_references_are_given_back);
    holds(the_last_holder_frees_the_page);
    let case = a_page_is_frozen_after_its_references_are_given_back;
    fails(Flaw::Relaxed(Of::Count, Access::Exchange), case);
    fails(
        Flaw::Half(Of::Count, Access::Subtract, Ordering::Acquire),
        case,
    );
    let case = the_last_holder_frees_the_page;
    fails(
        Flaw::Half(Of::Count, Access::Subtract, Ordering::Release),
        case,
    );
    fails(
        Flaw::Half(Of::Count, Access::Subtract, Ordering::Acquire),
        case,
    );
}

#[test]
fn pages_change_beside_two_readers() {
    holds_for_most(one_becomes_two::<2>);
    holds_for_most(two_become_one::<2>);
}
