//! How an altmap divides the ranges, and how large it has to be.
//!
//! ```text
//!   the first range   | reserved |    gap    | compound page | compound page | ...
//!                     |<---- base pages ---->|
//! ```

use super::pieces::aligned_part;
use super::{DevPagemap, Geometry, Heads, PagemapError, Tails};
use crate::addr::{Order, PfnRange, VirtAddr, VirtRange};
use crate::frame::{Altmap, AltmapRecord, COUNT_BYTES};

impl<'p> DevPagemap<'p> {
    /// Takes the frames that hold descriptors from `altmap` instead of RAM.
    ///
    /// The reserved part, at the start of the first range, is used in base pages. So is the gap
    /// between it and the next multiple of the compound size. Compound pages start there.
    ///
    /// # Errors
    ///
    /// [`PagemapError`] where the reserved part is not whole subsections at the start of the first
    /// range, or leaves that range without a compound page.
    pub fn with_altmap(self, altmap: &'p dyn Altmap) -> Result<Self, PagemapError> {
        self.check_reserved(altmap.reserved())?;
        Ok(Self {
            altmap: Some(altmap),
            ..self
        })
    }

    /// The start of the first range that is used in base pages because of the altmap; `None`
    /// without an altmap.
    pub fn base_pages(&self) -> Option<PfnRange> {
        let reserved = self.altmap?.reserved();
        let frames = self.align_up(reserved.frames())?;
        // From a multiple of the unit on, and at most the range, as `with_altmap` has checked.
        PfnRange::new(reserved.start(), frames).ok()
    }

    /// The frames between the reserved part and the first compound page. They are used in base
    /// pages.
    pub fn altmap_gap(&self) -> Option<PfnRange> {
        let reserved = self.altmap?.reserved();
        self.base_pages()?.split_at(reserved.frames()).1
    }

    /// What of `frames`, which lie within one range, is not used in base pages because of the altmap.
    pub(crate) fn in_compound_pages(&self, frames: PfnRange) -> Option<PfnRange> {
        match self.base_pages().filter(|base| base.overlaps(frames)) {
            Some(base) => {
                let in_base = base.last().get().saturating_sub(frames.start().get());
                frames.split_at(in_base.saturating_add(1)).1
            }
            None => Some(frames),
        }
    }

    /// The pages of packed heads that have none but those of compound pages of the range that `frames` are in. Their
    /// frames come from the altmap.
    pub(crate) fn heads_from_altmap(&self, frames: PfnRange) -> Option<VirtRange> {
        self.own_pages_of_heads(self.in_compound_pages(self.range_of(frames)?)?)
    }

    /// The pages of packed heads that have none but those of the compound pages of `frames`.
    fn own_pages_of_heads(&self, frames: PfnRange) -> Option<VirtRange> {
        let places = self.model.packed_heads(frames, self.geometry.order())?;
        let page = self.model.granule().bytes();
        let start = places.start().get().checked_next_multiple_of(page)?;
        // By the last byte, since there may be no address behind it.
        let end = places.last().get().wrapping_add(1) & !(page - 1);
        VirtRange::between(VirtAddr::new(start), VirtAddr::new(end.wrapping_sub(1)))
    }

    /// How much an altmap for this pagemap has to reserve: the fewest subsections at the start of
    /// the first range that hold all of its descriptor frames, and the counts of these as a
    /// [`DeviceAltmap`](crate::frame::DeviceAltmap) keeps them. It makes no difference whether the
    /// pagemap has an altmap already.
    ///
    /// # Errors
    ///
    /// [`PagemapError`] where so many subsections would leave the first range without a compound
    /// page, or where it does not have so many.
    pub fn altmap_needed(&self) -> Result<PfnRange, PagemapError> {
        let first = self.ranges().first().copied();
        let first = first.ok_or(PagemapError::NoRanges)?;
        let subsection = self.model.subsection().frames();
        let frames = self.altmap_subsections().saturating_mul(subsection);
        self.check_leaves_some(frames, first)?;
        match first.split_at(frames).0 {
            Some(reserved) => Ok(reserved),
            None => Err(PagemapError::NoRanges),
        }
    }

