//! What [`Vmemmap::pages`](mm_core::vmemmap::Vmemmap::pages) has to list. Plain arithmetic, which knows no code of
//! the library's.

use mm_core::addr::PfnRange;
use mm_core::pagemap::{Heads, Tables, Tails};
use mm_core::vmemmap::ListedPage;

/// The most pages that are compared in one go: each takes a walk.
const MOST: usize = 256;

/// What a vmemmap page that is the library's is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// It describes pages of this order.
    pub(crate) order: u8,
    /// What the tails in it share: none if it is a frame of its own.
    pub(crate) tails: Tails,
    /// What the table in which it is mapped shares.
    pub(crate) tables: Tables,
    /// Whether it has stubs: heads are packed.
    pub(crate) packed: bool,
}

/// The pages that there are.
pub(crate) struct Listed<F> {
    /// How many frames a vmemmap page describes.
    pub(crate) per_page: u64,
    /// By vmemmap page, what is there; nothing where it describes what an altmap reserves.
    pub(crate) part_at: F,
}

impl<F: Fn(u64) -> Option<Part>> Listed<F> {
    /// Compares the first pages of `frames` with those that were `listed` for these.
    pub(crate) fn compare(
        &self,
        frames: PfnRange,
        mut listed: impl Iterator<Item = ListedPage>,
    ) -> Result<(), String> {
        let (mut frame, last) = (frames.start().get(), frames.last().get());
        for _ in 0..MOST {
            let (expected, next) = self.next(frame, last + 1);
            let found = listed.next();
            let is_right = match (expected, found) {
                (None, None) => return Ok(()),
                (Some((first, order)), Some(page)) => {
                    (page.first.get(), page.order.get()) == (first, order) && self.is_of(&page)
                }
                _ => false,
            };
            if !is_right {
                return Err(format!(
                    "from frame {frame:#x} on, {found:?} is listed, expected {expected:x?}"
                ));
            }
            frame = next;
        }
        Ok(())
    }

    /// The first frame and the order of the page of which something is there from `frame` on, before `end`; and
    /// the frame behind it.
    fn next(&self, frame: u64, end: u64) -> (Option<(u64, u8)>, u64) {
        let mut frame = frame;
        while frame < end {
            let page = frame / self.per_page;
            if let Some(part) = (self.part_at)(page) {
                let frames = 1 << part.order;
                let first = frame - frame % frames;
                return (Some((first, part.order)), first + frames);
            }
            frame = (page + 1) * self.per_page;
        }
        (None, end)
    }

    /// Whether tails and tables of `page` are shared as is said. Where they are in more than one way, any of them
    /// is right.
    fn is_of(&self, page: &ListedPage) -> bool {
        let first = page.first.get() / self.per_page;
        let parts = first..first + (page.order.frames() / self.per_page).max(1);
        let (mut tails, mut tables) = (Vec::new(), Tables::Private);
        let mut heads = Vec::new();
        for part in parts.filter_map(&self.part_at) {
            heads.push(match part.packed {
                true => Heads::Packed,
                false => Heads::InPlace,
            });
            if part.tails != Tails::None && tails.last() != Some(&part.tails) {
                tails.push(part.tails);
            }
            if part.tables == Tables::Shared {
                tables = Tables::Shared;
            }
        }
        let has_tails = match tails.is_empty() {
            true => page.tails == Tails::None,
            false => tails.contains(&page.tails),
        };
        heads.contains(&page.heads) && has_tails && page.tables == tables
    }
}
