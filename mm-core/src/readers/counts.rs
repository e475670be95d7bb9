//! Descriptors that count the references to their pages.

use super::protocol::Put;
use crate::descriptor::Descriptor;

/// A descriptor that counts references to its page, in the head, in a way that lets the library
/// freeze the page: no reference is taken, and nobody stores to any of its fields.
///
/// [`Page`](crate::descriptor::Page) is one. A kernel's own descriptor has a
/// [`ReferenceCount`](super::ReferenceCount), and forwards these methods and
/// [`Descriptor::is_frozen`] to it:
///
/// ```
/// use mm_core::addr::Order;
/// use mm_core::descriptor::{Descriptor, Initial, Mask, Part};
/// use mm_core::readers::{CountReferences, Put, ReferenceCount};
/// # use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
///
/// struct Frame {
///     word: AtomicU64,
///     order: AtomicU32,
///     users: ReferenceCount,
/// }
/// # // SAFETY: 1 to 4: atomics, as given.
/// # unsafe impl Descriptor for Frame {
/// #     type Encoding = Mask;
/// #     fn initial(initial: Initial) -> Self {
/// #         let users = matches!(initial.part, Part::Base | Part::Head).into();
/// #         Self {
/// #             word: AtomicU64::new(initial.word),
/// #             order: AtomicU32::new(initial.order.get().into()),
/// #             users: ReferenceCount::new(users),
/// #         }
/// #     }
/// #     fn word(&self) -> u64 { self.word.load(Relaxed) }
/// #     fn order(&self) -> Order { Order::new(self.order.load(Relaxed) as u8).unwrap_or(Order::BASE) }
/// #     fn is_frozen(&self) -> bool { self.users.is_frozen() }
/// # }
///
/// // SAFETY: 1 to 5: those of `ReferenceCount`; a tail is made with a count of 0.
/// unsafe impl CountReferences for Frame {
///     fn try_get(&self) -> bool {
///         self.users.try_get()
///     }
///
///     unsafe fn put(&self) -> Put {
///         // SAFETY: 1: the caller's.
///         unsafe { self.users.put() }
///     }
///
///     fn try_freeze(&self, expected: u32) -> bool {
///         self.users.try_freeze(expected)
///     }
///
///     unsafe fn unfreeze(&self, references: u32) {
///         // SAFETY: 1 and 2: the caller's.
///         unsafe { self.users.unfreeze(references) }
///     }
/// }
/// ```
///
/// A kernel whose free pages have a sentinel instead of 0 implements the methods by itself: they refuse
/// what is a sentinel, and `expected` may mean it.
///
/// # Safety
///
/// 1. `try_get` refuses a descriptor of a tail, of a page without an owner and of a frozen one after a
///    load, without a store or a compare-and-exchange: the memory may be read-only.
/// 2. From a `try_freeze` that says true to the next `unfreeze`, `try_get` and `try_freeze` say false.
///    `try_freeze` says true only if there are `expected` references.
/// 3. A `try_get` that says true sees what was done before the last `unfreeze`. A `put` that says
///    `Last`, and a `try_freeze` that says true, see what was done before each `put` so far.
/// 4. `put` says `Last` if and only if no reference is left.
/// 5. [`Descriptor::is_frozen`] says true from a `try_freeze` that says true to the next `unfreeze`. Whoever
///    it says false to sees what was done before that `unfreeze`.
pub unsafe trait CountReferences: Descriptor {
    /// Takes a reference to the page, if it has an owner and is not frozen. Says whether it did.
    fn try_get(&self) -> bool;

    /// Gives a reference back.
    ///
    /// # Safety
    ///
    /// 1. The caller has a reference, and does not use it any more. So the page is not frozen.
    unsafe fn put(&self) -> Put;

    /// Freezes the page if it has `expected` references, all of them the caller's. Says whether it
    /// did.
    fn try_freeze(&self, expected: u32) -> bool;

    /// Ends that: the page has `references`.
    ///
    /// # Safety
    ///
    /// 1. The caller has frozen it.
    /// 2. The page has an owner of so many references, or none if there are none.
    unsafe fn unfreeze(&self, references: u32);
}
