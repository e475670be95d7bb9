//! A descriptor of 64 bytes.
//!
//! ```text
//!   byte   0..7    8..15   16..19       20..23   24       25..39   40..47    48..63
//!         ┌───────┬───────┬────────────┬────────┬────────┬────────┬─────────┬─────────┐
//!         │ owner │ flags │ references │ node   │ order  │        │ compact │ private │
//!         └───────┴───────┴────────────┴────────┴────────┴────────┴─────────┴─────────┘
//!   compact   0 of a head; of a tail 2^63 + the head's address / 64
//! ```

use mm_core::addr::{Order, VirtAddr};
use mm_core::descriptor::{Descriptor, Initial, Part, Reshape, TailEncoding};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use testkit::testbed::{SeenDescriptor, TestDescriptor};

/// A tail has the address of its head, compressed: it is a multiple of 64.
pub(crate) enum Compact {}

// SAFETY: 1 and 2: a tail's word is the head's address, a multiple of 64 bytes and so shifted without
// loss, and the highest bit; a head's is 0. 3: it is false.
unsafe impl TailEncoding for Compact {
    const SAME_FOR_ALL: bool = false;

    fn head_word() -> u64 {
        0
    }

    fn tail_word(head: VirtAddr, _array_bytes: u64) -> u64 {
        head.get() >> 6 | 1 << 63
    }

    fn head_of(at: VirtAddr, word: u64) -> VirtAddr {
        match Self::is_tail(word) {
            true => VirtAddr::new(word << 6),
            false => at,
        }
    }

    fn is_tail(word: u64) -> bool {
        word >> 63 != 0
    }
}

/// See the module.
#[repr(C, align(64))]
pub(crate) struct Wide {
    owner: AtomicU64,
    flags: AtomicU64,
    references: AtomicU32,
    node: AtomicU32,
    order: AtomicU8,
    unused: [u8; 15],
    compact: AtomicU64,
    private: [AtomicU64; 2],
}

const _: () = assert!(size_of::<Wide>() == 64 && align_of::<Wide>() == 64);
const _: () = assert!(std::mem::offset_of!(Wide, compact) == 40);

// SAFETY: 1: plain atomics without a destructor. 2: every field that changes is atomic. 3: both are
// fields, which only `Reshape` changes. 4: it looks at nothing else.
unsafe impl Descriptor for Wide {
    type Encoding = Compact;

    fn initial(initial: Initial) -> Self {
        let references = u32::from(matches!(initial.part, Part::Base | Part::Head));
        Self {
            owner: AtomicU64::new(0),
            flags: AtomicU64::new(0),
            references: AtomicU32::new(references),
            node: AtomicU32::new(initial.node.number()),
            order: AtomicU8::new(initial.order.get()),
            unused: [0; 15],
            compact: AtomicU64::new(initial.word),
            private: [const { AtomicU64::new(0) }; 2],
        }
    }

    fn word(&self) -> u64 {
        self.compact.load(Ordering::Relaxed)
    }

    fn order(&self) -> Order {
        Order::new(self.order.load(Ordering::Relaxed)).unwrap_or(Order::BASE)
    }
}

// SAFETY: 1: all stores are to atomics. 2: both are stored as given.
unsafe impl Reshape for Wide {
    unsafe fn reshape(&self, initial: Initial) {
        self.order.store(initial.order.get(), Ordering::Relaxed);
        self.compact.store(initial.word, Ordering::Release);
    }

    unsafe fn reset(&self, initial: Initial) {
        let references = u32::from(matches!(initial.part, Part::Base | Part::Head));
        self.owner.store(0, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
        self.references.store(references, Ordering::Relaxed);
        self.node.store(initial.node.number(), Ordering::Relaxed);
        for word in &self.private {
            word.store(0, Ordering::Relaxed);
        }
        // SAFETY: 1: the caller's.
        unsafe { self.reshape(initial) };
    }
}

impl TestDescriptor for Wide {
    fn read(at: VirtAddr, bytes: &[u8]) -> SeenDescriptor {
        assert_eq!(bytes.len(), 64);
        let compact = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
        let tail = compact >= 1 << 63;
        SeenDescriptor {
            order: bytes[24],
            tail,
            head: if tail {
                VirtAddr::new(compact.wrapping_mul(64))
            } else {
                at
            },
        }
    }

    fn state(&self) -> [u64; 4] {
        [
            self.owner.load(Ordering::Relaxed),
            self.flags.load(Ordering::Relaxed),
            self.references.load(Ordering::Relaxed).into(),
            self.private[1].load(Ordering::Relaxed),
        ]
    }

    fn set_state(&self, seed: u64) {
        self.owner.store(seed, Ordering::Relaxed);
        self.flags.store(!seed, Ordering::Relaxed);
        self.references.store(seed as u32, Ordering::Relaxed);
        self.private[1].store(seed.rotate_left(7), Ordering::Relaxed);
    }
}
