//! What readers and the owner share: the memory, stamps, and what readers count.

use super::wrong::Wrong;
use super::{Column, PARTS};
use crate::{Case, FrameInfo};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::readers::{Kernel, Reader};

/// Where in a stamp it says how often the page has come online; below that, which page it is.
const GENERATION_SHIFT: u32 = 44;

/// Some orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders(u64);

impl Orders {
    /// All up to `largest`.
    pub(super) fn up_to(largest: Order) -> Self {
        Self(u64::MAX >> (u64::BITS - 1).saturating_sub(largest.get().into()))
    }

    fn contains(self, order: Order) -> bool {
        1_u64
            .checked_shl(order.get().into())
            .is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether `first` is where a page of one of them begins that `frame` is part of.
    fn begin_at(self, first: Pfn, frame: Pfn) -> bool {
        let mut orders = (0..=u8::MAX).map_while(Order::new);
        orders.any(|order| self.contains(order) && first == frame.align_down(order))
    }
}

impl FromIterator<Order> for Orders {
    fn from_iter<I: IntoIterator<Item = Order>>(orders: I) -> Self {
        let bits = orders.into_iter();
        let bits = bits.map(|order| 1_u64.checked_shl(order.get().into()).unwrap_or(0));
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// Memory that comes and goes as a whole.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) frames: PfnRange,
    /// How often it has come online, or is about to.
    generation: AtomicU64,
    /// Up to which time each of its heads has its stamp.
    stamped: AtomicU64,
    /// The orders that its pages have or may have as long as they become others, and 0 otherwise.
    orders: AtomicU64,
}

impl Part {
    /// Part `index` of the memory of `case`.
    pub(super) fn of(case: &Case, index: usize) -> Self {
        let frames = case.range.frames() / PARTS;
        let start = case.range.start().saturating_add(index as u64 * frames);
        Self {
            frames: PfnRange::new(start, frames).unwrap_or(case.range),
            generation: AtomicU64::new(0),
            stamped: AtomicU64::new(0),
            orders: AtomicU64::new(0),
        }
    }

    /// From a grace period after this on its pages may be of any of `orders`, and heads may have no stamp.
    pub(super) fn begins_to_change(&self, orders: Orders) {
        self.orders.store(orders.0, Ordering::Release);
        self.loses_stamps();
    }

    /// Heads may have no stamp.
    pub(super) fn loses_stamps(&self) {
        self.stamped.store(0, Ordering::Release);
    }

    /// All pages are as they came online, with their stamps.
    pub(super) fn has_changed(&self) {
        self.orders.store(0, Ordering::Release);
    }

    /// The orders that its pages may have, or `None` if they are as they came online as long as the caller's
    /// guard is there, or as its reference to one is there, that page.
    pub(super) fn changes(&self) -> Option<Orders> {
        let orders = Orders(self.orders.load(Ordering::Acquire));
        (orders != Orders::default()).then_some(orders)
    }

    /// It is about to come online, and was not before or does not any more.
    pub(super) fn comes_online(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// All of its heads have their stamps.
    pub(super) fn is_stamped(&self) {
        self.stamped.store(self.generation(), Ordering::Release);
    }

    /// How often it has come online.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The stamp of its page at `first`, now.
    pub(super) fn stamp(&self, first: Pfn) -> u64 {
        (self.generation() << GENERATION_SHIFT) | (first.get() + 1)
    }

    /// Whether `owner`, of the head of its page at `first`, is what its owner wrote, or zero as long as
    /// not all are stamped. The caller has the page online.
    pub(super) fn check_stamp(&self, first: Pfn, owner: &AtomicU64) -> Result<(), Wrong> {
        let stamped = self.stamped.load(Ordering::Acquire);
        let found = owner.load(Ordering::Relaxed);
        let expected = self.stamp(first);
        let is_new = found == 0 && stamped != self.generation();
        match found == expected || is_new {
            true => Ok(()),
            false => Err(Wrong::Stamp {
                first,
                found,
                expected,
            }),
        }
    }
}

/// What readers and the owner share.
pub(super) struct SharedState<'g, E, K> {
    pub(super) reader: Reader<'g, FrameInfo<E>, K>,
    pub(super) order: Order,
    pub(super) parts: &'g [Part],
    tallies: &'g [Tally],
    stopped: AtomicBool,
    /// Whether readers take no references: memory goes offline that is not frozen.
    looks_only: AtomicBool,
}

impl<'g, E, K: Kernel> SharedState<'g, E, K> {
    pub(super) const fn new(
        reader: Reader<'g, FrameInfo<E>, K>,
        order: Order,
        parts: &'g [Part],
        tallies: &'g [Tally],
    ) -> Self {
        Self {
            reader,
            order,
            parts,
            tallies,
            stopped: AtomicBool::new(false),
            looks_only: AtomicBool::new(false),
        }
    }

    /// Whether any part is changing.
    pub(super) fn anything_changes(&self) -> bool {
        self.parts.iter().any(|part| part.changes().is_some())
    }

