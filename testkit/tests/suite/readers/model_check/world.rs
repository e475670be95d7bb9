//! What the protocol runs in: two frames, a page table, translation caches, a grace period.

use super::super::protocol::count::ReferenceCount;
use super::super::protocol::word::Word;
use super::super::protocol::{Put, Sight, is_set, state};
use core::sync::atomic::Ordering;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use loom::sync::{RwLock, RwLockReadGuard};
use loom::thread;
use std::rc::Rc;

/// Which words there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The entry of the online map.
    Entry,
    /// Its bits.
    Bits,
    /// Counts of references.
    Count,
}

/// Which access to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Load,
    Store,
    Exchange,
    Subtract,
    SetBits,
}

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// An access orders nothing.
    Relaxed(Of, Access),
    /// An exchange orders only what is before it, or only what is after it.
    Half(Of, Access, Ordering),
    /// Counts are not frozen.
    NoFreeze,
    /// A grace period is not waited for.
    NoWait,
    /// The grace period before old heads go is not waited for.
    NoSecondWait,
    /// Of a stub, the word is loaded, and then the order.
    TwoLoads,
    /// The head is not looked at again.
    NoSecondLook,
    /// The bit is not withdrawn.
    NoWithdrawal,
    /// The page table is not flushed before frames are freed and pages are thawed.
    NoFlush,
    /// Pages are thawed before they are found again.
    ThawedFirst,
    /// The entry says that there is a freeze, and not how many.
    FreezesNotCounted,
    /// A freeze ends before the memory is found again.
    EndedFirst,
    /// Nobody looks whether a page is frozen.
    NoLook,
}

impl Flaw {
    /// What becomes of an ordering.
    fn order(self, of: Of, access: Access, order: Ordering) -> Ordering {
        match self {
            Self::Relaxed(flawed, at) if (flawed, at) == (of, access) => Ordering::Relaxed,
            Self::Half(flawed, at, half) if (flawed, at) == (of, access) => half,
            _ => order,
        }
    }
}

/// A word of the protocol's, with the flaw.
pub(super) struct FlawedWord<T> {
    word: T,
    of: Of,
    flaw: Flaw,
}

macro_rules! flawed {
    ($atomic:ty, $value:ty) => {
        impl FlawedWord<$atomic> {
            pub(super) fn new(value: $value, of: Of, flaw: Flaw) -> Self {
                let word = <$atomic>::new(value);
                Self { word, of, flaw }
            }

            fn order(&self, access: Access, order: Ordering) -> Ordering {
                self.flaw.order(self.of, access, order)
            }
        }

        impl Word for FlawedWord<$atomic> {
            type Value = $value;

            fn load(&self, order: Ordering) -> $value {
                self.word.load(self.order(Access::Load, order))
            }

            fn store(&self, value: $value, order: Ordering) {
                self.word.store(value, self.order(Access::Store, order));
            }

            fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let success = self.order(Access::Exchange, success);
                self.word.compare_exchange(current, new, success, failure)
            }

            fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.word
                    .fetch_sub(value, self.order(Access::Subtract, order))
            }

            fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.word
                    .fetch_or(value, self.order(Access::SetBits, order))
            }

            fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.word.fetch_and(value, order)
            }
        }
    };
}

flawed!(AtomicU32, u32);
flawed!(AtomicU64, u64);

/// A frame with one descriptor.
pub(super) struct Holder {
    /// The frame that its page begins with.
    head: AtomicUsize,
    count: FlawedWord<AtomicU32>,
    is_writable: bool,
    /// Whether it is there: read by whoever reads the descriptor, changed by whoever writes or frees
    /// the frame. The checker tells if both may happen at once.
    memory: UnsafeCell<()>,
}

impl Holder {
    pub(super) fn new(head: usize, references: u32, is_writable: bool, flaw: Flaw) -> Self {
        Self {
            head: AtomicUsize::new(head),
            count: FlawedWord::<AtomicU32>::new(references, Of::Count, flaw),
            is_writable,
            memory: UnsafeCell::new(()),
        }
    }

