//! Which memory is online, for readers on every CPU: a bit for each subsection.
//!
//! ```text
//!   root, an entry for each span      span 0   all of it is online
//!   (64 GiB with 4K frames)           span 1   nothing of it is
//!                                     span 2 ──▶ a frame of bits: 1 1 1 0 0 0 1 1 ...
//! ```
//!
//! Spans that come online in one call and go offline in one cost no frame. The root is the caller's,
//! since it outlives the [`Vmemmap`](crate::vmemmap::Vmemmap) that changes it. A reader loads an entry
//! and, if that leads to a frame, a word of it.
//!
//! An entry that leads to a frame is *followed* by readers or not. While it is not, the frame may be
//! freed: it is new, or all of its bits were cleared and a grace period has passed. An entry counts the
//! *freezes* of memory of its span: of each that may still be committed or thawed. While there are some
//! its frame stays, so that thawing needs neither memory nor the lock of the vmemmap. Where there are
//! none, nothing is frozen, and nobody has to look.
//!
//! All changes come from the holder of that lock, but for thawing. It sets bits and makes readers follow
//! the entry again, while the holder may be clearing others and ending that. Each of the two changes
//! one of the words before it looks at the other one, so one of them sees what the other did.

use super::protocol;
use crate::addr::{Order, Pfn, PfnRange};
use crate::frame::DirectMap;
use crate::model::MemoryModel;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

/// An entry of the root of the online map. Zero is a valid one, and is that of memory that is not
/// online.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct OnlineEntry(AtomicU64);

impl OnlineEntry {
    /// That of memory that is not online.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// That of memory whose bits are in `frame`, whatever is there.
    #[cfg(test)]
    pub(crate) const fn leading_to(frame: Pfn) -> Self {
        Self(AtomicU64::new(frame.get() << FRAME_SHIFT | FOLLOWED))
    }
}

/// The root has fewer entries than the model has spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootTooSmall {
    /// How many it has to have: [`MemoryModel::online_entries`].
    pub needed: usize,
    /// How many it has.
    pub given: usize,
}

impl fmt::Display for RootTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the root of the online map has {} entries; the model needs {} (`MemoryModel::online_entries`)",
            self.given, self.needed
        )
    }
}

impl core::error::Error for RootTooSmall {}

/// What is online of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    None,
    All,
    /// What the bits in the frame say.
    Bits {
        frame: Pfn,
        /// Whether readers follow the entry to them.
        followed: bool,
    },
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    content: Content,
    /// How many freezes there are in the span.
    freezes: u64,
}

/// The bits of an entry: what is in it, how many freezes there are, and the number of a frame.
const ALL: u64 = 1;
const FOLLOWED: u64 = 2;
const UNFOLLOWED: u64 = 3;
const CONTENT: u64 = 3;
const FREEZES_SHIFT: u32 = 2;
const MOST_FREEZES: u64 = (1 << (FRAME_SHIFT - FREEZES_SHIFT)) - 1;
const FRAME_SHIFT: u32 = 16;

impl State {
    fn of(raw: u64) -> Self {
        let frame = Pfn::new(raw >> FRAME_SHIFT).unwrap_or(Pfn::ZERO);
        let content = match raw & CONTENT {
            ALL => Content::All,
            FOLLOWED => Content::Bits {
                frame,
                followed: true,
            },
            UNFOLLOWED => Content::Bits {
                frame,
                followed: false,
            },
            _ => Content::None,
        };
        Self {
            content,
            freezes: raw >> FREEZES_SHIFT & MOST_FREEZES,
        }
    }

    const fn raw(self) -> u64 {
        let content = match self.content {
            Content::None => 0,
            Content::All => ALL,
            Content::Bits { frame, followed } => {
                let kind = if followed { FOLLOWED } else { UNFOLLOWED };
                frame.get() << FRAME_SHIFT | kind
            }
        };
        content | self.freezes << FREEZES_SHIFT
    }

    const fn frame(self) -> Option<Pfn> {
        match self.content {
            Content::Bits { frame, .. } => Some(frame),
            Content::None | Content::All => None,
        }
    }
}

static_assertions::const_assert!(Pfn::MAX.get() < 1 << (u64::BITS - FRAME_SHIFT));

/// The order of the memory whose bits are in one frame, or of all memory that there can be.
const fn span_order(model: &MemoryModel) -> u32 {
    let order = model.subsection().get() as u32 + model.granule().shift() + 3;
    let all = Order::MAX.get() as u32;
    if order < all { order } else { all }
}

static_assertions::const_assert!(Pfn::MAX.get() < Order::MAX.frames());

impl MemoryModel {
    /// How many entries the root of the [online map](crate::readers) has: one for each 64 GiB of the
    /// model's frames (4K frames, subsections of 2 MiB), 1024 for 64 TiB.
    pub const fn online_entries(&self) -> usize {
        let last = self.all_frames().last().get();
        (last >> span_order(self)) as usize + 1
    }
}

/// The online map, below its root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlineMap<'r> {
    root: &'r [OnlineEntry],
    subsection: Order,
    span_order: u32,
}

