//! A format as data: the checks are compiled once, and not for each format.

use core::sync::atomic::AtomicU64;
use mm_core::addr::{Granule, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, EntryLines, Leaf, Level, SeenBits};

/// What is declared by an [`EntryFormat`], name by name.
#[derive(Debug)]
pub(super) struct AnyFormat {
    pub(super) granule: Granule,
    pub(super) levels: &'static [Level],
    pub(super) virtual_bits: u32,
    pub(super) last_frame: Pfn,
    pub(super) frame_step: u64,
    pub(super) status_bits: u64,
    pub(super) owned: u64,
    pub(super) tail: u64,
    pub(super) alike: u64,
    pub(super) translates: fn(VirtAddr) -> bool,
    pub(super) leaf: fn(Leaf, usize) -> u64,
    pub(super) table: fn(Pfn, bool) -> u64,
    pub(super) decode: fn(u64, usize) -> Entry,
    pub(super) invalidated: fn(u64) -> u64,
    pub(super) seen_bits: fn(&[AtomicU64]) -> SeenBits,
    pub(super) are_lines: fn(&[[AtomicU64; EntryLines::LENGTH]], &EntryLines) -> bool,
}

impl AnyFormat {
    /// The format `F`.
    pub(super) fn of<F: EntryFormat>() -> &'static Self {
        const {
            &Self {
                granule: F::GRANULE,
                levels: F::LEVELS,
                virtual_bits: F::VIRTUAL_BITS,
                last_frame: F::LAST_FRAME,
                frame_step: F::FRAME_STEP,
                status_bits: F::STATUS_BITS,
                owned: F::OWNED,
                tail: F::TAIL,
                alike: F::ALIKE,
                translates: F::translates,
                leaf: F::leaf,
                table: F::table,
                decode: F::decode,
                invalidated: F::invalidated,
                seen_bits: F::seen_bits,
                are_lines: F::are_lines,
            }
        }
    }
}
