//! A descriptor of 32 bytes.
//!
//! ```text
//!   byte   0       1       2..3    4..7    8..11        12..15     16..23   24..31
//!         ┌───────┬───────┬───────┬───────┬────────────┬──────────┬────────┬────────┐
//!         │ word  │ order │ node  │ flags │ references │ mappings │ owner  │ list   │
//!         └───────┴───────┴───────┴───────┴────────────┴──────────┴────────┴────────┘
//!   word   0 of a head; 0x80 + n of a tail of a compound page whose descriptors fill 2^n bytes
//! ```
//!
//! The first eight bytes are one atomic word.

use mm_core::addr::{NodeId, Order, VirtAddr};
use mm_core::descriptor::{Descriptor, Initial, Part, Reshape, TailEncoding};
use mm_core::model::{MemoryModel, ModelConfig};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use testkit::testbed::{SeenDescriptor, TestDescriptor};

/// A tail has the base-2 logarithm of the bytes that its compound page's descriptors fill. They are
/// aligned to that, so the head is found by shifts.
pub(crate) enum Log2 {}

/// The bit that says tail.
const TAIL: u64 = 1 << 7;

// SAFETY: 1 and 2: a tail's word has the number of bits below the compound page's, and a bit; a head's is
// 0, no bits. 3: it follows from the size.
unsafe impl TailEncoding for Log2 {
    const SAME_FOR_ALL: bool = true;

    fn head_word() -> u64 {
        0
    }

    fn tail_word(_head: VirtAddr, array_bytes: u64) -> u64 {
        TAIL | u64::from(array_bytes.trailing_zeros())
    }

    fn head_of(at: VirtAddr, word: u64) -> VirtAddr {
        // A head has no bits, which are then none to clear.
        let bits = word & (TAIL - 1);
        VirtAddr::new(at.get() >> bits << bits)
    }

    fn is_tail(word: u64) -> bool {
        word & TAIL != 0
    }
}

/// See the module.
#[repr(C, align(32))]
pub(crate) struct Slim {
    packed: AtomicU64,
    references: AtomicU32,
    mappings: AtomicU32,
    owner: AtomicU64,
    list: AtomicU64,
}

const _: () = assert!(size_of::<Slim>() == 32 && align_of::<Slim>() == 32);

/// Word and order: what a fold changes.
const SHAPE: u64 = 0xffff;

impl Slim {
    fn shape(initial: Initial) -> u64 {
        initial.word | u64::from(initial.order.get()) << 8
    }
}

// SAFETY: 1: plain atomics without a destructor. 2: every field is atomic. 3: word and order have a
// byte each, which only `Reshape` changes. 4: it looks at nothing else.
unsafe impl Descriptor for Slim {
    type Encoding = Log2;

    fn initial(initial: Initial) -> Self {
        let node = u64::from(initial.node.number()) << 16;
        let references = u32::from(matches!(initial.part, Part::Base | Part::Head));
        Self {
            packed: AtomicU64::new(Self::shape(initial) | node),
            references: AtomicU32::new(references),
            mappings: AtomicU32::new(0),
            owner: AtomicU64::new(0),
            list: AtomicU64::new(0),
        }
    }

    fn word(&self) -> u64 {
        self.packed.load(Ordering::Relaxed) & 0xff
    }

    fn order(&self) -> Order {
        let order = self.packed.load(Ordering::Relaxed) >> 8;
        Order::new(order as u8).unwrap_or(Order::BASE)
    }
}

// SAFETY: 1: all stores are to atomics. 2: both are stored as given.
unsafe impl Reshape for Slim {
    unsafe fn reshape(&self, initial: Initial) {
        let update = |packed: u64| Some(packed & !SHAPE | Self::shape(initial));
        let done = self
            .packed
            .fetch_update(Ordering::Release, Ordering::Relaxed, update);
        assert!(done.is_ok());
    }

    unsafe fn reset(&self, initial: Initial) {
        let new = Self::initial(initial);
        let node = u64::from(NodeId::number(initial.node)) << 16;
        self.packed
            .store(Self::shape(initial) | node, Ordering::Release);
        let references = new.references.load(Ordering::Relaxed);
        self.references.store(references, Ordering::Relaxed);
        self.mappings.store(0, Ordering::Relaxed);
        self.owner.store(0, Ordering::Relaxed);
        self.list.store(0, Ordering::Relaxed);
    }
}

impl TestDescriptor for Slim {
    fn read(at: VirtAddr, bytes: &[u8]) -> SeenDescriptor {
        assert_eq!(bytes.len(), 32);
        let tail = bytes[0] >= 0x80;
        let span = if tail { 1u64 << (bytes[0] - 0x80) } else { 1 };
        SeenDescriptor {
            order: bytes[1],
            tail,
            head: VirtAddr::new(at.get() / span * span),
        }
    }

    fn state(&self) -> [u64; 4] {
        [
            self.packed.load(Ordering::Relaxed) >> 32,
            self.references.load(Ordering::Relaxed).into(),
            self.owner.load(Ordering::Relaxed),
            self.list.load(Ordering::Relaxed),
        ]
    }

    fn set_state(&self, seed: u64) {
        let flags = |packed: u64| Some(packed << 32 >> 32 | seed << 32);
        let done = self
            .packed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, flags);
        assert!(done.is_ok());
        self.references.store(seed as u32, Ordering::Relaxed);
        self.owner.store(!seed, Ordering::Relaxed);
        self.list.store(seed.rotate_left(17), Ordering::Relaxed);
    }
}

/// The model of these descriptors on a backend with the model `of`; as a constant, what does not fit
/// does not compile.
pub(crate) const fn model(of: &MemoryModel) -> MemoryModel {
    let config = *of.config();
    // Twice as many descriptors in a vmemmap page.
    let per_page = Order::new((config.granule.shift() - 5) as u8).unwrap();
    let subsection = match config.subsection.get() < per_page.get() {
        true => per_page,
        false => config.subsection,
    };
    // And compound pages twice as large for as many of them.
    let max_order = Order::new(config.max_order.get() + 1).unwrap();
    let config = ModelConfig {
        descriptor_bytes: size_of::<Slim>() as u64,
        subsection,
        max_order,
        ..config
    };
    match MemoryModel::new(config) {
        Ok(model) => model,
        Err(_) => panic!("a vmemmap of smaller descriptors fits where the larger ones do"),
    }
}