    /// Whether `found`, first frame and order, is the page that `frame` is part of, of its part's order or one
    /// of those that it `changes` to.
    pub(super) fn check_page(
        &self,
        frame: Pfn,
        found: (Pfn, Order),
        changes: Option<Orders>,
    ) -> Result<(), Wrong> {
        let (first, order) = found;
        let is_known = order == self.order || changes.is_some_and(|orders| orders.contains(order));
        match is_known && first == frame.align_down(order) {
            true => Ok(()),
            false => Err(Wrong::Page { frame, found }),
        }
    }

    /// The same without a reference, while pages change: word and order may be of two pages.
    pub(super) fn check_glance(
        frame: Pfn,
        found: (Pfn, Order),
        changes: Orders,
    ) -> Result<(), Wrong> {
        let (first, order) = found;
        match changes.contains(order) && changes.begin_at(first, frame) {
            true => Ok(()),
            false => Err(Wrong::Page { frame, found }),
        }
    }

    /// Ends the readers.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// From a grace period after this on nobody takes references, or they do again.
    pub(super) fn set_looks_only(&self, looks_only: bool) {
        self.looks_only.store(looks_only, Ordering::Release);
    }

    pub(super) fn looks_only(&self) -> bool {
        self.looks_only.load(Ordering::Acquire)
    }

    /// Whether a reader has a reference.
    pub(super) fn anybody_refers(&self) -> bool {
        let mut tallies = self.tallies.iter();
        tallies.any(|tally| tally.has_reference.load(Ordering::Acquire))
    }

    /// Whether each of the first `readers` has had `references`.
    pub(super) fn all_had(&self, readers: usize, references: u64) -> bool {
        let mut tallies = self.tallies.iter().take(readers);
        tallies.all(|tally| tally.referred.get() >= references)
    }

    pub(super) fn tally(&self, reader: usize) -> Option<&'g Tally> {
        self.tallies.get(reader)
    }
}

/// A number that one CPU counts up and others look at.
#[derive(Debug)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one reader has found.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Tally {
    /// How often a page was looked at.
    pub(super) looked: Counter,
    /// How often there was a reference, and how often there was none.
    pub(super) referred: Counter,
    pub(super) refused: Counter,
    pub(super) has_reference: AtomicBool,
    /// The kind of what was wrong first, or 0, and the numbers of that.
    wrong: [AtomicU64; 4],
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            looked: Counter::new(),
            referred: Counter::new(),
            refused: Counter::new(),
            has_reference: AtomicBool::new(false),
            wrong: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Notes what was wrong, if nothing was before.
    pub(super) fn note(&self, outcome: Result<(), Wrong>) {
        let Err(wrong) = outcome else {
            return;
        };
        let words = match wrong {
            Wrong::Page {
                frame,
                found: (first, order),
            } => [1, frame.get(), first.get(), order.get().into()],
            Wrong::Stamp {
                first,
                found,
                expected,
            } => [2, first.get(), found, expected],
            Wrong::CameAgain { first } => [3, first.get(), 0, 0],
            Wrong::Last { first } => [4, first.get(), 0, 0],
            Wrong::Store {
                first,
                found,
                expected,
            } => [5, first.get(), found.into(), expected.into()],
            // Readers find nothing else.
            _ => return,
        };
        let [kind, ..] = &self.wrong;
        if kind.load(Ordering::Relaxed) == 0 {
            for (place, word) in self.wrong.iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
        }
    }

    /// What was wrong first. The reader has ended.
    pub(super) fn outcome(&self) -> Result<(), Wrong> {
        let [kind, first, second, third] = self.wrong.each_ref();
        let word = |place: &AtomicU64| place.load(Ordering::Relaxed);
        let frame = |place| Pfn::new(word(place)).unwrap_or(Pfn::ZERO);
        let first = frame(first);
        Err(match word(kind) {
            1 => {
                let order = Order::new(word(third) as u8).unwrap_or(Order::BASE);
                let found = (frame(second), order);
                Wrong::Page {
                    frame: first,
                    found,
                }
            }
            2 => Wrong::Stamp {
                first,
                found: word(second),
                expected: word(third),
            },
            3 => Wrong::CameAgain { first },
            4 => Wrong::Last { first },
            5 => Wrong::Store {
                first,
                found: word(second) as u8,
                expected: word(third) as u8,
            },
            _ => return Ok(()),
        })
    }

    /// What all have counted, to be printed.
    pub(super) fn sum(tallies: &[Self]) -> impl fmt::Display {
        let sum = |field: fn(&Self) -> &Counter| {
            let all = tallies.iter().map(|tally| field(tally).get());
            Column(all.sum())
        };
        Sum([
            sum(|tally| &tally.looked),
            sum(|tally| &tally.referred),
            sum(|tally| &tally.refused),
        ])
    }
}

struct Sum([Column; 3]);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [looked, referred, refused] = &self.0;
        write!(f, "{looked} {referred} {refused}")
    }
}
