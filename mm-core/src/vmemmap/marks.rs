//! One bit of state for each frame, whatever its descriptor is mapped to.
//!
//! A tail on a shared frame has no place for state of its own. Marks are beside the vmemmap, in
//! bitmaps of a frame each, by frame number:
//!
//! ```text
//!   buckets, in the Vmemmap     0 ──▶ [64 MiB number 128 | bits] ──▶ [64 MiB number 0 | bits]
//!   by number of the 64 MiB     1     none
//!                               2 ──▶ [64 MiB number 2 | bits]
//! ```
//!
//! One bitmap has the bits of 32 compound pages of 2 MiB, or of a sixteenth of one of 1 GiB (4K
//! granule). It is allocated with its first mark and freed with its last. Nothing of this depends
//! on how descriptors are mapped. So marks survive fold, unfold and whatever the kernel makes of
//! the pages.
//!
//! There are two alternatives. A word in each head would be found as fast, but every descriptor
//! would need it. A table by frame number would be found in two steps, but would cost two more
//! frames for a single mark. With bitmaps, only what is marked costs memory. A look-up passes over
//! one in 64 of the bitmaps, and over none where nothing is marked.

use super::Vmemmap;
use super::stats::NodeCounters;
use crate::addr::{NodeId, Pfn, PfnRange, VirtAddr};
use crate::descriptor::Descriptor;
use crate::error::ErrorKind;
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames};
use crate::paging::PageTable;
use crate::readers::ReadersOf;
use core::fmt;
use core::mem::size_of;
use core::ptr::NonNull;

/// How many chains of bitmaps there are, a power of two.
pub(super) const BUCKETS: usize = 64;

/// The frame of a bitmap, or none: one more than its number, or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
struct Link(u64);

impl Link {
    fn to(frame: Option<Pfn>) -> Self {
        Self(frame.map_or(0, |frame| frame.get() + 1))
    }

    fn frame(self) -> Option<Pfn> {
        self.0.checked_sub(1).and_then(Pfn::new)
    }
}

/// What a bitmap's frame starts with; the bits follow.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// The next bitmap of the chain.
    next: Link,
    /// The number of the block of memory that the bits are for.
    block: u64,
    /// How many bits are set; at least 1.
    marked: u64,
}

static_assertions::const_assert!(size_of::<Header>() < 2048);

/// What marks there are, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkStats {
    /// Frames that are marked.
    pub marked: u64,
    /// Frames that hold the marks.
    pub frames: u64,
}

/// Why a frame could not be marked. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkError {
    /// The frame is not online.
    NotOnline {
        /// The frame.
        frame: Pfn,
    },
    /// There was no frame for the bitmap.
    OutOfFrames(OutOfFrames),
}

impl MarkError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotOnline { .. } => ErrorKind::NotOnline,
            Self::OutOfFrames(_) => ErrorKind::OutOfFrames,
        }
    }
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOnline { frame } => {
                write!(
                    f,
                    "frame {frame} is not online; only frames that are have marks"
                )
            }
            Self::OutOfFrames(error) => write!(f, "no frame for the marks: {error}"),
        }
    }
}

impl core::error::Error for MarkError {}

/// The bitmaps of a vmemmap.
#[derive(Debug)]
pub(super) struct Marks {
    chains: [Link; BUCKETS],
    stats: MarkStats,
}

impl Marks {
    pub(super) const fn new() -> Self {
        Self {
            chains: [Link(0); BUCKETS],
            stats: MarkStats {
                marked: 0,
                frames: 0,
            },
        }
    }

    /// The first bitmap of each chain: one more than the number of its frame, or 0.
    pub(super) fn chain_words(&self) -> [u64; BUCKETS] {
        self.chains.map(|Link(word)| word)
    }
}

/// A bitmap, in its frame.
#[derive(Clone, Copy)]
struct Bitmap {
    frame: Pfn,
    page: NonNull<u8>,
}

impl Bitmap {
    /// The bitmap in `frame`.
    ///
    /// # Safety
    ///
    /// 1. The frame was allocated for a bitmap, `direct_map` reaches it, and it has not been given
    ///    back since.
    unsafe fn new<M: DirectMap>(direct_map: &M, frame: Pfn) -> Self {
        Self {
            frame,
            page: direct_map.frame_pointer(frame),
        }
    }

    fn header(self) -> Header {
        // SAFETY: duty 1 of `new`: the page is this bitmap's, larger than a header and aligned to
        // more. It is changed only with the vmemmap borrowed mutably.
        unsafe { self.page.cast::<Header>().read() }
    }

    fn set_header(self, header: Header) {
        // SAFETY: as above; called only with the vmemmap borrowed mutably.
        unsafe { self.page.cast::<Header>().write(header) };
    }