    /// How many subsections suffice for all descriptor frames and their counts.
    ///
    /// All units that are touched by the reserved subsections become base pages. With k such units
    /// out of u in total,
    ///
    /// ```text
    ///   needed(k) = k * (vmemmap pages of a unit) + (u - k) * (frames of a unit of compound pages)
    /// ```
    ///
    /// must fit into the subsections, with the counts of their frames: s subsections of S frames, in
    /// pages of P bytes, hold the record and the counts in ceil((64 + 4 s S) / P) frames, so that n
    /// frames are left for descriptors from
    ///
    /// ```text
    ///   s = ceil((P n + 64) / (S (P - 4)))
    /// ```
    ///
    /// on. With growing k, the frames that k units provide grow faster than the frames that are
    /// needed. So the first k that suffices has the fewest subsections.
    fn altmap_subsections(&self) -> u64 {
        let model = &self.model;
        let subsection = model.subsection().frames();
        let total: u64 = self.ranges.iter().map(|range| range.frames()).sum();
        let order = self.geometry.order();
        let unit = self.unit().frames();
        if self.heads().0 == Heads::Packed {
            return self.subsections_beside_packed_heads();
        }
        let own = match self.tails().0 {
            Tails::None => return self.subsections_for(total / model.descriptors_per_page()),
            Tails::PerCompound => 2,
            Tails::PerOrder => 1,
        };
        let as_base = unit / model.descriptors_per_page();
        let as_compound = (unit >> order.get()) * own;
        let all_compound = total / unit * as_compound;
        let more_per_unit = as_base.saturating_sub(as_compound);
        // As above, with a unit in place of a subsection: the smallest k so that
        // k unit (P - 4) >= P needed(k) + 64.
        let bytes = self.model.granule().bytes();
        let provided = unit.saturating_mul(bytes - COUNT_BYTES);
        let gained = provided.saturating_sub(more_per_unit.saturating_mul(bytes));
        let units = self.with_record(all_compound).div_ceil(gained.max(1));
        let needed = all_compound.saturating_add(units.saturating_mul(more_per_unit));
        let touched = (units - 1)
            .saturating_mul(unit / subsection)
            .saturating_add(1);
        touched.max(self.subsections_for(needed))
    }

    /// The same where heads are packed: stubs are in RAM, and the k units more as base pages leave fewer pages of
    /// heads, by one at most.
    fn subsections_beside_packed_heads(&self) -> u64 {
        let model = &self.model;
        let unit = self.unit().frames();
        let subsection = model.subsection().frames();
        let as_base = unit / model.descriptors_per_page();
        let pages = |frames: Option<PfnRange>| {
            let pages = frames.and_then(|frames| self.own_pages_of_heads(frames));
            pages.map_or(0, |pages| pages.pages(model.granule()))
        };
        let Some((first, others)) = self.ranges().split_first() else {
            return 0;
        };
        let of_others: u64 = others.iter().map(|range| pages(Some(*range))).sum();
        let needed = |units: u64| {
            let in_base = units.saturating_mul(unit);
            let of_base = units.saturating_mul(as_base);
            of_base + pages(first.split_at(in_base).1) + of_others
        };
        let handed_out = model.granule().bytes() - COUNT_BYTES;
        let suffices = |units: u64| {
            let provided = units.saturating_mul(unit).saturating_mul(handed_out);
            provided >= self.with_record(needed(units))
        };
        // The first that suffices, or all units.
        let (mut below, mut units) = (0, first.frames() / unit);
        while units - below > 1 {
            let middle = below + (units - below) / 2;
            match suffices(middle) {
                true => units = middle,
                false => below = middle,
            }
        }
        let touched = (units.saturating_sub(1))
            .saturating_mul(unit / subsection)
            .saturating_add(1);
        touched.max(self.subsections_for(needed(units)))
    }

