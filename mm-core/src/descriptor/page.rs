//! A 64-byte descriptor with room for what kernels usually keep.

use super::{Descriptor, DescriptorLayout, Initial, Part, Pointer, Reshape, TailEncoding};
use crate::addr::{NodeId, Order};
use crate::readers::{CountReferences, Put, ReferenceCount};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A page descriptor of 64 bytes.
///
/// Of a compound page only the head, and the tails that share its vmemmap page, are memory of their
/// own: per-page state of the others does not exist.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Page<E = Pointer> {
    flags: AtomicU64,
    word: AtomicU64,
    references: ReferenceCount,
    mappings: AtomicU32,
    order: AtomicU8,
    reserved: [u8; 3],
    node: AtomicU32,
    private: [AtomicU64; 4],
    encoding: PhantomData<E>,
}

static_assertions::assert_eq_size!(Page, [u64; 8]);
static_assertions::assert_eq_align!(Page, [Page; 2]);

impl<E: TailEncoding> Page<E> {
    /// Flags, whose meaning is the kernel's. Zero at first.
    pub fn flags(&self) -> &AtomicU64 {
        &self.flags
    }

    /// References to the page that is described. One at first for a head or a page by itself, which
    /// belongs to whoever brought the memory online; none for a tail, and none for a page that an
    /// altmap reserves. The library changes none of them but for its [readers](crate::readers).
    pub fn references(&self) -> &ReferenceCount {
        &self.references
    }

    /// How often the page is mapped. Zero at first.
    pub fn mappings(&self) -> &AtomicU32 {
        &self.mappings
    }

    /// Four words for the page's owner. Zero at first.
    pub fn private(&self) -> &[AtomicU64; 4] {
        &self.private
    }

    /// The node of the memory.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.node.load(Ordering::Relaxed))
    }

    /// Whether this is a tail of a compound page.
    pub fn is_tail(&self) -> bool {
        E::is_tail(self.word())
    }
}

// SAFETY: 1: plain atomics without a destructor. 2: every field that changes is atomic. 3: both are
// stored as given, and only `Reshape` changes them. 4: it looks at nothing else.
unsafe impl<E: TailEncoding> Descriptor for Page<E> {
    type Encoding = E;

    fn initial(initial: Initial) -> Self {
        let references = match initial.part {
            Part::Base | Part::Head => 1,
            Part::Tail | Part::Reserved => 0,
        };
        Self {
            flags: AtomicU64::new(0),
            word: AtomicU64::new(initial.word),
            references: ReferenceCount::new(references),
            mappings: AtomicU32::new(0),
            order: AtomicU8::new(initial.order.get()),
            reserved: [0; 3],
            node: AtomicU32::new(initial.node.number()),
            private: [const { AtomicU64::new(0) }; 4],
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
        self.references.is_frozen()
    }
}

impl<E: TailEncoding> DescriptorLayout for Page<E> {
    const WORD_OFFSET: usize = offset_of!(Self, word);
    const ORDER_OFFSET: usize = offset_of!(Self, order);
}

// SAFETY: 1: all stores are to atomics. 2: both are stored as given.
unsafe impl<E: TailEncoding> Reshape for Page<E> {
    unsafe fn reshape(&self, initial: Initial) {
        self.order.store(initial.order.get(), Ordering::Relaxed);
        self.word.store(initial.word, Ordering::Release);
    }

    unsafe fn reset(&self, initial: Initial) {
        let new = Self::initial(initial);
        let word = |to: &AtomicU64, from: &AtomicU64| {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        let half = |to: &AtomicU32, from: &AtomicU32| {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        word(&self.flags, &new.flags);
        // SAFETY: 1: whoever had references does not need what is kept here (duty 2). 2: the owner's,
        // as in a new descriptor.
        unsafe { self.references.reset(&new.references) };
        half(&self.mappings, &new.mappings);
        half(&self.node, &new.node);
        for (to, from) in self.private.iter().zip(&new.private) {
            word(to, from);
        }
        // SAFETY: 1: the caller's.
        unsafe { self.reshape(initial) };
    }
}

// SAFETY: 1 to 5: those of `ReferenceCount`; tails are made with a count of 0.
unsafe impl<E: TailEncoding> CountReferences for Page<E> {
    fn try_get(&self) -> bool {
        self.references.try_get()
    }

    unsafe fn put(&self) -> Put {
        // SAFETY: 1: the caller's.
        unsafe { self.references.put() }
    }

    fn try_freeze(&self, expected: u32) -> bool {
        self.references.try_freeze(expected)
    }

    unsafe fn unfreeze(&self, references: u32) {
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.references.unfreeze(references) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::VirtAddr;

    #[test]
    fn a_descriptor_keeps_what_it_was_made_with() {
        let order = Order::new(9).unwrap();
        let word = Pointer::tail_word(VirtAddr::new(0xffff_ea00_0000_0000), 1 << 15);
        let page: Page = Page::initial(Initial {
            part: Part::Tail,
            order,
            word,
            node: NodeId::new(3),
        });
        assert_eq!((page.word(), page.order()), (word, order));
        assert_eq!(page.node(), NodeId::new(3));
        assert_eq!(page.references().get(), Some(0));
        assert!(page.is_tail());
    }
    fn initial(part: Part, order: u8, word: u64) -> Initial {
        Initial {
            part,
            order: Order::new(order).unwrap(),
            word,
            node: NodeId::new(1),
        }
    }

    #[test]
    fn reshaping_keeps_what_the_kernel_wrote() {
        let page: Page = Page::initial(initial(Part::Base, 0, Pointer::head_word()));
        page.flags().store(5, Ordering::Relaxed);
        page.private()[2].store(7, Ordering::Relaxed);
        // SAFETY: 1: the page is this test's.
        unsafe { page.reshape(initial(Part::Head, 9, Pointer::head_word())) };
        assert_eq!(page.order().get(), 9);
        assert_eq!(page.flags().load(Ordering::Relaxed), 5);
        assert_eq!(page.private()[2].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_reset_descriptor_has_the_bytes_of_a_new_one() {
        let page: Page = Page::initial(initial(Part::Base, 0, Pointer::head_word()));
        page.flags().store(5, Ordering::Relaxed);
        page.mappings().store(3, Ordering::Relaxed);
        page.private()[2].store(7, Ordering::Relaxed);
        let tail = initial(Part::Tail, 9, 0xffff_ea00_0000_0001);
        // SAFETY: 1 and 2: as above.
        unsafe { page.reset(tail) };
        let words = |page: &Page| {
            // SAFETY: a page is eight words without padding.
            let words: &[u64; 8] = unsafe { &*core::ptr::from_ref(page).cast() };
            *words
        };
        assert_eq!(words(&page), words(&Page::initial(tail)));
    }
}
