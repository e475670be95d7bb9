//! Physical addresses and page frame numbers.

use super::{Granule, Order, RangeError};
use core::fmt;
use core::ops::Range;

/// A physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame that this address lies in; `None` where the frame number is beyond [`Pfn::MAX`].
    pub const fn frame(self, granule: Granule) -> Option<Pfn> {
        Pfn::new(self.0 >> granule.shift())
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysAddr({self})")
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A page frame number. Frame 0 is a frame like any other.
///
/// At most 2^48 - 1, so that every frame has a physical address on every granule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(u64);

impl Pfn {
    /// The first frame.
    pub const ZERO: Self = Self(0);

    /// The last frame that can be named.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The frame with this number, if it is at most [`Pfn::MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The frame number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address of the frame's first byte.
    pub const fn base(self, granule: Granule) -> PhysAddr {
        PhysAddr(self.0 << granule.shift())
    }

    /// The frame `frames` further up; `None` beyond [`Pfn::MAX`].
    #[inline]
    pub const fn checked_add(self, frames: u64) -> Option<Self> {
        match self.0.checked_add(frames) {
            Some(number) => Self::new(number),
            None => None,
        }
    }

    /// The frame `frames` further up, or [`Pfn::MAX`] if that is nearer.
    #[inline]
    pub const fn saturating_add(self, frames: u64) -> Self {
        match self.checked_add(frames) {
            Some(frame) => frame,
            None => Self::MAX,
        }
    }

    /// The first frame of the aligned block of `order` that this frame lies in.
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !(order.frames() - 1))
    }

    /// Whether this frame is the first of an aligned block of `order`.
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.frames() - 1) == 0
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pfn({self})")
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Frames that follow each other. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PfnRange {
    start: Pfn,
    frames: u64,
}

impl PfnRange {
    /// The `frames` frames from `start` on.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] for no frames, [`RangeError::Overflow`] beyond [`Pfn::MAX`].
    pub const fn new(start: Pfn, frames: u64) -> Result<Self, RangeError> {
        if frames == 0 {
            return Err(RangeError::Empty);
        }
        match start.checked_add(frames - 1) {
            Some(_) => Ok(Self { start, frames }),
            None => Err(RangeError::Overflow),
        }
    }

    /// The frames of the `bytes` bytes from `start` on.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] for no bytes, [`RangeError::Misaligned`] where `start` or `bytes` is
    /// not a whole number of pages, [`RangeError::Overflow`] beyond the end of the address
    /// space.
    pub const fn from_bytes(
        start: PhysAddr,
        bytes: u64,
        granule: Granule,
    ) -> Result<Self, RangeError> {
        let align = granule.bytes();
        if bytes == 0 {
            return Err(RangeError::Empty);
        }
        if !start.get().is_multiple_of(align) || !bytes.is_multiple_of(align) {
            return Err(RangeError::Misaligned { align });
        }
        match start.frame(granule) {
            Some(first) => Self::new(first, bytes >> granule.shift()),
            None => Err(RangeError::Overflow),
        }
    }

    /// The frames that lie wholly in the `bytes` bytes from `start` on; `None` where there are none, and
    /// where the bytes reach beyond [`Pfn::MAX`]. Firmware's ranges of RAM end anywhere.
    ///
    /// ```
    /// # use mm_core::addr::{Granule, Pfn, PfnRange, PhysAddr};
    /// // 639 KiB, of which the last 3 are no whole frame.
    /// let ram = PfnRange::whole_frames(PhysAddr::new(0), 639 << 10, Granule::Size4K);
    /// assert_eq!(ram, PfnRange::new(Pfn::ZERO, 159).ok());
    /// ```
    pub const fn whole_frames(start: PhysAddr, bytes: u64, granule: Granule) -> Option<Self> {
        let first = start.get().div_ceil(granule.bytes());
        let Some(end) = start.get().checked_add(bytes) else {
            return None;
        };
        let end = end >> granule.shift();
        if first >= end {
            return None;
        }
        let Some(start) = Pfn::new(first) else {
            return None;
        };
        match Self::new(start, end - first) {
            Ok(frames) => Some(frames),
            Err(_) => None,
        }
    }

    /// The one frame `frame`.
    #[inline]
    pub const fn single(frame: Pfn) -> Self {
        Self {
            start: frame,
            frames: 1,
        }
    }

    /// The first frame.
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// How many frames there are; at least 1.
    pub const fn frames(self) -> u64 {
        self.frames
    }

    /// The last frame.
    pub const fn last(self) -> Pfn {
        Pfn(self.start.0 + (self.frames - 1))
    }

    /// Whether `frame` is one of these.
    pub const fn contains(self, frame: Pfn) -> bool {
        frame.0 >= self.start.0 && frame.0 - self.start.0 < self.frames
    }

    /// Whether all of `other` is within this range.
    pub const fn contains_range(self, other: Self) -> bool {
        self.contains(other.start) && self.contains(other.last())
    }