/// The part of a range that is in one span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'r> {
    entry: &'r OnlineEntry,
    frames: PfnRange,
    /// Whether it is all of the span.
    is_whole: bool,
    subsection: Order,
    span_order: u32,
}

impl<'r> OnlineMap<'r> {
    pub(crate) const fn new(
        model: &MemoryModel,
        root: &'r [OnlineEntry],
    ) -> Result<Self, RootTooSmall> {
        let (needed, given) = (model.online_entries(), root.len());
        if given < needed {
            return Err(RootTooSmall { needed, given });
        }
        Ok(Self {
            root,
            subsection: model.subsection(),
            span_order: span_order(model),
        })
    }

    /// Whether both are one map.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        core::ptr::eq(self.root, other.root)
    }

    /// Whether `frame` is online: two loads. The caller holds a guard, or is the writer, who alone frees
    /// what the entry leads to.
    #[inline]
    pub(crate) fn contains<M: DirectMap>(&self, direct_map: &M, frame: Pfn) -> bool {
        let index = usize::try_from(frame.get() >> self.span_order);
        let Some(entry) = index.ok().and_then(|index| self.root.get(index)) else {
            return false;
        };
        let raw = protocol::state(&entry.0);
        match raw & CONTENT {
            ALL => true,
            FOLLOWED => {
                let bits = Pfn::new(raw >> FRAME_SHIFT).unwrap_or(Pfn::ZERO);
                let bit = bit_of(frame, self.subsection, self.span_order);
                // SAFETY: 1: readers follow the entry, and the caller holds a guard, or is the writer.
                let word = unsafe { word_of(direct_map, bits, bit) };
                protocol::is_set(word, 1 << (bit % 64))
            }
            _ => false,
        }
    }

    /// The parts of `frames`, span by span.
    pub(crate) fn parts(&self, frames: PfnRange) -> impl Iterator<Item = Part<'r>> + use<'r> {
        let map = *self;
        let mut rest = Some(frames);
        core::iter::from_fn(move || {
            let frames = rest?;
            let span = 1u64 << map.span_order;
            let in_span = span - (frames.start().get() & (span - 1));
            let (part, later) = frames.take_first(in_span);
            rest = later;
            let index = usize::try_from(part.start().get() >> map.span_order).ok()?;
            Some(Part {
                entry: map.root.get(index)?,
                frames: part,
                is_whole: part.frames() == span,
                subsection: map.subsection,
                span_order: map.span_order,
            })
        })
    }

    /// The frame of bits of the span of `frame`, if it has one.
    pub(crate) fn bits_of(&self, frame: Pfn) -> Option<Pfn> {
        let index = usize::try_from(frame.get() >> self.span_order).ok()?;
        let entry = self.root.get(index)?;
        State::of(protocol::state(&entry.0)).frame()
    }

    /// The first frame behind the span of `frame`.
    pub(crate) fn span_after(&self, frame: Pfn) -> Option<Pfn> {
        let index = (frame.get() >> self.span_order).checked_add(1)?;
        Pfn::new(index.checked_mul(1 << self.span_order)?)
    }
}

/// The number of the bit of `frame` within its span.
#[inline]
const fn bit_of(frame: Pfn, subsection: Order, span_order: u32) -> u64 {
    (frame.get() & ((1 << span_order) - 1)) >> subsection.get()
}

/// The word of the bit number `bit` in `bits`, a frame of them.
///
/// # Safety
///
/// 1. The frame is one of bits, `direct_map` reaches it, and it is not freed as long as the answer is
///    used. `bit` is below the bits of a page.
#[inline]
unsafe fn word_of<M: DirectMap>(direct_map: &M, bits: Pfn, bit: u64) -> &AtomicU64 {
    let page: NonNull<AtomicU64> = direct_map.frame_pointer(bits).cast();
    // SAFETY: by duty 1 the word is within the page, initialised, and changed by atomics only.
    unsafe { page.add((bit / 64) as usize).as_ref() }
}

/// The words of the bits from `first` to `last`, each with those of its bits that are meant.
fn words(first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
    (first / 64..=last / 64).map(move |word| {
        let from = first.saturating_sub(word * 64).min(63);
        let to = (last - word * 64).min(63);
        (word * 64, (u64::MAX << from) & (u64::MAX >> (63 - to)))
    })
}

