//! The kernel's own page descriptor.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;
use mm_core::addr::{NodeId, Order};
use mm_core::descriptor::{Descriptor, Initial, Pointer, TailEncoding};

/// What the example kernels keep about a frame. Not mm-core's `Page`, as a kernel with needs of its
/// own would not take it either.
///
/// `E` is how a tail names its head.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct FrameInfo<E = Pointer> {
    word: u64,
    owner: AtomicU64,
    order: Order,
    node: NodeId,
    encoding: PhantomData<E>,
}

impl<E: TailEncoding> FrameInfo<E> {
    /// Where in a descriptor the word lies that names the head.
    pub const WORD: u64 = offset_of!(Self, word) as u64;

    /// Where in a descriptor the word lies that belongs to the frame's owner. Zero at first.
    pub const OWNER: u64 = offset_of!(Self, owner) as u64;

    /// The owner's word.
    pub fn owner(&self) -> &AtomicU64 {
        &self.owner
    }

    /// The node of the memory.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether `word` is that of a tail.
    pub fn is_tail_word(word: u64) -> bool {
        E::is_tail(word)
    }
}

// SAFETY: 1: no destructor. 2: `owner` is what changes, and is atomic. 3: both are stored as given,
// and there is no way to change them.
unsafe impl<E: TailEncoding> Descriptor for FrameInfo<E> {
    type Encoding = E;

    fn initial(initial: Initial) -> Self {
        Self {
            word: initial.word,
            owner: AtomicU64::new(0),
            order: initial.order,
            node: initial.node,
            encoding: PhantomData,
        }
    }

    fn word(&self) -> u64 {
        self.word
    }

    fn order(&self) -> Order {
        self.order
    }
}
