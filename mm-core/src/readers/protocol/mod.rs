//! Where readers and the writer meet: each atomic operation between them, with its ordering, and the
//! way to a reference.
//!
//! ```text
//!   a reader                                     the writer
//!   enter                                        withdraw the bits         (offline)
//!   is the frame's bit set?        ◀──────────   freeze every count
//!   which head does it name?                     wait for a grace period
//!   take a reference of that head  ──refused──   exchange or clear entries, flush
//!   which head does it name now?   ◀──────────   unfreeze, or publish the bits
//!   the same: it is had. Else give it back, and look again
//!   leave
//! ```
//!
//! Why each step is needed:
//!
//! - *The wait after freezing.* A reader may have loaded a count before it was frozen, and be about to
//!   exchange it. The exchange would fail, but it is a store to the processor: it faults on a page
//!   that has become read-only.
//! - *Looking again.* Between the first look and the reference, the head may have become that of a
//!   smaller page, which the frame is not part of. While the reference is held, no page that has this
//!   head can be frozen, so what is seen then stays.
//! - *Acquire on taking a reference, release on unfreezing.* Whoever takes a reference sees the
//!   translations that were flushed before the page was unfrozen.
//!
//! Nothing else in the library orders readers and the writer, so a model checker runs through this
//! module alone, with each ordering and each step left out once: `testkit/tests/suite/readers/model_check`.

mod bits;
pub(super) mod count;
pub(super) mod word;

pub(super) use bits::{clear, is_set, latest, link, set, state, update};
pub use count::{Put, ReferenceCount};

use core::fmt;

/// What a reader sees of one frame. All of it is read anew at each call.
pub(super) trait Sight {
    /// What names a head.
    type Head: Copy + PartialEq;

    /// Whether the frame is online.
    fn is_online(&self) -> bool;

    /// The head that the frame's descriptor names.
    fn head(&self) -> Self::Head;

    /// Takes a reference to the page of `head`, if it has an owner and is not frozen.
    fn try_get(&self, head: Self::Head) -> bool;

    /// Gives a reference back that `try_get` took.
    fn put(&self, head: Self::Head);
}

/// Why there is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReference {
    /// The frame is not online.
    NotOnline,
    /// Its page has no owner, or is frozen: it goes offline or changes its order.
    Refused,
}

impl fmt::Display for NoReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOnline => "the frame is not online",
            Self::Refused => {
                "the frame's page is free, or about to go offline or to change; try again later, if at all"
            }
        })
    }
}

impl core::error::Error for NoReference {}

/// A reference to the page of a frame. The caller is within a guard of the grace period.
pub(super) fn get<S: Sight>(sight: &S) -> Result<S::Head, NoReference> {
    if !sight.is_online() {
        return Err(NoReference::NotOnline);
    }
    let mut head = sight.head();
    loop {
        let is_had = sight.try_get(head);
        let now = sight.head();
        match (is_had, now == head) {
            (true, true) => return Ok(head),
            (false, true) => return Err(NoReference::Refused),
            (true, false) => sight.put(head),
            (false, false) => {}
        }
        head = now;
    }
}
