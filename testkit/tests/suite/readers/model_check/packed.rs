//! Pages whose heads are packed change their order beside readers: one of two frames becomes two, and back, and two
//! with their descriptors in place become one.
//!
//! An old head stays frozen where it is, and a page of another order has another place. So what a reader finds there
//! is refused, also without a second look, which pages in place need.
//!
//! ```text
//!   the vmemmap, two addresses      their own descriptors | a stub of the one page | a stub of two pages
//!   places for heads, three         the one page's, and one for each of the two
//! ```

use super::super::protocol::count::ReferenceCount;
use super::super::protocol::word::Word;
use super::super::protocol::{Put, Sight, get};
use super::world::{Flaw, Holder, NOTHING};
use super::{fails, holds, holds_for_most};
use core::sync::atomic::Ordering;
use loom::sync::atomic::AtomicUsize;
use loom::sync::{RwLock, RwLockReadGuard};
use loom::thread;
use std::rc::Rc;

/// How the two frames are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Two pages, each with its descriptor in place.
    InPlace,
    /// One page, and its head packed.
    One,
    /// Two pages, and their heads packed.
    Two,
}

/// Addresses of heads: those of the two frames' descriptors, and three places for packed ones.
const ONE: usize = 2;
const TWO: usize = 3;
const ADDRESSES: usize = 5;

/// Behind the holders of the five: frames of stubs.
const STUB_OF_ONE: usize = 5;
const STUB_OF_TWO: usize = 6;

impl Form {
    /// Where the heads are.
    const fn heads(self) -> &'static [usize] {
        match self {
            Self::InPlace => &[0, 1],
            Self::One => &[ONE],
            Self::Two => &[TWO, TWO + 1],
        }
    }

    /// What the descriptor of `frame` is mapped to.
    const fn descriptor(self, frame: usize) -> usize {
        match self {
            Self::InPlace => frame,
            Self::One => STUB_OF_ONE,
            Self::Two => STUB_OF_TWO,
        }
    }
}

struct World {
    holders: [Holder; 7],
    /// What each address is mapped to.
    entries: [AtomicUsize; ADDRESSES],
    accesses: RwLock<()>,
    grace: RwLock<()>,
    flaw: Flaw,
}

impl World {
    fn new(form: Form, flaw: Flaw) -> Rc<Self> {
        let entries = core::array::from_fn(|at| {
            AtomicUsize::new(match at {
                ..ONE => form.descriptor(at),
                _ if form.heads().contains(&at) => at,
                _ => NOTHING,
            })
        });
        Rc::new(Self {
            holders: core::array::from_fn(|holder| match holder {
                ..ADDRESSES => Holder::new(holder, 1, true, flaw),
                _ => Holder::new(holder, 0, false, flaw),
            }),
            entries,
            accesses: RwLock::new(()),
            grace: RwLock::new(()),
            flaw,
        })
    }

    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.grace.read().unwrap()
    }

    fn wait(&self) {
        drop(self.grace.write().unwrap());
    }

    fn flush(&self) {
        drop(self.accesses.write().unwrap());
    }

    fn map(&self, at: usize, holder: usize) {
        self.entries[at].store(holder, Ordering::Release);
    }

    /// What a CPU does at `at`, by one access.
    fn access<T>(&self, at: usize, stores: bool, with: impl FnOnce(usize, &Holder) -> T) -> T {
        let _under_way = self.accesses.read().unwrap();
        let holder = self.entries[at].load(Ordering::Acquire);
        assert_ne!(holder, NOTHING, "a fault at {at}");
        let memory = &self.holders[holder];
        assert!(memory.is_writable() || !stores, "a store to a stub");
        memory.read_memory();
        with(holder, memory)
    }

    /// The head that the descriptor of `frame` names now.
    fn head(&self, frame: usize) -> usize {
        let word = self.access(frame, false, |holder, _| holder);
        // The order, loaded by itself, may be what another descriptor says.
        let order = match self.flaw {
            Flaw::TwoLoads => self.access(frame, false, |holder, _| holder),
            _ => word,
        };
        match (word, order) {
            (..ONE, _) => frame,
            (_, STUB_OF_ONE) => ONE,
            (_, STUB_OF_TWO) => TWO + frame,
            // Where a base page would have its place, which it has not.
            _ => panic!("a fault where there is no place"),
        }
    }

    fn count(&self, at: usize) -> ReferenceCount<CountAt<'_>> {
        ReferenceCount {
            word: CountAt { world: self, at },
        }
    }

    /// The two frames, used as `from` says, are to be used as `to` says.
    fn change(&self, from: Form, to: Form) {
        for (frozen, head) in from.heads().iter().enumerate() {
            if !self.count(*head).try_freeze(1) {
                return self.thaw(&from.heads()[..frozen]);
            }
        }
        if self.flaw != Flaw::NoWait {
            self.wait();
        }
        // New heads are there before anything leads to them; those in place with the exchange.
        for head in to.heads() {
            self.holders[*head].change_memory();
            self.holders[*head].set_count(u32::MAX);
            if *head >= ONE {
                self.map(*head, *head);
            }
        }
        for frame in 0..ONE {
            self.map(frame, to.descriptor(frame));
        }
        self.flush();
        self.thaw(to.heads());
        if self.flaw != Flaw::NoSecondWait {
            self.wait();
        }
        for head in from.heads() {
            if *head >= ONE {
                self.map(*head, NOTHING);
            }
        }
        self.flush();
        for head in from.heads() {
            self.holders[*head].change_memory();
        }
    }

    fn thaw(&self, heads: &[usize]) {
        for head in heads {
            // SAFETY: 1 and 2: it was frozen with one reference, or made so.
            unsafe { self.count(*head).unfreeze(1) };
        }
    }
}