    /// How many subsections have so many frames left beside their counts.
    fn subsections_for(&self, frames: u64) -> u64 {
        let handed_out = self.model.granule().bytes() - COUNT_BYTES;
        let subsection = self.model.subsection().frames();
        let all = self.with_record(frames);
        all.div_ceil(subsection.saturating_mul(handed_out))
    }

    /// The bytes of so many frames and the record; at least 1.
    const fn with_record(&self, frames: u64) -> u64 {
        let bytes = frames.saturating_mul(self.model.granule().bytes());
        bytes.saturating_add(AltmapRecord::BYTES)
    }

    /// Ranges are multiples of this.
    fn unit(&self) -> Order {
        self.geometry.order().max(self.model.subsection())
    }

    fn align_up(&self, frames: u64) -> Option<u64> {
        frames.checked_next_multiple_of(self.geometry.order().frames())
    }

    /// Checks that an altmap could reserve `reserved`.
    fn check_reserved(&self, reserved: PfnRange) -> Result<(), PagemapError> {
        let first = self.ranges().first().copied();
        let range = first.ok_or(PagemapError::NoRanges)?;
        let subsection = self.model.subsection();
        if !reserved.is_aligned(subsection) {
            return Err(PagemapError::Misaligned {
                range: reserved,
                order: subsection,
                aligned: aligned_part(reserved, subsection),
            });
        }
        if reserved.start() != range.start() || !range.contains_range(reserved) {
            return Err(PagemapError::AltmapElsewhere { reserved, range });
        }
        self.check_leaves_some(reserved.frames(), range)
    }