impl Part<'_> {
    /// The frames.
    pub(crate) const fn frames(&self) -> PfnRange {
        self.frames
    }

    fn state(&self) -> State {
        State::of(protocol::state(&self.entry.0))
    }

    /// Changes the entry, as `change` says of what it is, until it is that or `change` says nothing. Says
    /// whether it has changed.
    fn update(&self, change: impl Fn(State) -> Option<State>) -> bool {
        protocol::update(&self.entry.0, |raw| change(State::of(raw)).map(State::raw))
    }

    /// Shows the words of the frames' bits.
    fn for_each_word<M: DirectMap>(
        &self,
        direct_map: &M,
        bits: Pfn,
        mut visit: impl FnMut(&AtomicU64, u64),
    ) {
        let bit = |frame| bit_of(frame, self.subsection, self.span_order);
        for (first, mask) in words(bit(self.frames.start()), bit(self.frames.last())) {
            // SAFETY: 1: the entry names the frame, and only the caller frees it.
            visit(unsafe { word_of(direct_map, bits, first) }, mask);
        }
    }

    /// Whether none of the span's bits is set.
    fn is_clear<M: DirectMap>(&self, direct_map: &M, bits: Pfn) -> bool {
        let last = (1u64 << (self.span_order - u32::from(self.subsection.get()))) - 1;
        words(0, last).all(|(first, _)| {
            // SAFETY: 1: the entry names the frame, and only the caller frees it.
            protocol::latest(unsafe { word_of(direct_map, bits, first) }) == 0
        })
    }

    /// Whether the entry needs a frame of bits before the part can be published.
    pub(crate) fn needs_bits_to_publish(&self) -> bool {
        !self.is_whole && self.state().content == Content::None
    }

    /// Whether the entry says that nothing of the span is online, so that a smaller page that is found
    /// needs a frame of bits; pages are of `order`, or larger.
    pub(crate) fn needs_bits_for_pages(&self, order: Order) -> bool {
        u32::from(order.get()) < self.span_order && self.state().content == Content::None
    }

    /// Whether the entry needs a frame of bits before the part can be withdrawn.
    pub(crate) fn needs_bits_to_withdraw(&self) -> bool {
        !self.is_whole && self.state().content == Content::All
    }

    /// Gives the entry a frame of bits, which say what the entry has said.
    ///
    /// # Safety
    ///
    /// 1. `bits` was allocated for this, `direct_map` reaches it, and it has the size of the model's
    ///    granule.
    pub(crate) unsafe fn give_bits<M: DirectMap>(&self, direct_map: &M, bits: Pfn, bytes: u64) {
        let all = self.state().content == Content::All;
        let page = direct_map.frame_pointer(bits);
        // SAFETY: by duty 1 the page is that long and nobody else's.
        unsafe { page.write_bytes(if all { u8::MAX } else { 0 }, bytes as usize) };
        self.update(|state| {
            let content = Content::Bits {
                frame: bits,
                followed: all,
            };
            let is_missing = state.frame().is_none();
            is_missing.then_some(State { content, ..state })
        });
    }

    /// Publishes the part: it is online for readers.
    pub(crate) fn publish<M: DirectMap>(&self, direct_map: &M) {
        match self.state().content {
            Content::Bits { frame, .. } => {
                self.for_each_word(direct_map, frame, protocol::set);
                self.set_followed(true);
            }
            Content::None if self.is_whole => {
                self.update(|state| {
                    let content = Content::All;
                    (state.content == Content::None).then_some(State { content, ..state })
                });
            }
            Content::None | Content::All => {}
        }
    }

    /// Makes readers follow the entry to its bits, or not.
    fn set_followed(&self, followed: bool) {
        self.update(|state| match state.content {
            Content::Bits {
                frame,
                followed: before,
            } if before != followed => Some(State {
                content: Content::Bits { frame, followed },
                ..state
            }),
            _ => None,
        });
    }

    /// Withdraws the part: readers that begin after a grace period do not find it.
    pub(crate) fn withdraw<M: DirectMap>(&self, direct_map: &M) {
        let Some(bits) = self.state().frame() else {
            if self.is_whole {
                self.update(|state| {
                    let content = Content::None;
                    (state.content == Content::All).then_some(State { content, ..state })
                });
            }
            return;
        };
        self.for_each_word(direct_map, bits, protocol::clear);
        if !self.is_clear(direct_map, bits) {
            return;
        }
        self.set_followed(false);
        // Whoever thawed some of them meanwhile may have found the entry followed.
        if !self.is_clear(direct_map, bits) {
            self.set_followed(true);
        }
    }

    /// Takes the frame of bits out of the entry if it says that nothing is online, is not followed and
    /// has no freezes. It is the caller's then, to be freed.
    pub(crate) fn take_bits<M: DirectMap>(&self, direct_map: &M) -> Option<Pfn> {
        let frame = self.state().frame()?;
        let none = State {
            content: Content::None,
            freezes: 0,
        };
        let unused = State {
            content: Content::Bits {
                frame,
                followed: false,
            },
            freezes: 0,
        };
        // Without a freeze nobody sets a bit but the caller.
        let is_taken = self.state() == unused
            && self.is_clear(direct_map, frame)
            && protocol::link(&self.entry.0, unused.raw(), none.raw());
        is_taken.then_some(frame)
    }

    /// Whether there is a freeze in the span.
    pub(crate) fn has_freezes(&self) -> bool {
        self.state().freezes > 0
    }

    /// Counts a freeze. Says whether there was room for one more.
    pub(crate) fn add_freeze(&self) -> bool {
        self.update(|state| {
            (state.freezes < MOST_FREEZES).then_some(State {
                freezes: state.freezes + 1,
                ..state
            })
        })
    }

    /// Ends one.
    pub(crate) fn remove_freeze(&self) {
        self.update(|state| {
            let freezes = state.freezes.checked_sub(1)?;
            Some(State { freezes, ..state })
        });
    }
}

#[cfg(test)]
mod tests;