    /// Whether the two ranges have a frame in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 <= other.last().0 && other.start.0 <= self.last().0
    }

    /// Whether start and length are multiples of a block of `order`.
    pub const fn is_aligned(self, order: Order) -> bool {
        self.start.is_aligned(order) && self.frames & (order.frames() - 1) == 0
    }

    /// The first `frames` frames and the rest; `None` for a part that would be empty.
    pub const fn split_at(self, frames: u64) -> (Option<Self>, Option<Self>) {
        if frames == 0 {
            return (None, Some(self));
        }
        if frames >= self.frames {
            return (Some(self), None);
        }
        let head = Self {
            start: self.start,
            frames,
        };
        let tail = Self {
            start: Pfn(self.start.0 + frames),
            frames: self.frames - frames,
        };
        (Some(head), Some(tail))
    }

    /// The first `at_most` frames, but at least one, and the rest.
    pub const fn take_first(self, at_most: u64) -> (Self, Option<Self>) {
        match self.split_at(if at_most == 0 { 1 } else { at_most }) {
            (Some(first), rest) => (first, rest),
            (None, _) => (self, None),
        }
    }

    /// Both as one, if `next` begins where this ends.
    pub(crate) const fn joined(self, next: Self) -> Option<Self> {
        if self.start.0 + self.frames != next.start.0 {
            return None;
        }
        Some(Self {
            start: self.start,
            frames: self.frames + next.frames,
        })
    }

    /// What lies before `other`, and what lies behind it: of RAM, what is not in use.
    ///
    /// ```
    /// use mm_core::addr::{Pfn, PfnRange};
    /// # use mm_core::addr::RangeError;
    ///
    /// # fn main() -> Result<(), RangeError> {
    /// let ram = PfnRange::new(Pfn::ZERO, 0x8000)?;
    /// let image = PfnRange::new(Pfn::ZERO.saturating_add(0x100), 0x7f)?;
    /// let (below, above) = ram.without(image);
    /// assert_eq!(below.map(PfnRange::frames), Some(0x100));
    /// assert_eq!(above.map(PfnRange::start), Pfn::new(0x17f));
    /// # Ok(())
    /// # }
    /// ```
    pub const fn without(self, other: Self) -> (Option<Self>, Option<Self>) {
        let before = other.start.0.saturating_sub(self.start.0);
        let end = other.last().0.saturating_add(1);
        let with_other = end.saturating_sub(self.start.0);
        (self.split_at(before).0, self.split_at(with_other).1)
    }

    /// The part that lies in both ranges.
    pub const fn intersection(self, other: Self) -> Option<Self> {
        let start = if self.start.0 > other.start.0 {
            self.start
        } else {
            other.start
        };
        let last = if self.last().0 < other.last().0 {
            self.last()
        } else {
            other.last()
        };
        if start.0 > last.0 {
            return None;
        }
        Some(Self {
            start,
            frames: last.0 - start.0 + 1,
        })
    }
}

/// The frames of a [`PfnRange`], from the first to the last.
#[derive(Clone, Debug)]
pub struct Frames {
    left: Range<u64>,
}

impl Iterator for Frames {
    type Item = Pfn;

    fn next(&mut self) -> Option<Pfn> {
        self.left.next().map(Pfn)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Frames {
    fn next_back(&mut self) -> Option<Pfn> {
        self.left.next_back().map(Pfn)
    }
}

impl IntoIterator for PfnRange {
    type Item = Pfn;
    type IntoIter = Frames;

    fn into_iter(self) -> Frames {
        let start = self.start.0;
        // At most one more than the largest frame number, which has fewer than 64 bits.
        let left = start..start + self.frames;
        Frames { left }
    }
}

impl fmt::Debug for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PfnRange({}..={})", self.start, self.last())
    }
}

impl fmt::Display for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frames {}..={}", self.start, self.last())
    }
}

/// 2^order frames that were allocated, and are freed, as one; aligned to their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    first: Pfn,
    order: Order,
}

impl Block {
    /// The block of `order` at `first`, if `first` is aligned to it.
    pub const fn new(first: Pfn, order: Order) -> Option<Self> {
        if first.is_aligned(order) && first.checked_add(order.frames() - 1).is_some() {
            Some(Self { first, order })
        } else {
            None
        }
    }

    /// The one frame `frame`.
    #[inline]
    pub const fn single(frame: Pfn) -> Self {
        Self {
            first: frame,
            order: Order::BASE,
        }
    }

    /// The first frame, which names the block and carries its reference count.
    pub const fn first(self) -> Pfn {
        self.first
    }

    /// The block's size.
    pub const fn order(self) -> Order {
        self.order
    }

    /// The block's frames.
    pub const fn frames(self) -> PfnRange {
        PfnRange {
            start: self.first,
            frames: self.order.frames(),
        }
    }
}
