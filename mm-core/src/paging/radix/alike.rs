//! Leaf tables whose first entries tell of all others.
//!
//! ```text
//!   Equal    H T T T T T T T   T T T T T T T T  ...   equal behind the first
//!   Run      A B C D E F G H   I J K L M N O P  ...   the next frame in each
//!   Groups   H T T T T T T T   I U U U U U U U  ...   a group in each line
//! ```
//!
//! Who has compared all of a table says in its link that the first entries tell ([`EntryFormat::ALIKE`]), and who
//! finds that reads these alone.

use super::entries::{GroupEntries, next_leaves};
use super::lines::LINE;
use crate::paging::{EntryFormat, EntryLines};

/// As what the first entries of a table begin.
#[derive(Clone, Copy)]
pub(super) enum Alike {
    /// Equal entries, behind the first one.
    Equal,
    /// A run of frames that follow each other, from this entry on.
    Run(u64),
    /// Groups, each a line.
    Groups(GroupEntries),
}

impl Alike {
    /// As what a table begins that has these entries, by their index. Status bits do not count.
    #[inline]
    pub(super) fn begun_by<F: EntryFormat>(entry: impl Fn(usize) -> Option<u64>) -> Option<Self> {
        let entry = |index| entry(index).map(|entry| entry & !F::STATUS_BITS);
        let (head, tail) = (entry(0)?, entry(1)?);
        if entry(2)? != tail {
            let follows = |before: u64, entry| before.wrapping_add(F::FRAME_STEP) == entry;
            return match follows(head, tail) && follows(tail, entry(2)?) {
                true => Some(Self::Run(head)),
                false => None,
            };
        }
        let (next_head, next_tail) = (entry(LINE)?, entry(LINE + 1)?);
        if next_head == tail {
            return Some(Self::Equal);
        }
        let groups = GroupEntries {
            head,
            tail,
            head_step: next_head.wrapping_sub(head),
            tail_step: next_tail.wrapping_sub(tail),
        };
        groups.frames_each::<F>().map(|_| Self::Groups(groups))
    }

    /// All of a table that begins so, line by line; nothing where [all bits that entries
    /// have](EntryFormat::seen_bits) tell as much.
    #[inline]
    pub(super) fn lines<F: EntryFormat>(self) -> Option<EntryLines> {
        let (first, steps) = match self {
            Self::Equal => return None,
            Self::Run(first) => next_leaves::<F>(first),
            Self::Groups(groups) => groups.line(),
        };
        Some(EntryLines {
            first,
            steps,
            hidden: F::STATUS_BITS,
        })
    }
}
