//! Sorted rows with room for more, in the map itself or in a frame.
//!
//! A row is words: its key, and what is kept for it. How many words that is, the *width*, is a number
//! and no type: so the code for rows is there once, and not again for each type of values.

use crate::addr::Granule;

/// The words of a row that a map of `value_bytes` has, its key included.
pub(super) const fn width(value_bytes: usize) -> usize {
    1 + value_bytes / size_of::<u64>()
}

/// How many rows fit into so many words.
pub(super) const fn rows_in(words: usize, width: usize) -> usize {
    match words.checked_div(width) {
        Some(rows) => rows,
        // A row has at least the word of its key.
        None => 0,
    }
}

/// How many rows fit into a frame, behind the word that says how many there are.
pub(super) const fn capacity(granule: Granule, width: usize) -> usize {
    // A page has at most 2^16 bytes.
    let words = granule.bytes() as usize / size_of::<u64>();
    rows_in(words.saturating_sub(1), width)
}

/// Sorted rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<'r> {
    /// Of these, the first `len` rows.
    words: &'r [u64],
    len: usize,
    width: usize,
}

impl<'r> Rows<'r> {
    pub(super) const fn new(words: &'r [u64], len: usize, width: usize) -> Self {
        Self { words, len, width }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The key of the row number `at`.
    pub(super) fn key(&self, at: usize) -> Option<u64> {
        let word = self.words.get(at.saturating_mul(self.width));
        word.copied().filter(|_| at < self.len)
    }

    /// What is kept in the row number `at`.
    pub(super) fn value(&self, at: usize) -> Option<&'r [u64]> {
        let words = self.words.get(self.words_of(at)?)?;
        words.get(1..)
    }

    fn words_of(&self, at: usize) -> Option<core::ops::Range<usize>> {
        let start = at.saturating_mul(self.width);
        (at < self.len).then_some(start..start.saturating_add(self.width))
    }

    /// Calls `f` with each key and what is kept for it.
    pub(super) fn for_each(&self, f: &mut dyn FnMut(u64, &[u64])) {
        for at in 0..self.len {
            if let (Some(key), Some(value)) = (self.key(at), self.value(at)) {
                f(key, value);
            }
        }
    }

    /// How many rows have `key` or a lower one.
    pub(super) fn up_to(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            // Within the rows, so the product is within the words.
            match self.words.get(middle.wrapping_mul(self.width)) {
                Some(other) if *other <= key => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low
    }

    /// Where `key` is.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let at = self.up_to(key).checked_sub(1)?;
        (self.key(at) == Some(key)).then_some(at)
    }
}

/// Sorted rows that can be changed.
pub(super) struct RowsMut<'r> {
    words: &'r mut [u64],
    /// How many rows there are, in a word before them.
    len: &'r mut u64,
    width: usize,
}

impl<'r> RowsMut<'r> {
    /// The first `len` rows of `words`. There is room for as many as fit.
    pub(super) const fn new(words: &'r mut [u64], len: &'r mut u64, width: usize) -> Self {
        Self { words, len, width }
    }

    pub(super) const fn len(&self) -> usize {
        // At most as many as there are words.
        *self.len as usize
    }

    pub(super) const fn capacity(&self) -> usize {
        rows_in(self.words.len(), self.width)
    }

    pub(super) const fn rows(&self) -> Rows<'_> {
        Rows::new(self.words, self.len(), self.width)
    }

    /// What is kept in the row number `at`, to be changed.
    pub(super) fn into_value(self, at: usize) -> Option<&'r mut [u64]> {
        let range = self.rows().words_of(at)?;
        self.words.get_mut(range)?.get_mut(1..)
    }

    /// Has `key` in the row number `at`.
    pub(super) fn set_key(&mut self, at: usize, key: u64) {
        if let Some(word) = self.words.get_mut(at.saturating_mul(self.width)) {
            *word = key;
        }
    }

    /// Makes `value` for `key` the row number `at`. Says no where there is no such place.
    pub(super) fn insert(&mut self, at: usize, key: u64, value: &[u64]) -> bool {
        if at > self.len() {
            return false;
        }
        let start = at.saturating_mul(self.width);
        let end = self.len().saturating_mul(self.width);
        let Some(words) = self.words.get_mut(start..end.saturating_add(self.width)) else {
            return false;
        };
        if let Some(last) = words.len().checked_sub(self.width) {
            words.copy_within(..last, self.width);
        }
        if let Some((first, rest)) = words.split_first_mut() {
            *first = key;
            if let Some(words) = rest.get_mut(..value.len()) {
                words.copy_from_slice(value);
            }
        }
        *self.len = self.len.saturating_add(1);
        true
    }

    /// Takes the row of `key` out. Says whether there was one.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(at) = self.rows().find(key) else {
            return false;
        };
        self.remove_at(at);
        true
    }

    /// Takes the row number `at` out.
    pub(super) fn remove_at(&mut self, at: usize) {
        let start = at.saturating_mul(self.width);
        let end = self.len().saturating_mul(self.width);
        if let Some(words) = self.words.get_mut(start..end)
            && self.width <= words.len()
        {
            words.copy_within(self.width.., 0);
            *self.len = self.len.saturating_sub(1);
        }
    }

    /// Moves the rows of `other`, which has the same width, from the number `from` on to the end of
    /// these, if there is room.
    pub(super) fn take_from(&mut self, other: &mut RowsMut<'_>, from: usize) -> bool {
        let words = |rows: usize| rows.saturating_mul(self.width);
        let (own, first, all) = (words(self.len()), words(from), words(other.len()));
        let Some(moved) = other.words.get(first..all) else {
            return false;
        };
        let places = self.words.get_mut(own..);
        let Some(places) = places.and_then(|places| places.get_mut(..moved.len())) else {
            return false;
        };
        places.copy_from_slice(moved);
        let rows = other.len().saturating_sub(from);
        *self.len = self.len.saturating_add(rows as u64);
        *other.len = from as u64;
        true
    }
}
