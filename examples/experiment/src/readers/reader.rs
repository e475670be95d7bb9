//! What a CPU does that reads.

use super::shared::{Part, SharedState, Tally};
use super::wrong::Wrong;
use crate::FrameInfo;
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::readers::{Kernel, PageReference, Put};

/// How many looks there are between rests, on average. Enough for a reader to be at it when the owner does
/// what it woke it for, and few enough to leave the host's time to the others afterwards.
const BURST: u64 = 400;
const LONG_BURST: u64 = 40 * BURST;

/// How many readers may have a reference while they rest. Of many, one would have one always.
const HOLDERS: usize = 3;

/// A reference, and when its page came online.
struct Held<'g, E: TailEncoding, K: Kernel> {
    reference: PageReference<'g, FrameInfo<E>, K>,
    /// By which it was taken.
    frame: Pfn,
    page: (Pfn, Order),
    part: &'g Part,
    generation: u64,
    /// Who has it, and what that one has stored in the head.
    reader: usize,
    note: u8,
}

impl<'g, E: TailEncoding, K: Kernel> SharedState<'g, E, K> {
    /// Reads until it is told to stop. Between bursts it rests, until the owner does something.
    pub(super) fn read(&self, reader: usize, rest: &dyn Fn()) {
        let Some(tally) = self.tally(reader) else {
            return;
        };
        let mut numbers = Numbers::new(reader as u64);
        let mut held: Option<Held<'g, E, K>> = None;
        while !self.is_stopped() {
            // Changes take long. One reader is at it for longer then; the host may have no more CPUs.
            let burst = match reader == 0 && self.anything_changes() {
                true => LONG_BURST,
                false => BURST,
            };
            if numbers.below(burst) == 0 {
                if reader >= HOLDERS {
                    tally.note(self.give_back(held.take(), tally));
                }
                rest();
            }
            let (part, frame) = self.choose(&mut numbers);
            tally.note(match (&held, numbers.below(2)) {
                (_, 0) => self.look(part, frame, tally),
                (Some(held), _) => self.check(held),
                (None, _) => {
                    let by = (reader, numbers.below(256) as u8);
                    self.refer(part, frame, by, tally).map(|taken| held = taken)
                }
            });
            if self.looks_only() || numbers.below(4) == 0 {
                tally.note(self.give_back(held.take(), tally));
            }
        }
        tally.note(self.give_back(held.take(), tally));
    }

    /// A frame: the head of a page, its first or last tail, or any.
    fn choose(&self, numbers: &mut Numbers) -> (&'g Part, Pfn) {
        // There are `PARTS` of them.
        let index = numbers.below(self.parts.len() as u64) as usize;
        let part = self.parts.get(index).unwrap_or(&self.parts[0]);
        let page = self.order.frames();
        let first = numbers.below(part.frames.frames() / page) * page;
        let within = match numbers.below(4) {
            0 => 0,
            1 => 1 % page,
            2 => page - 1,
            _ => numbers.below(page),
        };
        (part, part.frames.start().saturating_add(first + within))
    }

    /// Looks at a page under a guard.
    fn look(&self, part: &Part, frame: Pfn, tally: &Tally) -> Result<(), Wrong> {
        let reading = self.reader.enter();
        let changes = part.changes();
        // Whether it is online may change between the two, but for what the second one says.
        let _ = reading.is_online(frame);
        let Some(page) = reading.page_of(frame) else {
            return Ok(());
        };
        tally.looked.count();
        let found = (page.first(), page.order());
        if let Some(orders) = changes {
            return Self::check_glance(frame, found, orders);
        }
        self.check_page(frame, found, None)?;
        // Neither taken offline nor changed before the guard is gone.
        part.check_stamp(page.first(), page.head().owner())
    }

    /// Takes a reference. The page is checked before it is had.
    fn refer(
        &self,
        part: &'g Part,
        frame: Pfn,
        (reader, note): (usize, u8),
        tally: &Tally,
    ) -> Result<Option<Held<'g, E, K>>, Wrong> {
        let taken = {
            let reading = self.reader.enter();
            if self.looks_only() {
                return Ok(None);
            }
            tally.has_reference.store(true, Ordering::Release);
            reading.reference(frame)
        };
        let Ok(reference) = taken else {
            tally.has_reference.store(false, Ordering::Release);
            tally.refused.count();
            return Ok(None);
        };
        tally.referred.count();
        let held = Held {
            frame,
            page: (reference.first(), reference.order()),
            reference,
            part,
            generation: part.generation(),
            reader,
            note,
        };
        if let Some(place) = held.reference.head().note(reader) {
            place.store(note, Ordering::Relaxed);
        }
        match self.check(&held) {
            Ok(()) => Ok(Some(held)),
            Err(wrong) => {
                // That it is wrong is noted; whether it was the last one is not known then.
                let _ = self.give_back(Some(held), tally);
                Err(wrong)
            }
        }
    }

    /// The page is as it was when the reference was taken, for readers without one too.
    fn check(&self, held: &Held<'g, E, K>) -> Result<(), Wrong> {
        let (first, frame) = (held.page.0, held.frame);
        self.check_page(frame, held.page, held.part.changes())?;
        let found = {
            let reading = self.reader.enter();
            let page = reading.page_of(frame);
            page.map(|page| (page.first(), page.order()))
        };
        if held.part.generation() != held.generation || found.is_none() {
            return Err(Wrong::CameAgain { first });
        }
        if let Some(found) = found.filter(|found| *found != held.page) {
            return Err(Wrong::Page { frame, found });
        }
        let head = held.reference.head();
        let found = head.note(held.reader);
        let found = found.map_or(held.note, |place| place.load(Ordering::Relaxed));
        if found != held.note {
            return Err(Wrong::Store {
                first,
                found,
                expected: held.note,
            });
        }
        held.part.check_stamp(first, head.owner())
    }

    /// Gives a reference back, if there is one.
    fn give_back(&self, held: Option<Held<'g, E, K>>, tally: &Tally) -> Result<(), Wrong> {
        let Some(held) = held else {
            return Ok(());
        };
        let outcome = self.check(&held);
        let first = held.page.0;
        let put = held.reference.put();
        tally.has_reference.store(false, Ordering::Release);
        match put {
            Put::Shared => outcome,
            Put::Last => Err(Wrong::Last { first }),
        }
    }
}

/// Numbers without an order that anybody sees (xorshift, Marsaglia 2003).
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub(super) const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}