    /// Checks that `range` has room for an altmap of `reserved` frames, and a compound page behind
    /// it if there are any.
    fn check_leaves_some(&self, reserved: u64, range: PfnRange) -> Result<(), PagemapError> {
        let base_pages = self.align_up(reserved).unwrap_or(u64::MAX);
        if self.geometry != Geometry::BASE_PAGES {
            if base_pages >= range.frames() {
                return Err(PagemapError::NoCompoundPage { reserved, range });
            }
        } else if reserved > range.frames() {
            return Err(PagemapError::AltmapTooLarge { reserved, range });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::error::ErrorKind;
    use crate::pagemap::tests::{MODEL, frames, geometry};

    const GIB: u64 = 1 << 18;
    const SUBSECTION: u64 = 512;

    fn pagemap(ranges: &[PfnRange], bytes: u64, tails: Tails) -> DevPagemap<'_> {
        DevPagemap::new(&MODEL, ranges, geometry(bytes))
            .unwrap()
            .with_tails(tails)
    }

    /// How many frames hold descriptors, or counts, if `reserved` frames are an altmap.
    fn in_altmap(pagemap: &DevPagemap<'_>, reserved: u64) -> u64 {
        counted(pagemap, reserved) + (64 + 4 * reserved).div_ceil(4096)
    }

    /// How many frames hold descriptors if `reserved` frames are an altmap.
    fn counted(pagemap: &DevPagemap<'_>, reserved: u64) -> u64 {
        let order = pagemap.geometry().order().frames();
        let total: u64 = pagemap.ranges().iter().map(|range| range.frames()).sum();
        let own = match pagemap.tails().0 {
            Tails::None => return total / 64,
            Tails::PerCompound => 2,
            Tails::PerOrder => 1,
        };
        let base_pages = reserved.next_multiple_of(order);
        base_pages / 64 + (total - base_pages) / order * own
    }

    #[test]
    fn the_altmap_for_16_gib_is_of_33_17_9_and_129_subsections() {
        let ranges = [frames(24 * GIB, 16 * GIB)];
        let cases = [
            (2 << 20, Tails::PerCompound, 33, 16582, 17),
            (2 << 20, Tails::PerOrder, 17, 8311, 9),
            (1 << 30, Tails::PerCompound, 9, 4096 + 30, 5),
            (1 << 30, Tails::PerOrder, 9, 4096 + 15, 5),
            (4096, Tails::None, 129, 65536, 65),
            (1 << 30, Tails::None, 129, 65536, 65),
        ];
        for (bytes, tails, subsections, needed, counts) in cases {
            let pagemap = pagemap(&ranges, bytes, tails);
            let reserved = pagemap.altmap_needed().unwrap();
            assert_eq!(reserved, frames(24 * GIB, subsections * SUBSECTION));
            assert_eq!(counted(&pagemap, reserved.frames()), needed);
            assert_eq!(in_altmap(&pagemap, reserved.frames()), needed + counts);
        }
    }

    #[test]
    fn the_altmap_needed_suffices_and_one_subsection_less_does_not() {
        let first = [GIB, 2 * GIB, 3 * GIB];
        for first in first {
            for others in [0, GIB, 7 * GIB, 100 * GIB, 600 * GIB] {
                let both = [frames(0, first), frames(1024 * GIB, others.max(1 << 18))];
                let ranges = if others == 0 { &both[..1] } else { &both[..] };
                for bytes in [4096, 1 << 19, 1 << 20, 2 << 20, 64 << 20, 1 << 30] {
                    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
                        let pagemap = pagemap(ranges, bytes, tails);
                        let fits = |n: &u64| in_altmap(&pagemap, n * SUBSECTION) <= n * SUBSECTION;
                        let fewest = (1..=first / SUBSECTION).find(fits);
                        let found = pagemap.altmap_needed();
                        match found {
                            Ok(reserved) => {
                                assert_eq!(reserved.frames() / SUBSECTION, fewest.unwrap());
                            }
                            Err(error) => {
                                let order = pagemap.geometry().order().frames();
                                let left = fewest
                                    .filter(|n| (n * SUBSECTION).next_multiple_of(order) < first);
                                assert_eq!(left, None, "{error}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// The pages of packed heads that `compound` has to itself, by the numbers of all pages of `order`: as in a heap.
    fn own_pages_of_heads(compound: PfnRange, order: Order) -> u64 {
        let number = |frame: u64| ((1 << 34) + frame) >> order.get();
        let first = number(compound.start().get());
        let end = number(compound.last().get()) + 1;
        (end / 64).saturating_sub(first.div_ceil(64))
    }

    #[test]
    fn beside_packed_heads_the_altmap_needed_suffices_and_one_subsection_less_does_not() {
        let model = MODEL.with_heads(VirtAddr::new(0xffff_eb00_0000_0000));
        let model = model.unwrap();
        let tried = [1, 2, 3, 65, 200].map(|first| first * GIB);
        let mut found_some = 0;
        for first in tried {
            for (start, others) in [(0, 0), (3, 64), (17, 130), (64, 600)] {
                let first = PfnRange::new(Pfn::new(start * GIB).unwrap(), first).unwrap();
                let both = [first, frames(1024 * GIB, others.max(1) * GIB)];
                let ranges = if others == 0 { &both[..1] } else { &both[..] };
                for bytes in [1 << 18, 1 << 20, 2 << 20, 64 << 20, 1 << 30] {
                    let pagemap = DevPagemap::new(&model, ranges, geometry(bytes)).unwrap();
                    let pagemap = pagemap.with_heads(Heads::Packed);
                    let order = pagemap.geometry().order();
                    let needed = |reserved: u64| {
                        let base = reserved.next_multiple_of(order.frames());
                        let compound = first.split_at(base).1;
                        let rest = ranges[1..].iter().copied().chain(compound);
                        let heads = rest.map(|frames| own_pages_of_heads(frames, order));
                        base / 64 + heads.sum::<u64>() + (64 + 4 * reserved).div_ceil(4096)
                    };
                    let leaves_some = |n: &u64| {
                        (n * SUBSECTION).next_multiple_of(order.frames()) < first.frames()
                    };
                    let mut few = (1..first.frames() / SUBSECTION).take_while(leaves_some);
                    let fewest = few.find(|n| needed(n * SUBSECTION) <= n * SUBSECTION);
                    let found = pagemap.altmap_needed();
                    let found = found.ok().map(|reserved| reserved.frames() / SUBSECTION);
                    assert_eq!(found, fewest, "{first} and {others} GiB in {bytes:#x}");
                    found_some += u64::from(found.is_some());
                }
            }
        }
        assert!(found_some > 50);
    }

    #[test]
    fn the_altmap_for_64_tib_is_found_at_once() {
        let tib = 1024 * GIB;
        let ranges = [frames(0, 8 * tib), frames(8 * tib, 8 * tib)];
        let reserved = |bytes, tails| pagemap(&ranges, bytes, tails).altmap_needed();
        assert!(reserved(1 << 30, Tails::PerCompound).is_ok());
        assert!(reserved(4096, Tails::None).is_ok());
        assert!(reserved(2 << 20, Tails::PerOrder).is_ok());
    }

    #[test]
    fn an_altmap_that_leaves_nothing_is_refused() {
        let kind = |ranges: &[PfnRange], bytes| {
            let found = pagemap(ranges, bytes, Tails::PerCompound).altmap_needed();
            found.map_err(|error| error.kind())
        };
        assert_eq!(
            kind(&[frames(0, GIB)], 1 << 30),
            Err(ErrorKind::NoCompoundPage)
        );
        assert!(kind(&[frames(0, 2 * GIB)], 1 << 30).is_ok());
        assert_eq!(
            kind(&[frames(0, SUBSECTION)], 2 << 20),
            Err(ErrorKind::NoCompoundPage)
        );
        assert!(kind(&[frames(0, 2 * SUBSECTION)], 2 << 20).is_ok());
        // One subsection, less a frame of counts, can describe 63 of them.
        let ranges = [frames(0, SUBSECTION), frames(GIB, 62 * SUBSECTION)];
        assert!(pagemap(&ranges, 4096, Tails::None).altmap_needed().is_ok());
        let ranges = [frames(0, SUBSECTION), frames(GIB, 63 * SUBSECTION)];
        assert_eq!(kind(&ranges, 4096), Err(ErrorKind::OutOfRange));
        assert!(kind(&[frames(0, SUBSECTION)], 4096).is_ok());
    }

    #[test]
    fn only_whole_subsections_at_the_start_of_the_first_range_are_reserved() {
        let ranges = [frames(4 * GIB, 4 * GIB), frames(0, 4 * GIB)];
        let pagemap = pagemap(&ranges, 1 << 30, Tails::PerCompound);
        let kind = |start, count| {
            let checked = pagemap.check_reserved(frames(start, count));
            checked.map_err(|error| error.kind())
        };
        assert_eq!(kind(4 * GIB, SUBSECTION), Ok(()));
        assert_eq!(kind(4 * GIB, 3 * GIB), Ok(()));
        assert_eq!(
            kind(4 * GIB, 3 * GIB + SUBSECTION),
            Err(ErrorKind::NoCompoundPage)
        );
        assert_eq!(kind(4 * GIB, 5 * GIB), Err(ErrorKind::OutOfRange));
        assert_eq!(kind(0, SUBSECTION), Err(ErrorKind::OutOfRange));
        assert_eq!(kind(5 * GIB, SUBSECTION), Err(ErrorKind::OutOfRange));
        assert_eq!(kind(4 * GIB, 511), Err(ErrorKind::Misaligned));
        assert_eq!(kind(Pfn::MAX.get() - 510, 511), Err(ErrorKind::Misaligned));
    }
}
