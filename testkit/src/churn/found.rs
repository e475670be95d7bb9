//! What readers find: which pages are online as a whole, kept up to date by plain rules.

use super::model::Cell;
use std::ops::Range;

/// What readers find in the window.
#[derive(Debug)]
pub(super) struct Found {
    /// By vmemmap page, the order of the pages whose descriptors are there, if they are found.
    orders: Vec<Option<u8>>,
    online: u64,
    /// What may have changed since [`refresh`](Self::refresh).
    changed: Range<u64>,
}

impl Found {
    /// In a window of so many vmemmap pages.
    pub(super) fn new(pages: u64) -> Self {
        Self {
            orders: vec![None; pages as usize],
            online: 0,
            changed: 0..0,
        }
    }

    /// Something has changed in the `unit` pages around `page`, which describe one compound page.
    pub(super) fn change(&mut self, page: u64, unit: u64) {
        let first = page - page % unit;
        self.changed = match self.changed.is_empty() {
            true => first..first + unit,
            false => self.changed.start.min(first)..self.changed.end.max(first + unit),
        };
    }

    /// Looks at what may have changed. A page is found if all of it is online, as pages of its order.
    pub(super) fn refresh(&mut self, cells: &[Cell], pages_of: impl Fn(u8) -> u64) {
        let changed = std::mem::take(&mut self.changed);
        let order_at = |page: u64| cells.get(page as usize).and_then(|cell| cell.order());
        let mut page = changed.start;
        while page < changed.end {
            let order = order_at(page);
            let unit = order.map_or(1, &pages_of);
            let is_whole = |order| (page..page + unit).all(|page| order_at(page) == Some(order));
            let order = order.filter(|order| page.is_multiple_of(unit) && is_whole(*order));
            let next = page + order.map_or(1, &pages_of);
            let of_pages = self.orders.get_mut(page as usize..next as usize);
            for known in of_pages.into_iter().flatten() {
                self.online += u64::from(order.is_some());
                self.online -= u64::from(known.is_some());
                *known = order;
            }
            page = next;
        }
    }

    /// The order of the page that is found where `page` describes its frames.
    pub(super) fn order_at(&self, page: u64) -> Option<u8> {
        self.orders.get(page as usize).copied().flatten()
    }

    /// Frames of bits that the online map has. All of the window is in one entry's span, and is not
    /// all of that.
    pub(super) fn map_frames(&self) -> u64 {
        u64::from(self.online > 0)
    }
}
