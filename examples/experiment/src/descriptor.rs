//! The kernel's own page descriptor.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use mm_core::addr::{NodeId, Order};
use mm_core::descriptor::{
    Descriptor, DescriptorLayout, Initial, Part, Pointer, Reshape, TailEncoding,
};
use mm_core::readers::{CountReferences, Put, ReferenceCount};

/// What the example kernels keep about a frame. Not mm-core's `Page`, as a kernel with needs of its
/// own would not take it either.
///
/// `E` is how a tail names its head.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct FrameInfo<E = Pointer> {
    word: AtomicU64,
    owner: AtomicU64,
    node: AtomicU32,
    users: ReferenceCount,
    order: AtomicU8,
    notes: [AtomicU8; NOTES],
    encoding: PhantomData<E>,
}

/// How many CPUs can leave a note in a head.
const NOTES: usize = 16;

impl<E: TailEncoding> FrameInfo<E> {
    /// Where in a descriptor the word lies that names the head.
    pub const WORD: u64 = offset_of!(Self, word) as u64;

    /// Where in a descriptor the word lies that belongs to the frame's owner. Zero at first.
    pub const OWNER: u64 = offset_of!(Self, owner) as u64;

    /// The owner's word.
    pub fn owner(&self) -> &AtomicU64 {
        &self.owner
    }

    /// The references to the page, in its head: the owner's at first.
    pub fn users(&self) -> &ReferenceCount {
        &self.users
    }

    /// What CPU `number` keeps in a head as long as it has a reference, of those that can.
    pub fn note(&self, number: usize) -> Option<&AtomicU8> {
        self.notes.get(number)
    }

    /// The node of the memory.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.node.load(Ordering::Relaxed))
    }

    /// Whether `word` is that of a tail.
    pub fn is_tail_word(word: u64) -> bool {
        E::is_tail(word)
    }
}

// SAFETY: 1: no destructor. 2: all fields are atomic. 3: both are stored as given, and only
// `Reshape` changes them. 4: it looks at nothing else.
unsafe impl<E: TailEncoding> Descriptor for FrameInfo<E> {
    type Encoding = E;

    fn initial(initial: Initial) -> Self {
        let is_page = matches!(initial.part, Part::Base | Part::Head);
        Self {
            word: AtomicU64::new(initial.word),
            owner: AtomicU64::new(0),
            node: AtomicU32::new(initial.node.number()),
            users: ReferenceCount::new(is_page.into()),
            order: AtomicU8::new(initial.order.get()),
            notes: [const { AtomicU8::new(0) }; NOTES],
            encoding: PhantomData,
        }
    }

    fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    fn order(&self) -> Order {
        Order::new(self.order.load(Ordering::Relaxed)).unwrap_or(Order::BASE)
    }

    fn is_frozen(&self) -> bool {
        self.users.is_frozen()
    }
}

impl<E: TailEncoding> DescriptorLayout for FrameInfo<E> {
    const WORD_OFFSET: usize = offset_of!(Self, word);
    const ORDER_OFFSET: usize = offset_of!(Self, order);
}

// SAFETY: 1: all stores are to atomics. 2: both are stored as given.
unsafe impl<E: TailEncoding> Reshape for FrameInfo<E> {
    unsafe fn reshape(&self, initial: Initial) {
        self.order.store(initial.order.get(), Ordering::Relaxed);
        self.word.store(initial.word, Ordering::Release);
    }

    unsafe fn reset(&self, initial: Initial) {
        self.owner.store(0, Ordering::Relaxed);
        self.node.store(initial.node.number(), Ordering::Relaxed);
        // SAFETY: 1: nobody needs what is kept here any more (duty 2). 2: the owner's, as in a new one.
        unsafe { self.users.reset(&Self::initial(initial).users) };
        // SAFETY: 1: the caller's.
        unsafe { self.reshape(initial) };
    }
}

// SAFETY: 1 to 5: those of `ReferenceCount`; tails are made with a count of 0.
unsafe impl<E: TailEncoding> CountReferences for FrameInfo<E> {
    fn try_get(&self) -> bool {
        self.users.try_get()
    }

    unsafe fn put(&self) -> Put {
        // SAFETY: 1: the caller's.
        unsafe { self.users.put() }
    }

    fn try_freeze(&self, expected: u32) -> bool {
        self.users.try_freeze(expected)
    }

    unsafe fn unfreeze(&self, references: u32) {
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.users.unfreeze(references) }
    }
}
