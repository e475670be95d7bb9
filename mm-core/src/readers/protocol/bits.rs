//! Words of the online map: bits by subsection, and the entries that lead to them.

use super::word::Word;
use core::sync::atomic::Ordering;

/// Sets `bits`: what they stand for is online, its descriptors written and mapped.
pub(in crate::readers) fn set<W: Word<Value = u64>>(word: &W, bits: u64) {
    // Who sees a bit sees the descriptors.
    word.fetch_or(bits, Ordering::AcqRel);
}

/// Clears `bits`. What they stand for may be unmapped after a grace period, and no earlier.
pub(in crate::readers) fn clear<W: Word<Value = u64>>(word: &W, bits: u64) {
    word.fetch_and(!bits, Ordering::Relaxed);
}

/// Whether one of `bits` is set.
pub(in crate::readers) fn is_set<W: Word<Value = u64>>(word: &W, bits: u64) -> bool {
    word.load(Ordering::Acquire) & bits != 0
}

/// What an entry says. Where it leads to bits, they are initialised.
pub(in crate::readers) fn state<W: Word<Value = u64>>(entry: &W) -> u64 {
    entry.load(Ordering::Acquire)
}

/// Changes an entry that says `from`. Says whether it did; if not, it says something else.
pub(in crate::readers) fn link<W: Word<Value = u64>>(entry: &W, from: u64, to: u64) -> bool {
    // Who follows it sees what it leads to.
    let linked = entry.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
    linked.is_ok()
}

/// What a word says, in one order with all other changes of it: who changes it later sees what the
/// caller did before.
pub(in crate::readers) fn latest<W: Word<Value = u64>>(word: &W) -> u64 {
    word.fetch_or(0, Ordering::AcqRel)
}

/// Changes an entry, as `change` says of what it says, until it is that or `change` says nothing. Says
/// whether it has changed.
pub(in crate::readers) fn update<W: Word<Value = u64>>(
    entry: &W,
    change: impl Fn(u64) -> Option<u64>,
) -> bool {
    loop {
        let from = latest(entry);
        match change(from) {
            None => return false,
            Some(to) if link(entry, from, to) => return true,
            Some(_) => {}
        }
    }
}