    /// The word of the bit number `bit`.
    fn word(self, bit: u64) -> NonNull<u64> {
        let offset = size_of::<Header>() + (bit / 64 * 8) as usize;
        // SAFETY: a bit's number is below `bits_order`, whose bits fill half of the page, and the
        // header is smaller than the other half.
        unsafe { self.page.add(offset).cast() }
    }

    fn get(self, bit: u64) -> bool {
        // SAFETY: the word is within the page, aligned, and initialised by `clear`.
        let word = unsafe { self.word(bit).read() };
        word >> (bit % 64) & 1 != 0
    }

    /// The first bit that is set, from the bit `from` on and up to `last`.
    fn first_set(self, from: u64, last: u64) -> Option<u64> {
        let mut bit = from;
        while bit <= last {
            // SAFETY: as in `get`.
            let word = unsafe { self.word(bit).read() } >> (bit % 64);
            if word != 0 {
                return Some(bit + u64::from(word.trailing_zeros())).filter(|bit| *bit <= last);
            }
            bit = (bit | 63) + 1;
        }
        None
    }

    fn set(self, bit: u64, value: bool) {
        let mask = 1u64 << (bit % 64);
        let word = self.word(bit);
        // SAFETY: as in `get`; called only with the vmemmap borrowed mutably.
        unsafe {
            let old = word.read();
            word.write(if value { old | mask } else { old & !mask });
        }
    }

    /// Makes all `bits` bits zero.
    fn clear(self, bits: u64) {
        // SAFETY: as in `word`, for all of them; the frame is new and nobody else's.
        unsafe {
            self.word(0)
                .cast::<u8>()
                .write_bytes(0, (bits / 8) as usize)
        };
    }

