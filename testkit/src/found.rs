//! What readers find: which pages are online as a whole, kept up to date by plain rules.

use std::ops::Range;

/// What readers find in a window.
#[derive(Debug)]
pub(crate) struct Found {
    /// The window, in vmemmap pages. Pages of memory are aligned to their size by these numbers.
    window: Range<u64>,
    /// By vmemmap page, the order of the pages whose descriptors are there, if they are found.
    orders: Vec<Option<u8>>,
    online: u64,
    /// What may have changed since [`refresh`](Self::refresh).
    changed: Range<u64>,
}

impl Found {
    /// In a window of these vmemmap pages.
    pub(crate) fn new(window: Range<u64>) -> Self {
        Self {
            orders: vec![None; (window.end - window.start) as usize],
            window,
            online: 0,
            changed: 0..0,
        }
    }

    /// Something has changed in the `unit` pages around `page`, which describe one compound page.
    pub(crate) fn change(&mut self, page: u64, unit: u64) {
        let first = page - page % unit;
        let around = first.max(self.window.start)..(first + unit).min(self.window.end);
        self.changed = match self.changed.is_empty() {
            true => around,
            false => self.changed.start.min(around.start)..self.changed.end.max(around.end),
        };
    }

    /// Looks at what may have changed. A page is found if all of it is online, as pages of its order.
    /// `order_at` says the order of the pages that a vmemmap page describes, if any is online there.
    pub(crate) fn refresh(
        &mut self,
        order_at: impl Fn(u64) -> Option<u8>,
        pages_of: impl Fn(u8) -> u64,
    ) {
        let changed = std::mem::take(&mut self.changed);
        let window = self.window.clone();
        let order_in = |page: u64| order_at(page).filter(|_| window.contains(&page));
        let mut page = changed.start;
        while page < changed.end {
            let order = order_in(page);
            let unit = order.map_or(1, &pages_of);
            let is_whole = |order| (page..page + unit).all(|page| order_in(page) == Some(order));
            let order = order.filter(|order| page.is_multiple_of(unit) && is_whole(*order));
            let next = page + order.map_or(1, &pages_of);
            let [first, end] = [page, next].map(|page| (page - window.start) as usize);
            for known in self.orders.get_mut(first..end).into_iter().flatten() {
                self.online += u64::from(order.is_some());
                self.online -= u64::from(known.is_some());
                *known = order;
            }
            page = next;
        }
    }

    /// The order of the page that is found where `page` describes its frames.
    pub(crate) fn order_at(&self, page: u64) -> Option<u8> {
        let index = page.checked_sub(self.window.start)?;
        self.orders
            .get(usize::try_from(index).ok()?)
            .copied()
            .flatten()
    }

    /// Frames of bits that the online map has. All of the window is in one entry's span, and is not
    /// all of that.
    pub(crate) fn map_frames(&self) -> u64 {
        u64::from(self.online > 0)
    }
}