    /// The frame is written to by whoever owns it alone, or freed.
    pub(super) fn change_memory(&self) {
        self.memory.with_mut(|_| ());
    }

    pub(super) const fn is_writable(&self) -> bool {
        self.is_writable
    }

    pub(super) const fn count(&self) -> &FlawedWord<AtomicU32> {
        &self.count
    }

    pub(super) fn read_memory(&self) {
        self.memory.with(|_| ());
    }

    /// The count, as the writer reaches it: by the direct map.
    pub(super) fn set_count(&self, references: u32) {
        Word::store(&self.count, references, Ordering::Relaxed);
    }
}

/// What a descriptor's address is mapped to.
pub(super) const NOTHING: usize = usize::MAX;

/// Two frames. Their descriptors are in `holders` 0 and 1, where they have memory of their own, or in
/// the third, which holds a tail.
pub(super) struct World {
    pub(super) holders: [Holder; 3],
    entries: [AtomicUsize; 2],
    /// Held by each access, and by a flush: a CPU ends what it does by an old translation. `None` where
    /// a flush is known to others by nothing but what the writer does afterwards.
    accesses: Option<RwLock<()>>,
    grace: RwLock<()>,
    pub(super) map_entry: FlawedWord<AtomicU64>,
    pub(super) bits: FlawedWord<AtomicU64>,
    /// Whether the frame of bits is there.
    pub(super) bits_memory: UnsafeCell<()>,
    pub(super) flaw: Flaw,
}

/// The holder of tails.
pub(super) const TAILS: usize = 2;
/// What is in the map's entry: it leads to its bits, and readers follow it or not.
pub(super) const CONTENT: u64 = 3;
pub(super) const LINKED: u64 = 1;
pub(super) const UNFOLLOWED: u64 = 2;
/// A freeze that the entry counts.
pub(super) const FREEZE: u64 = 4;

impl World {
    /// Both frames are online as one page, or as two, each with one reference; or neither is.
    pub(super) fn new(pages: usize, flaw: Flaw, flushes_wait: bool) -> Rc<Self> {
        let is_online = pages > 0;
        let second = match pages {
            0 => NOTHING,
            1 => TAILS,
            _ => 1,
        };
        let first = if is_online { 0 } else { NOTHING };
        let word = |value, of| FlawedWord::<AtomicU64>::new(value, of, flaw);
        Rc::new(Self {
            holders: [
                Holder::new(0, 1, true, flaw),
                Holder::new(1, 1, true, flaw),
                Holder::new(0, 0, false, flaw),
            ],
            entries: [AtomicUsize::new(first), AtomicUsize::new(second)],
            accesses: flushes_wait.then(|| RwLock::new(())),
            grace: RwLock::new(()),
            map_entry: word(if is_online { LINKED } else { 0 }, Of::Entry),
            bits: word(is_online.into(), Of::Bits),
            bits_memory: UnsafeCell::new(()),
            flaw,
        })
    }

    /// Maps the descriptor of `frame`. The hardware's walk sees what was written before.
    pub(super) fn map(&self, frame: usize, holder: usize) {
        self.entries[frame].store(holder, Ordering::Release);
    }

    pub(super) fn flush(&self) {
        if let Some(accesses) = self
            .accesses
            .as_ref()
            .filter(|_| self.flaw != Flaw::NoFlush)
        {
            drop(accesses.write().unwrap());
        }
    }