    fn next(self) -> Option<Pfn> {
        self.header().next.frame()
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Marks `frame`, which is online, and it alone: no other frame, whatever shares descriptors
    /// with it. Says whether it was not marked before. The mark stays until
    /// [`unmark`](Self::unmark), or until the frame goes offline.
    ///
    /// What a mark means is the kernel's; memory that has been found to be broken, for one. The
    /// first of a block of memory takes a frame, from `node`.
    ///
    /// # Errors
    ///
    /// [`MarkError`], and nothing has changed.
    pub fn mark<P: PageTable>(
        &mut self,
        table: &P,
        frame: Pfn,
        node: NodeId,
    ) -> Result<bool, MarkError> {
        if !self.is_valid(table, frame) {
            return Err(MarkError::NotOnline { frame });
        }
        let (block, bit) = self.place_of(frame);
        let bitmap = match self.bitmap(block) {
            Some(bitmap) => bitmap,
            None => self
                .new_bitmap(block, node)
                .map_err(MarkError::OutOfFrames)?,
        };
        if bitmap.get(bit) {
            return Ok(false);
        }
        bitmap.set(bit, true);
        let header = bitmap.header();
        bitmap.set_header(Header {
            marked: header.marked + 1,
            ..header
        });
        self.marks.stats.marked += 1;
        Ok(true)
    }

    /// Takes the mark off `frame`. Says whether there was one.
    pub fn unmark(&mut self, frame: Pfn) -> bool {
        let (block, bit) = self.place_of(frame);
        match self.bitmap(block) {
            Some(bitmap) if bitmap.get(bit) => {
                self.unmark_range(bitmap, PfnRange::single(frame));
                true
            }
            _ => false,
        }
    }

    /// Whether `frame` is marked.
    pub fn is_marked(&self, frame: Pfn) -> bool {
        let (block, bit) = self.place_of(frame);
        self.bitmap(block).is_some_and(|bitmap| bitmap.get(bit))
    }

    /// The frames of `frames` that are marked, in no particular order. Takes time by how many
    /// bitmaps there are, not by how many frames are asked for.
    pub fn marked(&self, frames: PfnRange) -> impl Iterator<Item = Pfn> {
        self.bitmaps().flat_map(move |bitmap| {
            let part = self
                .covered(bitmap)
                .and_then(|part| part.intersection(frames));
            let marked = move |frame: Pfn| {
                let (_, last) = self.place_of(part?.last());
                let bit = bitmap.first_set(self.place_of(frame).1, last)?;
                Pfn::new(bitmap.header().block << self.bits_order() | bit)
            };
            let first = part.and_then(|part| marked(part.start()));
            core::iter::successors(first, move |frame| {
                let next = frame.checked_add(1)?;
                part.filter(|part| part.contains(next))
                    .and_then(|_| marked(next))
            })
        })
    }

    /// How many frames are marked, and what that costs.
    pub const fn mark_stats(&self) -> MarkStats {
        self.marks.stats
    }

    /// Takes the marks off all frames of `frames`, which have gone offline, and says how many there
    /// were.
    pub(super) fn forget_marks(&mut self, frames: PfnRange) -> u64 {
        let before = self.marks.stats.marked;
        for chain in 0..BUCKETS {
            let mut next = self.first_of_chain(chain);
            while let Some(frame) = next {
                // SAFETY: 1: a frame of a chain.
                let bitmap = unsafe { Bitmap::new(&self.direct_map, frame) };
                next = bitmap.next();
                let part = self.covered(bitmap);
                if let Some(part) = part.and_then(|part| part.intersection(frames)) {
                    self.unmark_range(bitmap, part);
                }
            }
        }
        before - self.marks.stats.marked
    }

    /// Every frame that holds marks, with an address of the descriptors that they are about.
    pub(super) fn mark_frames(&self) -> impl Iterator<Item = (Pfn, VirtAddr)> {
        self.bitmaps().map(|bitmap| {
            let about = self.covered(bitmap).map(PfnRange::start);
            let at = about.and_then(|first| self.model.descriptor_address(first));
            (bitmap.frame, at.unwrap_or(self.model.config().vmemmap_base))
        })
    }

    /// The order of the memory whose bits lie in one frame: half a page of bits.
    pub(super) fn bits_order(&self) -> u32 {
        self.model.granule().shift() + 2
    }

    /// The number of the block that `frame` is in, and that of its bit.
    fn place_of(&self, frame: Pfn) -> (u64, u64) {
        let order = self.bits_order();
        (frame.get() >> order, frame.get() & ((1 << order) - 1))
    }

    /// The frames whose bits are in `bitmap`.
    fn covered(&self, bitmap: Bitmap) -> Option<PfnRange> {
        let order = self.bits_order();
        let first = Pfn::new(bitmap.header().block << order)?;
        PfnRange::new(first, 1 << order).ok()
    }

    fn chain_of(block: u64) -> usize {
        block as usize & (BUCKETS - 1)
    }

    fn first_of_chain(&self, chain: usize) -> Option<Pfn> {
        self.marks.chains.get(chain).and_then(|first| first.frame())
    }

    /// The bitmaps of a chain.
    fn chain(&self, chain: usize) -> impl Iterator<Item = Bitmap> {
        // SAFETY: 1: the frames of chains were allocated for bitmaps and are in the chain for as
        // long as they are out.
        let bitmap = |frame| unsafe { Bitmap::new(&self.direct_map, frame) };
        let first = self.first_of_chain(chain);
        core::iter::successors(first.map(bitmap), move |last| last.next().map(bitmap))
    }

    fn bitmaps(&self) -> impl Iterator<Item = Bitmap> {
        (0..BUCKETS).flat_map(|chain| self.chain(chain))
    }

    fn bitmap(&self, block: u64) -> Option<Bitmap> {
        self.chain(Self::chain_of(block))
            .find(|bitmap| bitmap.header().block == block)
    }

    /// A bitmap for `block`, empty as yet.
    fn new_bitmap(&mut self, block: u64, node: NodeId) -> Result<Bitmap, OutOfFrames> {
        let frame = self.take_own_frame(node, NodeCounters::add_mark_frame)?;
        // SAFETY: 1: allocated just now.
        let bitmap = unsafe { Bitmap::new(&self.direct_map, frame) };
        bitmap.clear(1 << self.bits_order());
        if let Some(first) = self.marks.chains.get_mut(Self::chain_of(block)) {
            bitmap.set_header(Header {
                next: *first,
                block,
                marked: 0,
            });
            *first = Link::to(Some(frame));
        }
        self.marks.stats.frames += 1;
        Ok(bitmap)
    }

    /// Takes the marks of `part` off, all of whose bits are in `bitmap`, and gives the frame back
    /// with the last.
    fn unmark_range(&mut self, bitmap: Bitmap, part: PfnRange) {
        let mut gone = 0;
        let (_, mut next) = self.place_of(part.start());
        let (_, last) = self.place_of(part.last());
        while let Some(bit) = bitmap.first_set(next, last) {
            bitmap.set(bit, false);
            next = bit;
            gone += 1;
        }
        let header = bitmap.header();
        let marked = header.marked.saturating_sub(gone);
        bitmap.set_header(Header { marked, ..header });
        self.marks.stats.marked = self.marks.stats.marked.saturating_sub(gone);
        if marked == 0 {
            self.remove_bitmap(bitmap, header);
        }
    }

    /// Takes `bitmap` out of its chain and gives its frame back.
    fn remove_bitmap(&mut self, bitmap: Bitmap, header: Header) {
        let chain = Self::chain_of(header.block);
        let before = self
            .chain(chain)
            .find(|before| before.next() == Some(bitmap.frame));
        match before {
            Some(before) => before.set_header(Header {
                next: header.next,
                ..before.header()
            }),
            None => {
                if let Some(first) = self.marks.chains.get_mut(chain) {
                    *first = header.next;
                }
            }
        }
        self.marks.stats.frames = self.marks.stats.frames.saturating_sub(1);
        // SAFETY: 1: it was taken for this bitmap, which is in no chain any more.
        unsafe { self.free_own_frame(bitmap.frame, NodeCounters::remove_mark_frame) };
    }
}
