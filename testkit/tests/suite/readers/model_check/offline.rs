//! Memory that comes online and goes offline beside readers.

use super::super::protocol::{NoReference, Put, Sight, clear, get, latest, link, set};
use super::world::{Access, Flaw, FrameSight, LINKED, NOTHING, Of, UNFOLLOWED, World, beside};
use super::{fails, holds, holds_for_most};
use core::cell::Cell;
use loom::thread;
use std::rc::Rc;

/// Takes a reference to the page of the first frame if it is online, and gives it back.
fn read(world: &World) {
    let _ = finds(world);
}

/// The same. Says whether it had one.
pub(super) fn finds(world: &World) -> bool {
    let guard = world.enter();
    let sight = FrameSight {
        world,
        frame: 0,
        seen: Cell::new(None),
    };
    let found = get(&sight);
    drop(guard);
    match found {
        Ok(head) => {
            assert_eq!(world.head(0), head);
            // SAFETY: 1: taken just now. The owner has another one.
            assert_eq!(unsafe { world.count(head).put() }, Put::Shared);
            true
        }
        Err(NoReference::NotOnline | NoReference::Refused) => false,
    }
}

/// Memory comes online: the frame of bits, the descriptors, and last the bit.
fn online(world: &World) {
    world.bits_memory.with_mut(|_| ());
    assert!(link(&world.map_entry, 0, LINKED));
    world.holders[0].change_memory();
    world.map(0, 0);
    set(&world.bits, 1);
}

/// Memory goes offline, if its page can be frozen.
fn offline(world: &World) {
    if !world.freeze(0) {
        return;
    }
    if world.flaw != Flaw::NoWithdrawal {
        clear(&world.bits, 1);
        assert!(link(&world.map_entry, LINKED, 0));
    }
    world.wait();
    world.bits_memory.with_mut(|_| ());
    world.map(0, NOTHING);
    world.flush();
    world.holders[0].change_memory();
}

fn comes_online<const READERS: usize>(flaw: Flaw) {
    // A CPU that faults walks again, by what others have done before: no flush is needed for that.
    beside::<READERS>(&World::new(0, flaw, false), read, online);
}

fn goes_offline<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(&World::new(2, flaw, true), read, offline);
}

/// What is thawed is found again, and whoever is refused meanwhile has changed nothing.
fn is_thawed(flaw: Flaw) {
    let world = World::new(2, flaw, true);
    beside::<1>(&world, read, |world| {
        if world.freeze(0) {
            clear(&world.bits, 1);
            world.wait();
            set(&world.bits, 1);
            world.unfreeze(0);
        }
    });
    assert!(finds(&world));
}

/// Takes a reference to the page of the first frame if it is online. Whoever has one finds the page, also
/// who looks again.
fn read_twice(world: &World) {
    let sight = || FrameSight {
        world,
        frame: 0,
        seen: Cell::new(None),
    };
    let guard = world.enter();
    let found = get(&sight());
    drop(guard);
    let Ok(head) = found else { return };
    let guard = world.enter();
    assert!(sight().is_online(), "there is a reference to the page");
    drop(guard);
    // SAFETY: 1: taken just now. The owner has another one.
    assert_eq!(unsafe { world.count(head).put() }, Put::Shared);
}

/// What was frozen is thawed at once, while readers may be at what they found before.
fn is_thawed_at_once<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(&World::new(2, flaw, true), read_twice, |world| {
        if world.freeze(0) {
            clear(&world.bits, 1);
            if flaw == Flaw::ThawedFirst {
                world.unfreeze(0);
                set(&world.bits, 1);
            } else {
                set(&world.bits, 1);
                world.unfreeze(0);
            }
        }
    });
}

/// One sets a bit and makes the entry followed, while another one clears the other bit and then ends
/// that, as thawing does beside the writer. In the end the bit that is set is found.
fn a_bit_is_set_while_the_last_one_is_cleared(flaw: Flaw) {
    let world = World::new(2, flaw, true);
    let settle = |world: &World, from: u64, to: u64| {
        while latest(&world.map_entry) == from && !link(&world.map_entry, from, to) {}
    };
    let thawing = {
        let world = Rc::clone(&world);
        thread::spawn(move || {
            set(&world.bits, 2);
            settle(&world, UNFOLLOWED, LINKED);
        })
    };
    clear(&world.bits, 1);
    if latest(&world.bits) == 0 {
        settle(&world, LINKED, UNFOLLOWED);
        if flaw != Flaw::NoSecondLook && latest(&world.bits) != 0 {
            settle(&world, UNFOLLOWED, LINKED);
        }
    }
    thawing.join().unwrap();
    assert_eq!(latest(&world.map_entry), LINKED);
}

#[test]
fn memory_comes_online_beside_readers() {
    holds(comes_online::<1>);
    holds_for_most(comes_online::<2>);
}

#[test]
fn who_finds_memory_online_finds_its_descriptors() {
    fails(Flaw::Relaxed(Of::Bits, Access::SetBits), comes_online::<1>);
    fails(Flaw::Relaxed(Of::Bits, Access::Load), comes_online::<1>);
}

#[test]
fn who_follows_an_entry_finds_its_bits() {
    fails(
        Flaw::Relaxed(Of::Entry, Access::Exchange),
        comes_online::<1>,
    );
    fails(Flaw::Relaxed(Of::Entry, Access::Load), comes_online::<1>);
}

#[test]
fn memory_goes_offline_beside_readers() {
    holds(goes_offline::<1>);
    holds_for_most(goes_offline::<2>);
}

#[test]
fn without_freezing_withdrawing_or_waiting_memory_goes_while_somebody_reads_it() {
    fails(Flaw::NoFreeze, goes_offline::<1>);
    fails(Flaw::NoWithdrawal, goes_offline::<1>);
    fails(Flaw::NoWait, goes_offline::<1>);
}

#[test]
fn what_is_thawed_is_found_again() {
    holds(is_thawed);
}

#[test]
fn who_has_a_reference_finds_the_page_that_is_thawed_at_once() {
    holds(is_thawed_at_once::<1>);
    holds_for_most(is_thawed_at_once::<2>);
    fails(Flaw::ThawedFirst, is_thawed_at_once::<1>);
}

#[test]
fn an_entry_with_a_bit_is_followed_in_the_end() {
    holds(a_bit_is_set_while_the_last_one_is_cleared);
    fails(
        Flaw::NoSecondLook,
        a_bit_is_set_while_the_last_one_is_cleared,
    );
}