    pub(super) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.grace.read().unwrap()
    }

    pub(super) fn wait(&self) {
        if self.flaw != Flaw::NoWait {
            drop(self.grace.write().unwrap());
        }
    }

    /// What a CPU does with the descriptor of `frame`, by one access.
    fn access<T>(&self, frame: usize, stores: bool, with: impl FnOnce(&Holder) -> T) -> T {
        let _under_way = self.accesses.as_ref().map(|all| all.read().unwrap());
        let holder = self.entries[frame].load(Ordering::Acquire);
        assert_ne!(
            holder, NOTHING,
            "a fault at the descriptor of frame {frame}"
        );
        let holder = &self.holders[holder];
        assert!(holder.is_writable || !stores, "a store to a tail");
        holder.read_memory();
        with(holder)
    }

    /// The head that the descriptor of `frame` names now.
    pub(super) fn head(&self, frame: usize) -> usize {
        self.access(frame, false, |holder| holder.head.load(Ordering::Relaxed))
    }

    /// The count of the page that begins with `frame`.
    pub(super) fn count(&self, frame: usize) -> ReferenceCount<MappedCount<'_>> {
        let word = MappedCount { world: self, frame };
        ReferenceCount { word }
    }

    /// Freezes the page that begins with `frame` and has one reference.
    pub(super) fn freeze(&self, frame: usize) -> bool {
        self.flaw == Flaw::NoFreeze || self.count(frame).try_freeze(1)
    }

    /// Ends that.
    pub(super) fn unfreeze(&self, frame: usize) {
        if self.flaw != Flaw::NoFreeze {
            // SAFETY: 1 and 2: it was frozen with one reference, or made so.
            unsafe { self.count(frame).unfreeze(1) };
        }
    }
}

/// A count at an address: each access to it is translated anew.
pub(super) struct MappedCount<'w> {
    world: &'w World,
    frame: usize,
}

impl MappedCount<'_> {
    fn access<T>(&self, stores: bool, with: impl FnOnce(&FlawedWord<AtomicU32>) -> T) -> T {
        self.world
            .access(self.frame, stores, |holder| with(&holder.count))
    }
}

impl Word for MappedCount<'_> {
    type Value = u32;

    fn load(&self, order: Ordering) -> u32 {
        self.access(false, |word| Word::load(word, order))
    }

    fn store(&self, value: u32, order: Ordering) {
        self.access(true, |word| Word::store(word, value, order));
    }

    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.access(true, |word| {
            Word::compare_exchange(word, current, new, success, failure)
        })
    }

    fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |word| Word::fetch_sub(word, value, order))
    }

    fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |word| Word::fetch_or(word, value, order))
    }

    fn fetch_and(&self, value: u32, order: Ordering) -> u32 {
        self.access(true, |word| Word::fetch_and(word, value, order))
    }
}

/// What a reader sees of a frame.
pub(super) struct FrameSight<'w> {
    pub(super) world: &'w World,
    pub(super) frame: usize,
    /// What it saw first, where it does not look again.
    pub(super) seen: core::cell::Cell<Option<usize>>,
}

impl Sight for FrameSight<'_> {
    type Head = usize;

    fn is_online(&self) -> bool {
        let world = self.world;
        if state(&world.map_entry) & CONTENT != LINKED {
            return false;
        }
        world.bits_memory.with(|_| ());
        is_set(&world.bits, 1)
    }

    fn head(&self) -> usize {
        let head = match self.seen.get() {
            Some(seen) if self.world.flaw == Flaw::NoSecondLook => seen,
            _ => self.world.head(self.frame),
        };
        self.seen.set(Some(head));
        head
    }

    fn try_get(&self, head: usize) -> bool {
        self.world.count(head).try_get()
    }

    fn put(&self, head: usize) {
        // SAFETY: 1: `try_get` took one. The owner has another one.
        let put = unsafe { self.world.count(head).put() };
        assert_eq!(put, Put::Shared);
    }
}

/// What the writer does beside readers.
pub(super) fn beside<const READERS: usize>(
    world: &Rc<World>,
    read: fn(&World),
    write: impl FnOnce(&World),
) {
    let readers: [_; READERS] = core::array::from_fn(|_| {
        let world = Rc::clone(world);
        thread::spawn(move || read(&world))
    });
    write(world);
    for reader in readers {
        reader.join().unwrap();
    }
}
