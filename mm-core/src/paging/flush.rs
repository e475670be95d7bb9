//! What CPUs have to drop from their caches of translations.

use crate::addr::{VirtAddr, VirtRange};

/// An obligation to flush: entries were changed, and CPUs may still translate by the old ones.
///
/// Frames that the old entries pointed at, tables included, may not be freed before the obligation
/// is met. Ranges that touch are joined. When there are too many, everything has to be flushed. All
/// translations are of kernel addresses and may be global. Where a table was detached, cached
/// entries on the path to it must be flushed too, for all addresses below it.
#[must_use = "translations stay cached until the flush; give this to `PageTable::flush`"]
#[derive(Debug)]
pub struct Flush {
    /// As many as are used.
    ranges: [VirtRange; Self::RANGES],
    used: usize,
    everything: bool,
    /// Whether it is about links to tables, too.
    links: bool,
    /// From the first address below a detached table to the last.
    detached: Option<VirtRange>,
}

/// Which addresses a [`Flush`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope<'f> {
    /// Nothing was changed.
    Nothing,
    /// Leaves in these ranges, and no link to a table was made, changed or taken away: at least one range, and at most
    /// [`Flush::RANGES`]. What CPUs have cached of the entries on the way to the leaves may stay.
    Leaves(&'f [VirtRange]),
    /// Leaves in these ranges, and links to tables on the way to some of them: at least one range, and at most
    /// [`Flush::RANGES`].
    Ranges(&'f [VirtRange]),
    /// Every kernel address.
    Everything,
}

impl<'f> FlushScope<'f> {
    /// The ranges, if the scope is of some.
    pub const fn ranges(self) -> Option<&'f [VirtRange]> {
        match self {
            Self::Leaves(ranges) | Self::Ranges(ranges) => Some(ranges),
            Self::Nothing | Self::Everything => None,
        }
    }
}

impl Default for Flush {
    fn default() -> Self {
        Self::nothing()
    }
}

impl Flush {
    /// How many separate ranges are kept before the obligation becomes "everything".
    pub const RANGES: usize = 8;

    /// No obligation yet.
    pub const fn nothing() -> Self {
        Self {
            ranges: [VirtRange::single(VirtAddr::new(0)); Self::RANGES],
            used: 0,
            everything: false,
            links: false,
            detached: None,
        }
    }

    /// Adds the addresses of `range`.
    pub fn add(&mut self, range: VirtRange) {
        if self.everything {
            return;
        }
        for known in self.ranges.iter_mut().take(self.used) {
            if let Some(joined) = join(*known, range) {
                *known = joined;
                return;
            }
        }
        match self.ranges.get_mut(self.used) {
            Some(slot) => {
                *slot = range;
                self.used += 1;
            }
            None => self.everything = true,
        }
    }

    /// Adds the addresses of `range`, below a table that was detached: its frame is freed when the
    /// obligation is met.
    pub fn add_detached(&mut self, range: VirtRange) {
        self.add(range);
        self.links = true;
        self.detached = match self.detached {
            None => Some(range),
            Some(all) => {
                VirtRange::between(all.start().min(range.start()), all.last().max(range.last()))
            }
        };
    }

    /// Links to tables were changed, besides leaves, in ranges that were added or will be.
    pub(super) fn note_links(&mut self) {
        self.links = true;
    }

    /// From the first address below a detached table to the last, if there is one. There CPUs have
    /// to drop the entries on the path to it, too, and the page table frees the table afterwards.
    /// Of several tables, other addresses may lie in between.
    pub const fn detached(&self) -> Option<VirtRange> {
        self.detached
    }

    /// What has to be flushed.
    pub fn scope(&self) -> FlushScope<'_> {
        if self.everything {
            return FlushScope::Everything;
        }
        match self.ranges.get(..self.used) {
            None | Some([]) => FlushScope::Nothing,
            Some(ranges) if !self.links => FlushScope::Leaves(ranges),
            Some(ranges) => FlushScope::Ranges(ranges),
        }
    }
}

/// One range for both, where they overlap or touch.
fn join(a: VirtRange, b: VirtRange) -> Option<VirtRange> {
    let touches = |low: VirtRange, high: VirtRange| {
        low.last()
            .checked_add(1)
            .is_none_or(|next| high.start() <= next)
    };
    let (low, high) = if a.start() <= b.start() {
        (a, b)
    } else {
        (b, a)
    };
    if touches(low, high) {
        VirtRange::between(low.start(), low.last().max(high.last()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::VirtAddr;

    fn range(start: u64, bytes: u64) -> VirtRange {
        VirtRange::new(VirtAddr::new(start), bytes).unwrap()
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let mut flush = Flush::nothing();
        flush.add(range(0x1000, 0x1000));
        flush.add(range(0x2000, 0x1000));
        flush.add(range(0x0, 0x1000));
        assert_eq!(flush.scope(), FlushScope::Leaves(&[range(0x0, 0x3000)]));
    }

    #[test]
    fn a_range_at_the_top_of_the_address_space_is_kept() {
        let mut flush = Flush::nothing();
        flush.add(range(0xffff_ffff_ffff_f000, 0x1000));
        flush.add(range(0x1000, 0x1000));
        assert_eq!(
            flush.scope(),
            FlushScope::Leaves(&[range(0xffff_ffff_ffff_f000, 0x1000), range(0x1000, 0x1000)])
        );
    }

    #[test]
    fn a_detached_table_takes_more_than_leaves_wherever_it_is() {
        let mut flush = Flush::nothing();
        flush.add_detached(range(0x20_0000, 0x20_0000));
        flush.add(range(0x1000, 0x1000));
        let ranges = [range(0x20_0000, 0x20_0000), range(0x1000, 0x1000)];
        assert_eq!(flush.scope(), FlushScope::Ranges(&ranges));
        assert_eq!(flush.detached(), Some(ranges[0]));
    }

    #[test]
    fn too_many_ranges_mean_everything() {
        let mut flush = Flush::nothing();
        for index in 0..=Flush::RANGES as u64 {
            assert_ne!(flush.scope(), FlushScope::Everything);
            flush.add(range(index * 0x10_0000, 0x1000));
        }
        assert_eq!(flush.scope(), FlushScope::Everything);
    }

    #[test]
    fn nothing_changed_is_nothing_to_flush() {
        assert_eq!(Flush::nothing().scope(), FlushScope::Nothing);
    }
}
