//! Sorted rows with room for more, in the map itself or in a frame.

use crate::addr::Granule;
use core::mem::{MaybeUninit, align_of, size_of};
use core::ptr;

/// A key, and what is kept for it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Row<T> {
    pub(super) key: u64,
    pub(super) value: T,
}

impl<T> Row<T> {
    /// Where the first row is in a frame. The number of rows is before it.
    pub(super) const START: usize = size_of::<usize>().next_multiple_of(align_of::<Self>());

    /// How many rows fit into a frame.
    pub(super) const fn capacity(granule: Granule) -> usize {
        // A page has at most 2^16 bytes. A row has at least the 8 of its key.
        (granule.bytes() as usize).saturating_sub(Self::START) / size_of::<Self>()
    }

    /// Whether a frame has places for `rows` rows, on every granule.
    pub(super) const fn fit(rows: usize) -> bool {
        // Pages are aligned to their size.
        align_of::<Self>() <= Granule::Size4K.bytes() as usize
            && rows <= Self::capacity(Granule::Size4K)
    }
}

/// The place of `key` in `rows`: where it is, or else where it would have to be.
pub(super) fn find<T>(rows: &[Row<T>], key: u64) -> Result<usize, usize> {
    rows.binary_search_by_key(&key, |row| row.key)
}

/// Sorted rows that can be changed. The first `len` places are initialised, always.
pub(super) struct Rows<'r, T> {
    len: &'r mut usize,
    places: &'r mut [MaybeUninit<Row<T>>],
}

impl<'r, T: Copy> Rows<'r, T> {
    /// # Safety
    ///
    /// 1. The first `len` of `places` are there and initialised.
    pub(super) unsafe fn new(len: &'r mut usize, places: &'r mut [MaybeUninit<Row<T>>]) -> Self {
        Self { len, places }
    }

    pub(super) const fn len(&self) -> usize {
        *self.len
    }

    pub(super) const fn capacity(&self) -> usize {
        self.places.len()
    }

    pub(super) fn as_slice(&self) -> &[Row<T>] {
        // SAFETY: so many places are initialised, and a place has the layout of its row.
        unsafe { core::slice::from_raw_parts(self.places.as_ptr().cast(), self.len()) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Row<T>] {
        // SAFETY: as in `as_slice`; the places are borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.places.as_mut_ptr().cast(), *self.len) }
    }

    /// Makes `row` the row number `at`. Says no where there is no such place.
    pub(super) fn insert(&mut self, at: usize, row: Row<T>) -> bool {
        let len = self.len();
        if at > len {
            return false;
        }
        let Some(places) = self.places.get_mut(at..=len) else {
            return false;
        };
        let first = places.as_mut_ptr();
        // SAFETY: `places` are the rows from `at` on, and one place more.
        unsafe {
            ptr::copy(first, first.add(1), places.len().saturating_sub(1));
            first.write(MaybeUninit::new(row));
        }
        *self.len = len.saturating_add(1);
        true
    }

    /// Takes the row number `at` out.
    pub(super) fn remove(&mut self, at: usize) -> Option<Row<T>> {
        let rows = self.as_mut_slice().get_mut(at..)?;
        let (first, rest) = (rows.as_mut_ptr(), rows.len().checked_sub(1)?);
        // SAFETY: there is a row, and there are `rest` behind it.
        let row = unsafe {
            let row = first.read();
            ptr::copy(first.add(1), first, rest);
            row
        };
        *self.len = self.len().saturating_sub(1);
        Some(row)
    }

    /// Moves the rows of `other` from the number `from` on to the end of these, if there is room.
    pub(super) fn take_from(&mut self, other: &mut Rows<'_, T>, from: usize) -> bool {
        let Some(rows) = other.as_slice().get(from..) else {
            return false;
        };
        let len = self.len().saturating_add(rows.len());
        let Some(places) = self.places.get_mut(*self.len..len) else {
            return false;
        };
        for (place, row) in places.iter_mut().zip(rows) {
            place.write(*row);
        }
        *self.len = len;
        *other.len = from;
        true
    }
}