/// A count at an address.
struct CountAt<'w> {
    world: &'w World,
    at: usize,
}

impl CountAt<'_> {
    fn access<T>(&self, stores: bool, with: impl FnOnce(&Holder) -> T) -> T {
        self.world.access(self.at, stores, |_, holder| with(holder))
    }
}

impl Word for CountAt<'_> {
    type Value = u32;

    fn load(&self, order: Ordering) -> u32 {
        self.access(false, |holder| Word::load(holder.count(), order))
    }

    fn store(&self, value: u32, order: Ordering) {
        self.access(true, |holder| Word::store(holder.count(), value, order));
    }

    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.access(true, |holder| {
            Word::compare_exchange(holder.count(), current, new, success, failure)
        })
    }

    fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |holder| Word::fetch_sub(holder.count(), value, order))
    }

    fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |holder| Word::fetch_or(holder.count(), value, order))
    }

    fn fetch_and(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |holder| Word::fetch_and(holder.count(), value, order))
    }
}

/// What a reader sees of the second frame.
struct FrameSight<'w> {
    world: &'w World,
}

impl Sight for FrameSight<'_> {
    type Head = usize;

    fn is_online(&self) -> bool {
        true
    }

    fn head(&self) -> usize {
        self.world.head(1)
    }

    fn try_get(&self, head: usize) -> bool {
        self.world.count(head).try_get()
    }

    fn put(&self, head: usize) {
        // SAFETY: 1: `try_get` took one. The owner has another one.
        assert_eq!(unsafe { self.world.count(head).put() }, Put::Shared);
    }
}

/// Takes a reference to the page of the second frame, if it can be had, looks whether the frame is part of the page,
/// and gives it back.
fn read(world: &World) {
    let guard = world.enter();
    let found = get(&FrameSight { world });
    drop(guard);
    if let Ok(head) = found {
        assert_eq!(world.head(1), head, "the wrong page");
        // SAFETY: 1: it was taken just now. The owner has another one.
        assert_eq!(unsafe { world.count(head).put() }, Put::Shared);
    }
}

fn beside<const READERS: usize>(flaw: Flaw, from: Form, to: Form) {
    let world = World::new(from, flaw);
    let readers: [_; READERS] = core::array::from_fn(|_| {
        let world = Rc::clone(&world);
        thread::spawn(move || read(&world))
    });
    world.change(from, to);
    for reader in readers {
        reader.join().unwrap();
    }
}

fn one_becomes_two<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(flaw, Form::One, Form::Two);
}

fn two_become_one<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(flaw, Form::Two, Form::One);
}

fn heads_are_packed<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(flaw, Form::InPlace, Form::One);
}

fn heads_are_put_in_place<const READERS: usize>(flaw: Flaw) {
    beside::<READERS>(flaw, Form::One, Form::InPlace);
}

#[test]
fn packed_pages_change_their_order_beside_a_reader() {
    holds(one_becomes_two::<1>);
    holds(two_become_one::<1>);
}

#[test]
fn heads_are_packed_and_put_in_place_beside_a_reader() {
    holds(heads_are_packed::<1>);
    holds(heads_are_put_in_place::<1>);
}

#[test]
fn packed_pages_change_beside_two_readers() {
    holds_for_most(one_becomes_two::<2>);
    holds_for_most(heads_are_put_in_place::<2>);
}

#[test]
fn without_the_first_wait_a_reader_stores_to_a_stub() {
    fails(Flaw::NoWait, heads_are_packed::<1>);
}

#[test]
fn without_the_second_wait_a_reader_looks_for_a_head_that_is_gone() {
    fails(Flaw::NoSecondWait, one_becomes_two::<1>);
    fails(Flaw::NoSecondWait, two_become_one::<1>);
    fails(Flaw::NoSecondWait, heads_are_put_in_place::<1>);
}

#[test]
fn a_stub_that_is_looked_at_twice_leads_nowhere() {
    fails(Flaw::TwoLoads, heads_are_put_in_place::<1>);
}
