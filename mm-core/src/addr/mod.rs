//! Addresses, page frame numbers, orders and the ranges of them.
//!
//! Every quantity has a type of its own, so that bytes are never taken for frames or physical
//! addresses for virtual ones. The types hold their invariants: a [`Pfn`] always has a physical
//! address on every granule, a range is never empty and never runs past the end of its space. What
//! could leave the space is checked and answered with `None` or an error. Addresses and frame
//! numbers are hexadecimal wherever they are printed, by `{:?}` too.

mod granule;
mod phys;
mod virt;

pub use granule::{Granule, Order};
pub use phys::{Block, Frames, Pfn, PfnRange, PhysAddr};
pub use virt::{VirtAddr, VirtRange};

use core::fmt;

/// Why a range cannot exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// The range has no length.
    Empty,
    /// The range ends beyond the last address, or the last frame number, that can be written.
    Overflow,
    /// A start or a length in bytes is not a whole number of pages.
    Misaligned {
        /// The bytes that both must be a multiple of.
        align: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the range is empty; give it a size above zero"),
            Self::Overflow => {
                f.write_str("the range ends beyond the address space; make it smaller")
            }
            Self::Misaligned { align } => {
                write!(
                    f,
                    "start and size must be multiples of the page size, {align:#x} bytes"
                )
            }
        }
    }
}

impl core::error::Error for RangeError {}

/// The NUMA node that memory belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The node with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The node's number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;
    use std::vec::Vec;

    #[test]
    fn a_range_without_another_is_all_frames_of_the_one_that_are_none_of_the_other() {
        let all: Vec<PfnRange> = (0..6)
            .flat_map(|start| (1..=6).map(move |frames| (start, frames)))
            .map(|(start, frames)| PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap())
            .collect();
        let last = PfnRange::single(Pfn::MAX);
        for range in all.iter().copied().chain([last]) {
            for other in all.iter().copied().chain([last]) {
                let (below, above) = range.without(other);
                let left = below.into_iter().chain(above).flatten();
                let expected = range.into_iter().filter(|frame| !other.contains(*frame));
                assert!(left.eq(expected), "{range} without {other}");
                // In order: what is before, and what is behind.
                assert!(below.is_none_or(|below| below.last() < other.start()));
                assert!(above.is_none_or(|above| above.start() > other.last()));
            }
        }
    }

    #[test]
    fn addresses_and_frames_are_hexadecimal_for_debugging_too() {
        let base = VirtAddr::new(0xffff_ea00_0000_0000);
        let frame = Pfn::new(0x1200).unwrap();
        assert_eq!(format!("{base:?}"), "VirtAddr(0xffffea0000000000)");
        assert_eq!(format!("{:?}", PhysAddr::new(4096)), "PhysAddr(0x1000)");
        assert_eq!(format!("{frame:?}"), "Pfn(0x1200)");
        assert_eq!(format!("{:?}", Some(Pfn::ZERO)), "Some(Pfn(0x0))");
    }

    #[test]
    fn ranges_and_blocks_are_hexadecimal_for_debugging_too() {
        let frame = Pfn::new(0x1200).unwrap();
        let frames = PfnRange::new(frame, 256).unwrap();
        assert_eq!(format!("{frames:?}"), "PfnRange(0x1200..=0x12ff)");
        let bytes = VirtRange::new(VirtAddr::new(0x1000), 8192).unwrap();
        assert_eq!(format!("{bytes:?}"), "VirtRange(0x1000..=0x2fff)");
        let block = Block::new(frame, Order::new(9).unwrap()).unwrap();
        assert_eq!(
            format!("{block:?}"),
            "Block { first: Pfn(0x1200), order: Order(9) }"
        );
    }

    #[test]
    fn a_range_yields_each_of_its_frames_from_either_end() {
        for (start, frames) in [(0, 1), (0x1200, 3), (Pfn::MAX.get() - 1, 2)] {
            let first = Pfn::new(start).unwrap();
            let range = PfnRange::new(first, frames).unwrap();
            let numbers: Vec<u64> = range.into_iter().map(Pfn::get).collect();
            assert_eq!(numbers, (start..start + frames).collect::<Vec<_>>());
            let backwards: Vec<u64> = range.into_iter().rev().map(Pfn::get).collect();
            assert!(numbers.iter().rev().eq(&backwards));
            assert_eq!(range.into_iter().size_hint().0 as u64, frames);
        }
    }

    #[test]
    fn whole_frames_are_those_of_which_no_byte_is_missing() {
        let whole = |start, bytes| {
            PfnRange::whole_frames(PhysAddr::new(start), bytes, Granule::Size4K)
                .map(|frames| (frames.start().get(), frames.frames()))
        };
        assert_eq!(whole(0, 0x9fc00), Some((0, 159)));
        assert_eq!(whole(0x1000, 0x1000), Some((1, 1)));
        assert_eq!(whole(0x0fff, 0x3000), Some((1, 2)));
        assert_eq!(whole(0x1001, 0x1fff), Some((2, 1)));
        for (start, bytes) in [
            (0, 0),
            (0, 0xfff),
            (1, 0x1000),
            (0x1001, 0x1ffe),
            (u64::MAX, 0),
            (u64::MAX, 1),
            (u64::MAX - 0xfff, 0x1000),
            (1 << 60, 0x1000),
        ] {
            assert_eq!(whole(start, bytes), None, "{start:#x}, {bytes:#x}");
        }
        let last = Pfn::MAX.get() << 12;
        assert_eq!(whole(last, 0x1000), Some((Pfn::MAX.get(), 1)));
        assert_eq!(whole(last, 0x2000), None);
    }
}
