//! The frames of the online map, found on the way over what is mapped.
//!
//! The root of the map has an entry for each span of the model, whether anything of that is online or not. So
//! it is not walked: memory that readers can find, or are about to, is mapped.

use super::Finding;
use crate::addr::{Pfn, PfnRange};
use crate::readers::OnlineMap;

/// The frames of bits of all memory that was walked over so far, in the order of frames.
pub(super) struct BitsSeen<'r> {
    map: Option<OnlineMap<'r>>,
    /// The first frame whose span was not looked at; `None` behind the last one.
    next: Option<Pfn>,
    wrong: Option<Finding>,
}

impl<'r> BitsSeen<'r> {
    pub(super) const fn new(map: Option<OnlineMap<'r>>) -> Self {
        Self {
            map,
            next: Some(Pfn::ZERO),
            wrong: None,
        }
    }

    /// Whether `frames` reach into a span that was not looked at.
    #[inline]
    pub(super) fn may_have_more(&self, frames: PfnRange) -> bool {
        self.map.is_some() && self.next.is_some_and(|next| frames.last() >= next)
    }

    /// The next frame of bits of the spans of `frames` that were not looked at.
    pub(super) fn next_of(&mut self, frames: PfnRange) -> Option<Pfn> {
        let map = self.map?;
        loop {
            let next = self.next.filter(|next| frames.last() >= *next)?;
            let first = frames.start().max(next);
            self.next = map.span_after(first);
            if let Some(bits) = map.bits_of(first) {
                return Some(bits);
            }
        }
    }

    /// Remembers what is wrong with a frame, if it is the first one.
    pub(super) fn keep(&mut self, compared: Result<(), Finding>) {
        if let Err(finding) = compared {
            self.wrong.get_or_insert(finding);
        }
    }

    /// What was wrong.
    pub(super) fn compared(&mut self) -> Result<(), Finding> {
        match self.wrong.take() {
            Some(finding) => Err(finding),
            None => Ok(()),
        }
    }
}
