//! Several freezes in one entry of the online map, and what is thawed while somebody wants it.

use super::super::protocol::{clear, latest, link, set, state, update};
use super::offline::finds;
use super::world::{Access, CONTENT, FREEZE, Flaw, LINKED, NOTHING, Of, UNFOLLOWED, World};
use super::{fails, holds};
use loom::thread;
use std::rc::Rc;

/// Freezes the page that begins with `frame`.
fn freeze(world: &World, frame: usize) {
    update(&world.map_entry, |entry| match world.flaw {
        Flaw::FreezesNotCounted => Some(entry | FREEZE),
        _ => Some(entry + FREEZE),
    });
    assert!(world.freeze(frame));
    clear(&world.bits, 1 << frame);
    if latest(&world.bits) == 0 {
        let followed = |entry| entry & CONTENT == LINKED;
        update(&world.map_entry, |entry| {
            followed(entry).then_some(entry - LINKED + UNFOLLOWED)
        });
    }
}

/// The entry counts one freeze less.
fn end_freeze(world: &World) {
    update(&world.map_entry, |entry| match world.flaw {
        Flaw::FreezesNotCounted => (entry & FREEZE != 0).then_some(entry & !FREEZE),
        _ => Some(entry - FREEZE),
    });
}

/// Thaws it again, on any CPU.
fn thaw(world: &World, frame: usize) {
    if world.flaw == Flaw::EndedFirst {
        end_freeze(world);
    }
    world.bits_memory.with(|_| ());
    set(&world.bits, 1 << frame);
    let unfollowed = |entry| entry & CONTENT == UNFOLLOWED;
    update(&world.map_entry, |entry| {
        unfollowed(entry).then_some(entry - UNFOLLOWED + LINKED)
    });
    world.unfreeze(frame);
    if world.flaw != Flaw::EndedFirst {
        end_freeze(world);
    }
}

/// What was frozen goes offline, and the frame of bits with it if nobody may need that any more.
fn commit(world: &World, frame: usize) {
    end_freeze(world);
    let is_unused = state(&world.map_entry) == UNFOLLOWED && latest(&world.bits) == 0;
    if is_unused && link(&world.map_entry, UNFOLLOWED, 0) {
        world.bits_memory.with_mut(|_| ());
    }
    world.map(frame, NOTHING);
    world.flush();
    world.holders[frame].change_memory();
}

/// Two pages are frozen. One is thawed on another CPU, while the other one goes offline.
fn one_is_thawed_while_the_other_goes_offline(flaw: Flaw) {
    let world = World::new(2, flaw, false);
    freeze(&world, 0);
    freeze(&world, 1);
    let thawing = {
        let world = Rc::clone(&world);
        thread::spawn(move || thaw(&world, 0))
    };
    commit(&world, 1);
    thawing.join().unwrap();
    assert!(finds(&world), "what was thawed is found");
}

/// Both are thawed at once, each on a CPU.
fn both_are_thawed_at_once(flaw: Flaw) {
    let world = World::new(2, flaw, false);
    freeze(&world, 0);
    freeze(&world, 1);
    let thawing = {
        let world = Rc::clone(&world);
        thread::spawn(move || thaw(&world, 0))
    };
    thaw(&world, 1);
    thawing.join().unwrap();
    assert!(finds(&world));
    assert_eq!(latest(&world.map_entry), LINKED, "no freeze is left");
    assert_eq!(latest(&world.bits), 3);
}

/// A page is thawed on another CPU. The holder of the lock takes it away as soon as it is not frozen any more,
/// as who does not look at references does.
fn what_is_thawed_is_taken_away_at_once(flaw: Flaw) {
    let world = World::new(2, flaw, false);
    freeze(&world, 1);
    let thawing = {
        let world = Rc::clone(&world);
        thread::spawn(move || thaw(&world, 1))
    };
    let has_freezes = state(&world.map_entry) >= FREEZE;
    let is_frozen = has_freezes && world.count(1).is_frozen();
    if !is_frozen || flaw == Flaw::NoLook {
        clear(&world.bits, 2);
        world.wait();
        world.map(1, NOTHING);
        world.flush();
        world.holders[1].change_memory();
    }
    thawing.join().unwrap();
    assert!(finds(&world), "the other page");
}

#[test]
fn one_is_thawed_while_another_one_of_its_span_goes_offline() {
    holds(one_is_thawed_while_the_other_goes_offline);
}

#[test]
fn all_of_a_span_is_thawed_at_once() {
    holds(both_are_thawed_at_once);
}

#[test]
fn what_is_not_frozen_any_more_can_be_taken_away() {
    holds(what_is_thawed_is_taken_away_at_once);
}

#[test]
fn without_a_count_of_freezes_the_bits_go_before_the_last_one_ends() {
    let case = one_is_thawed_while_the_other_goes_offline;
    fails(Flaw::FreezesNotCounted, case);
    fails(Flaw::EndedFirst, case);
}

#[test]
fn without_a_look_at_what_is_frozen_it_goes_while_it_is_thawed() {
    fails(Flaw::NoLook, what_is_thawed_is_taken_away_at_once);
}

#[test]
fn whoever_does_not_find_it_frozen_sees_that_it_was_thawed() {
    let case = what_is_thawed_is_taken_away_at_once;
    fails(Flaw::Relaxed(Of::Count, Access::Load), case);
    fails(Flaw::Relaxed(Of::Count, Access::Store), case);
    fails(Flaw::Relaxed(Of::Entry, Access::Load), case);
}
