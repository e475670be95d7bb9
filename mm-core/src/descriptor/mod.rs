//! Page descriptors: what the vmemmap is an array of.
//!
//! A kernel brings its own type by implementing [`Descriptor`], or takes [`Page`]. How a tail names
//! its head is the [`TailEncoding`].
//!
//! Descriptors are aliased: a page of tails is mapped at many addresses, and every vmemmap page is
//! also reachable by the direct map. So they are exposed by `&` only, and what changes in them is
//! atomic.

mod encoding;
mod page;

pub use encoding::{Mask, Pointer, Scheme, TailEncoding};
pub use page::Page;

use crate::addr::{NodeId, Order};

/// What a descriptor is at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A page by itself.
    Base,
    /// The first descriptor of a compound page.
    Head,
    /// Any other descriptor of a compound page. Where heads are [packed](crate::pagemap::Heads::Packed), so
    /// is each of its stubs, and a place for a head that no page has.
    Tail,
    /// A page by itself that an [altmap](crate::frame::Altmap) reserves: it holds descriptors, or
    /// will. It is no page for the kernel to hand out, and nobody has a reference to it.
    Reserved,
}

/// What a descriptor starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initial {
    /// Which part of its compound page it describes.
    pub part: Part,
    /// The order of the compound page; [`Order::BASE`] for a page by itself, reserved or not.
    pub order: Order,
    /// The word that [`TailEncoding::head_of`] finds the head by.
    pub word: u64,
    /// The node of the memory that is described.
    pub node: NodeId,
}

/// A page descriptor.
///
/// # For implementers
///
/// A power of two of bytes in size. Keep the word and the order where `initial` puts them for as
/// long as the compound page is online; everything else is the kernel's. All tails of a compound
/// page are made from the same `Initial`, and most of them are the same memory: a field that is to
/// differ from tail to tail has no place to be.
///
/// ```
/// use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
/// use mm_core::addr::Order;
/// use mm_core::descriptor::{Descriptor, Initial, Mask};
///
/// /// 16 bytes for each frame.
/// struct Frame {
///     word: AtomicU64,
///     order: AtomicU32,
///     users: AtomicU32,
/// }
///
/// // SAFETY: 1: it has no destructor, and any bytes may be overwritten. 2: all fields are atomic. 3: the
/// // word and the order are those of `initial`, and nobody else stores to them. 4: it looks at nothing else.
/// unsafe impl Descriptor for Frame {
///     type Encoding = Mask;
///
///     fn initial(initial: Initial) -> Self {
///         Self {
///             word: AtomicU64::new(initial.word),
///             order: AtomicU32::new(initial.order.get().into()),
///             users: AtomicU32::new(0),
///         }
///     }
///
///     fn word(&self) -> u64 {
///         self.word.load(Relaxed)
///     }
///
///     fn order(&self) -> Order {
///         let order = u8::try_from(self.order.load(Relaxed)).ok();
///         order.and_then(Order::new).unwrap_or(Order::BASE)
///     }
/// }
/// ```
///
/// # Safety
///
/// 1. The type may be written to zeroed or arbitrary memory with [`initial`](Self::initial), by copies of
///    its bytes too, and may be forgotten without being dropped.
/// 2. Everything in it that changes is atomic, so that it may be read through several addresses at
///    once.
/// 3. `word` and `order` give what `initial` was given.
/// 4. What [`initial`](Self::initial) gives depends on its argument alone. So one value, its bytes repeated,
///    may stand for many calls with the same argument. Bytes between fields need not be initialized.
pub unsafe trait Descriptor: Sized + Sync + 'static {
    /// How tails name their heads.
    type Encoding: TailEncoding;

    /// A descriptor of memory that nobody uses yet.
    fn initial(initial: Initial) -> Self;

    /// The word that it was made with.
    fn word(&self) -> u64;

    /// The order of the compound page that it is part of.
    fn order(&self) -> Order;

    /// Whether the page that begins with it is frozen, so that nobody may change it. Only a descriptor
    /// that [counts references](crate::readers::CountReferences) has an answer, and says it by duty 5 of
    /// that trait.
    fn is_frozen(&self) -> bool {
        false
    }
}

/// Where in a descriptor a program looks that has a dump of memory.
///
/// For [`Vmemmap::describe`](crate::vmemmap::Vmemmap::describe) alone: wrong offsets mislead readers of dumps, and
/// nobody else.
pub trait DescriptorLayout: Descriptor {
    /// Where the [word](Descriptor::word) lies, in bytes from the start: eight bytes, in the byte order of the machine.
    const WORD_OFFSET: usize;

    /// Where the [order](Descriptor::order) lies: one byte. Where it is a larger number, its lowest byte.
    const ORDER_OFFSET: usize;
}

/// A descriptor that can become part of another page while it is in use, as fold and unfold need.
///
/// # Safety
///
/// 1. Both methods store by atomics only.
/// 2. After either, `word` and `order` give what `initial` says.
pub unsafe trait Reshape: Descriptor {
    /// Makes this descriptor the part of another page that `initial` says. What the kernel keeps in
    /// it stays: only what names the page, its order and its head, changes.
    ///
    /// # Safety
    ///
    /// 1. The frame is to be the part of a page that `initial` says. The library finds heads and
    ///    tail frames by what descriptors say.
    unsafe fn reshape(&self, initial: Initial);

    /// Makes this descriptor what [`initial`](Descriptor::initial) would make of it, in everything:
    /// it is to stand for other frames too.
    ///
    /// # Safety
    ///
    /// 1. As for [`reshape`](Self::reshape).
    /// 2. Nobody needs what is kept in it any more.
    unsafe fn reset(&self, initial: Initial);
}
