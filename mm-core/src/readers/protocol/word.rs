//! Atomic words: the processor's, or a model checker's.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What the protocol needs of an atomic integer.
pub trait Word {
    /// The integer.
    type Value: Copy;

    /// Loads it.
    fn load(&self, order: Ordering) -> Self::Value;

    /// Stores `value`.
    fn store(&self, value: Self::Value, order: Ordering);

    /// Stores `new` if it is `current`, and says what it was.
    fn compare_exchange(
        &self,
        current: Self::Value,
        new: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value>;

    /// Subtracts `value`, and says what it was.
    fn fetch_sub(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Sets the bits of `value`, and says what it was.
    fn fetch_or(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Keeps the bits of `value`, and says what it was.
    fn fetch_and(&self, value: Self::Value, order: Ordering) -> Self::Value;
}

// Inlined into the kernel: the ordering is a constant there, and a question is a load and no call.
macro_rules! word {
    ($atomic:ty, $value:ty) => {
        impl Word for $atomic {
            type Value = $value;

            #[inline]
            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }

            #[inline]
            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }

            #[inline]
            fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            #[inline]
            fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.fetch_sub(value, order)
            }

            #[inline]
            fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.fetch_or(value, order)
            }

            #[inline]
            fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.fetch_and(value, order)
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
