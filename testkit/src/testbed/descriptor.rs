//! What the bed needs of a descriptor.

use mm_core::addr::VirtAddr;
use mm_core::descriptor::{Mask, Page, Pointer, Reshape, TailEncoding};
use std::sync::atomic::Ordering;

/// A descriptor, read from bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenDescriptor {
    /// The order of the page that it is part of.
    pub order: u8,
    /// Whether it is a tail.
    pub tail: bool,
    /// The address of its head's descriptor.
    pub head: VirtAddr,
}

/// A descriptor that tests can store to, and that can be read without its own code.
pub trait TestDescriptor: Reshape + 'static {
    /// Reads the bytes of one, which lies at `at` in the vmemmap, by what its documentation says.
    fn read(at: VirtAddr, bytes: &[u8]) -> SeenDescriptor;

    /// What a kernel keeps in it: all fields but the word and the order.
    fn state(&self) -> [u64; 4];

    /// Keeps something in each of them that follows from `seed`.
    fn set_state(&self, seed: u64);
}

/// How a tail's word names its head, read by hand.
pub(super) trait ReadWord: TailEncoding {
    fn head(at: u64, word: u64) -> u64;
}

impl ReadWord for Mask {
    fn head(at: u64, word: u64) -> u64 {
        at - at % (word - word % 2).wrapping_neg()
    }
}

impl ReadWord for Pointer {
    fn head(at: u64, word: u64) -> u64 {
        match word % 2 {
            0 => at,
            _ => word - 1,
        }
    }
}

/// Offsets of a [`Page`]'s fields.
const WORD: usize = 8;
const ORDER: usize = 24;

impl<E: ReadWord> TestDescriptor for Page<E> {
    fn read(at: VirtAddr, bytes: &[u8]) -> SeenDescriptor {
        let word = bytes[WORD..WORD + 8].try_into().unwrap();
        let word = u64::from_le_bytes(word);
        SeenDescriptor {
            order: bytes[ORDER],
            tail: word % 2 == 1,
            head: VirtAddr::new(E::head(at.get(), word)),
        }
    }

    fn state(&self) -> [u64; 4] {
        [
            self.flags().load(Ordering::Relaxed),
            self.references().get().unwrap_or(u32::MAX).into(),
            self.mappings().load(Ordering::Relaxed).into(),
            self.private()[3].load(Ordering::Relaxed),
        ]
    }

    fn set_state(&self, seed: u64) {
        self.flags().store(seed, Ordering::Relaxed);
        // SAFETY: 1 and 2: nobody but the test counts references, so whatever it says is so.
        unsafe { self.references().unfreeze(seed as u32 >> 1) };
        self.mappings().store(!seed as u32, Ordering::Relaxed);
        self.private()[3].store(!seed, Ordering::Relaxed);
    }
}
