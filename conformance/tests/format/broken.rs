//! Formats that break one duty each, and the check that has to notice.

use crate::failed;
use crate::sound::{ACCESSED, DIRTY, FRAME, GLOBAL, LEVELS, READ, Sound, VALID, WRITE, level};
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;
use mm_core::addr::{Block, Granule, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, EntryLines, Leaf, Level, Link, Role, SeenBits};

/// What is different from [`Sound`].
trait Difference {
    const LEVELS: &'static [Level] = &LEVELS;
    const VIRTUAL_BITS: u32 = Sound::VIRTUAL_BITS;
    const LAST_FRAME: Pfn = Sound::LAST_FRAME;
    const FRAME_STEP: u64 = Sound::FRAME_STEP;
    const STATUS_BITS: u64 = Sound::STATUS_BITS;
    const OWNED: u64 = Sound::OWNED;
    const TAIL: u64 = Sound::TAIL;
    const ALIKE: u64 = Sound::ALIKE;

    fn translates(at: VirtAddr) -> bool {
        Sound::translates(at)
    }

    fn leaf(leaf: Leaf, depth: usize) -> u64 {
        Sound::leaf(leaf, depth)
    }

    fn table(frame: Pfn, shared: bool) -> u64 {
        Sound::table(frame, shared)
    }

    fn decode(entry: u64, depth: usize) -> Entry {
        Sound::decode(entry, depth)
    }

    fn invalidated(entry: u64) -> u64 {
        Sound::invalidated(entry)
    }

    fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
        Sound::seen_bits(entries)
    }

    fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
        Sound::are_lines(entries, lines)
    }
}

/// [`Sound`] with the difference `D`.
enum Broken<D> {
    _Never(PhantomData<D>),
}

// SAFETY: it breaks a duty, which is what it is for; no table is written by it.
unsafe impl<D: Difference> EntryFormat for Broken<D> {
    const GRANULE: Granule = Granule::Size4K;
    const LEVELS: &'static [Level] = D::LEVELS;
    const VIRTUAL_BITS: u32 = D::VIRTUAL_BITS;
    const LAST_FRAME: Pfn = D::LAST_FRAME;
    const FRAME_STEP: u64 = D::FRAME_STEP;
    const STATUS_BITS: u64 = D::STATUS_BITS;
    const OWNED: u64 = D::OWNED;
    const TAIL: u64 = D::TAIL;
    const ALIKE: u64 = D::ALIKE;

    fn translates(at: VirtAddr) -> bool {
        D::translates(at)
    }

    fn leaf(leaf: Leaf, depth: usize) -> u64 {
        D::leaf(leaf, depth)
    }

    fn table(frame: Pfn, shared: bool) -> u64 {
        D::table(frame, shared)
    }

    fn decode(entry: u64, depth: usize) -> Entry {
        D::decode(entry, depth)
    }

    fn invalidated(entry: u64) -> u64 {
        D::invalidated(entry)
    }

    fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
        D::seen_bits(entries)
    }

    fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
        D::are_lines(entries, lines)
    }
}

/// A test for each difference: that the check which is named fails, and, for what is behind `only`,
/// that no other does.
macro_rules! broken {
    ($($(#[$doc:meta])* $name:ident: $check:ident $(, $only:ident)? { $($item:item)* })*) => {
        $(
            mod $name {
                use super::*;

                $(#[$doc])*
                pub(super) enum This {}

                impl Difference for This {
                    $($item)*
                }

                #[test]
                fn is_noticed() {
                    let failed = failed::<Broken<This>>();
                    assert!(failed.contains(&stringify!($check)), "{failed:?}");
                    let only: &[&str] = &[$(stringify!($only))?];
                    if !only.is_empty() {
                        assert_eq!(failed, [stringify!($check)]);
                    }
                }
            }
        )*

        /// The checks that notice one of them.
        pub(crate) fn noticed_by() -> impl Iterator<Item = &'static str> {
            [$(stringify!($check),)*].into_iter()
        }
    };
}

/// `entry` with what bit `low` and bit `high` say exchanged.
fn exchange_bits(entry: u64, low: u32, high: u32) -> u64 {
    let differs = (entry >> low ^ entry >> high) & 1;
    entry ^ (differs << low | differs << high)
}

broken! {
    two_levels: levels_lead_from_the_root_to_base_pages, only {
        const LEVELS: &'static [Level] = LEVELS.split_at(1).1;
        const VIRTUAL_BITS: u32 = 30;
        fn translates(at: VirtAddr) -> bool {
            let upper = (at.get() as i64) >> 29;
            upper == 0 || upper == -1
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            Sound::decode(entry, depth + 1)
        }
    }
    a_gap_between_levels: levels_lead_from_the_root_to_base_pages {
        const LEVELS: &'static [Level] = &[level(31), level(21), level(12)];
    }
    levels_that_overlap: levels_lead_from_the_root_to_base_pages {
        const LEVELS: &'static [Level] = &[level(29), level(21), level(12)];
    }
    a_last_level_of_larger_pages: levels_lead_from_the_root_to_base_pages {
        const LEVELS: &'static [Level] = &[level(31), level(22), level(13)];
    }
    a_table_of_two_pages: levels_lead_from_the_root_to_base_pages, only {
        const LEVELS: &'static [Level] = &[
            Level { index_bits: 8, leaf: false, ..level(31) },
            Level { index_bits: 10, ..level(21) },
            level(12),
        ];
    }
    a_last_level_without_leaves: levels_lead_from_the_root_to_base_pages {
        const LEVELS: &'static [Level] = &[level(30), level(21), Level { leaf: false, ..level(12) }];
    }
    virtual_bits_that_do_not_follow: levels_lead_from_the_root_to_base_pages, only {
        const VIRTUAL_BITS: u32 = 38;
    }

    addresses_that_are_not_canonical: each_address_of_the_tree_is_translated_in_one_place, only {
        fn translates(_at: VirtAddr) -> bool {
            true
        }
    }
    addresses_with_a_tag: each_address_of_the_tree_is_translated_in_one_place, only {
        fn translates(at: VirtAddr) -> bool {
            Sound::translates(VirtAddr::new(at.get() & !(1 << 60) | at.get() << 1 & 1 << 60))
        }
    }
    a_lower_half_that_ends_a_page_early: each_address_of_the_tree_is_translated_in_one_place, only {
        fn translates(at: VirtAddr) -> bool {
            Sound::translates(at) && at.get() >> 12 != 0x3ff_ffff
        }
    }
    an_upper_half_that_starts_a_byte_late: each_address_of_the_tree_is_translated_in_one_place, only {
        fn translates(at: VirtAddr) -> bool {
            Sound::translates(at) && at.get() != 0xffff_ffc0_0000_0000
        }
    }
    a_slot_in_the_other_half: each_address_of_the_tree_is_translated_in_one_place, only {
        fn translates(at: VirtAddr) -> bool {
            let slot = (at.get() >> 30) & 0x1ff == 5;
            let at = if slot { at.get() ^ u64::MAX << 39 } else { at.get() };
            Sound::translates(VirtAddr::new(at))
        }
    }

    two_bits_for_owned: the_bits_for_software_are_two {
        const OWNED: u64 = Sound::OWNED | GLOBAL;
    }
    one_bit_for_both: the_bits_for_software_are_two {
        const TAIL: u64 = Sound::OWNED;
    }
    a_bit_that_hardware_sets: the_bits_for_software_are_two {
        const TAIL: u64 = DIRTY;
    }

    stores_that_are_always_allowed: leaves_are_read_back_as_they_were_entered {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth) | WRITE
        }
    }
    stores_that_are_forgotten: leaves_are_read_back_as_they_were_entered {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) => Entry::Leaf(Leaf { writable: false, ..leaf }),
                other => other,
            }
        }
    }
    a_huge_leaf_of_the_wrong_size: leaves_are_read_back_as_they_were_entered {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) => Entry::Leaf(Leaf { block: Block::single(leaf.block.first()), ..leaf }),
                other => other,
            }
        }
    }
    a_frame_bit_that_is_lost: leaves_are_read_back_as_they_were_entered {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth) & !(1 << 40)
        }
    }
    frame_zero_that_is_no_frame: leaves_are_read_back_as_they_were_entered {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) if leaf.block.first() == Pfn::ZERO => Entry::Reserved,
                other => other,
            }
        }
    }

    a_link_bit_that_is_lost: links_are_read_back_as_they_were_entered {
        fn table(frame: Pfn, shared: bool) -> u64 {
            Sound::table(frame, shared) & !(1 << 53)
        }
    }
    a_link_that_is_only_one_at_the_root: links_are_read_back_as_they_were_entered {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Table { .. } if depth == 1 => Entry::Reserved,
                other => other,
            }
        }
    }
    links_that_are_all_private: links_are_read_back_as_they_were_entered {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Table { frame, link: Link::Shared } => Entry::Table { frame, link: Link::Private },
                other => other,
            }
        }
    }

    a_status_bit_that_moves_the_frame: what_the_hardware_sets_changes_nothing_that_an_entry_says {
        fn decode(entry: u64, depth: usize) -> Entry {
            let moved = if entry & ACCESSED == 0 && entry & READ != 0 { 1 << 53 } else { 0 };
            Sound::decode(entry ^ moved, depth)
        }
    }
    two_status_bits_that_say_read_only: what_the_hardware_sets_changes_nothing_that_an_entry_says, only {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) if entry & (ACCESSED | DIRTY) == 0 => {
                    Entry::Leaf(Leaf { writable: false, ..leaf })
                }
                other => other,
            }
        }
    }
    a_status_bit_that_makes_a_link_foreign: what_the_hardware_sets_changes_nothing_that_an_entry_says {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Table { frame, .. } if entry & ACCESSED != 0 => {
                    Entry::Table { frame, link: Link::Foreign }
                }
                other => other,
            }
        }
    }

    invalidation_that_forgets_the_frame: an_invalidated_entry_remembers_all_that_it_said {
        fn invalidated(entry: u64) -> u64 {
            Sound::invalidated(entry) & !FRAME
        }
    }
    invalidation_that_forgets_rights: an_invalidated_entry_remembers_all_that_it_said, only {
        fn invalidated(entry: u64) -> u64 {
            match entry & READ {
                0 => Sound::invalidated(entry),
                _ => Sound::invalidated(entry) & !WRITE,
            }
        }
    }
    invalidation_that_forgets_that_a_table_was_shared: an_invalidated_entry_remembers_all_that_it_said, only {
        fn invalidated(entry: u64) -> u64 {
            match entry & READ {
                0 => Sound::invalidated(entry) & !Sound::TAIL,
                _ => Sound::invalidated(entry),
            }
        }
    }
    invalidation_that_leaves_the_entry_present: an_invalidated_entry_remembers_all_that_it_said {
        fn invalidated(entry: u64) -> u64 {
            entry
        }
    }
    invalidation_that_clears_all: an_invalidated_entry_remembers_all_that_it_said {
        fn invalidated(_entry: u64) -> u64 {
            0
        }
    }
    invalidation_that_toggles: an_invalidated_entry_remembers_all_that_it_said, only {
        fn invalidated(entry: u64) -> u64 {
            entry ^ VALID
        }
    }
    invalidation_that_makes_leaves_links: an_invalidated_entry_remembers_all_that_it_said {
        fn invalidated(entry: u64) -> u64 {
            Sound::invalidated(entry) & !(READ | WRITE)
        }
    }

    a_note_that_links_have_before: a_note_in_an_invalidated_link_changes_nothing_that_it_says, only {
        const ALIKE: u64 = GLOBAL;

        fn table(frame: Pfn, shared: bool) -> u64 {
            Sound::table(frame, shared) | GLOBAL
        }
    }
    a_note_that_takes_another_frame: a_note_in_an_invalidated_link_changes_nothing_that_it_says, only {
        const ALIKE: u64 = 1 << 53;
    }
    a_note_that_makes_a_leaf: a_note_in_an_invalidated_link_changes_nothing_that_it_says, only {
        const ALIKE: u64 = READ;
    }

    all_but_the_last_entry: bits_are_seen_in_all_entries_wherever_they_are, only {
        fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
            SeenBits::of(entries.split_last().map_or(entries, |(_, others)| others))
        }
    }
    any_for_all: bits_are_seen_in_all_entries_wherever_they_are, only {
        fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
            let any = SeenBits::of(entries).any;
            SeenBits { all: any, any }
        }
    }
    all_but_the_last_line: lines_are_those_of_a_table_but_for_hidden_bits, only {
        fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
            lines.are_in(entries.split_last().map_or(entries, |(_, others)| others))
        }
    }
    lines_with_what_is_hidden: lines_are_those_of_a_table_but_for_hidden_bits, only {
        fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
            EntryLines { hidden: 0, ..*lines }.are_in(entries)
        }
    }

    zero_that_is_not_free: nothing_but_zero_is_free {
        fn decode(entry: u64, depth: usize) -> Entry {
            match entry {
                0 => Entry::Reserved,
                _ => Sound::decode(entry, depth),
            }
        }
    }
    not_present_that_is_free: nothing_but_zero_is_free {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Reserved if entry & VALID == 0 => Entry::Free,
                other => other,
            }
        }
    }
    one_note_that_is_free: nothing_but_zero_is_free {
        fn decode(entry: u64, depth: usize) -> Entry {
            match entry {
                DIRTY if depth == 1 => Entry::Free,
                _ => Sound::decode(entry, depth),
            }
        }
    }

    links_without_owned: own_entries_have_the_owned_bit_and_no_others {
        fn table(frame: Pfn, shared: bool) -> u64 {
            Sound::table(frame, shared) & !Sound::OWNED
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            let is_link = entry & VALID != 0 && entry & (READ | WRITE) == 0;
            Sound::decode(if is_link { entry | Sound::OWNED } else { entry }, depth)
        }
    }
    foreign_leaves_with_owned: own_entries_have_the_owned_bit_and_no_others {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth) | Sound::OWNED
        }
    }
    invalidation_that_disowns: own_entries_have_the_owned_bit_and_no_others {
        fn invalidated(entry: u64) -> u64 {
            Sound::invalidated(entry) & !Sound::OWNED
        }
    }
    another_bit_for_owned_than_is_said: own_entries_have_the_owned_bit_and_no_others {
        const OWNED: u64 = 1 << 60;
    }
    ownership_by_another_bit_too: own_entries_have_the_owned_bit_and_no_others {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                // Bits 3 and 4 are nobody's.
                Entry::Leaf(leaf) if entry & 0x18 == 0x18 => {
                    Entry::Leaf(Leaf { role: Role::Descriptors, ..leaf })
                }
                other => other,
            }
        }
    }
    an_owned_bit_that_is_overruled: own_entries_have_the_owned_bit_and_no_others, only {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) if entry & 0x18 == 0x18 => {
                    Entry::Leaf(Leaf { role: Role::Foreign, ..leaf })
                }
                other => other,
            }
        }
    }

    foreign_tails_that_are_tails: an_entry_without_the_owned_bit_is_somebody_elses {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Leaf(leaf) if entry & Sound::TAIL != 0 => {
                    Entry::Leaf(Leaf { role: Role::Tail, ..leaf })
                }
                other => other,
            }
        }
    }
    foreign_links_that_are_not_seen: an_entry_without_the_owned_bit_is_somebody_elses, only {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Table { link: Link::Foreign, .. } => Entry::Reserved,
                other => other,
            }
        }
    }
    what_others_swapped_out_taken_for_own: an_entry_without_the_owned_bit_is_somebody_elses {
        fn decode(entry: u64, depth: usize) -> Entry {
            match Sound::decode(entry, depth) {
                Entry::Reserved if entry & READ != 0 => Sound::decode(entry | Sound::OWNED, depth),
                other => other,
            }
        }
    }

    a_note_that_is_a_leaf: notes_in_entries_that_are_not_present_are_reserved {
        fn decode(entry: u64, depth: usize) -> Entry {
            match entry {
                DIRTY => Sound::decode(DIRTY | READ | VALID, depth),
                _ => Sound::decode(entry, depth),
            }
        }
    }

    tails_without_the_bit: the_tail_bit_tells_tails_and_shared_tables {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth) & !Sound::TAIL
        }
    }
    shared_links_without_the_bit: the_tail_bit_tells_tails_and_shared_tables {
        fn table(frame: Pfn, _shared: bool) -> u64 {
            Sound::table(frame, false)
        }
    }
    another_bit_for_tail_than_is_said: the_tail_bit_tells_tails_and_shared_tables {
        const TAIL: u64 = 1 << 61;
    }
    foreign_leaves_with_the_bit: the_tail_bit_tells_tails_and_shared_tables, only {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            let tail = if leaf.role == Role::Foreign { Sound::TAIL } else { 0 };
            Sound::leaf(leaf, depth) | tail
        }
    }
    tails_by_two_bits: the_tail_bit_tells_tails_and_shared_tables, only {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            let second = if leaf.role == Role::Tail { 1 << 4 } else { 0 };
            Sound::leaf(leaf, depth) | second
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            let is_leaf = entry & READ != 0;
            let tail = if is_leaf && entry & 1 << 4 == 0 { Sound::TAIL } else { 0 };
            Sound::decode(entry & !tail, depth)
        }
    }

    a_step_of_two_frames: a_step_is_the_next_frame_and_nothing_else {
        const FRAME_STEP: u64 = 2 << 10;
    }
    a_step_that_writes_protects: a_step_is_the_next_frame_and_nothing_else {
        const FRAME_STEP: u64 = (1 << 10) - WRITE;
    }
    frame_numbers_in_two_parts: a_step_is_the_next_frame_and_nothing_else {
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            exchange_bits(Sound::leaf(leaf, depth), 30, 31)
        }
        fn table(frame: Pfn, shared: bool) -> u64 {
            exchange_bits(Sound::table(frame, shared), 30, 31)
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            Sound::decode(exchange_bits(entry, 30, 31), depth)
        }
    }

    a_carry_that_disowns: behind_the_last_frame_no_entry_follows, only {
        const OWNED: u64 = 1 << 54;
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            exchange_bits(Sound::leaf(leaf, depth), 8, 54)
        }
        fn table(frame: Pfn, shared: bool) -> u64 {
            exchange_bits(Sound::table(frame, shared), 8, 54)
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            Sound::decode(exchange_bits(entry, 8, 54), depth)
        }
    }
    a_carry_that_makes_tails: behind_the_last_frame_no_entry_follows, only {
        const TAIL: u64 = 1 << 54;
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            exchange_bits(Sound::leaf(leaf, depth), 9, 54)
        }
        fn table(frame: Pfn, shared: bool) -> u64 {
            exchange_bits(Sound::table(frame, shared), 9, 54)
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            Sound::decode(exchange_bits(entry, 9, 54), depth)
        }
    }
    a_carry_that_is_lost: behind_the_last_frame_no_entry_follows, only {
        const FRAME_STEP: u64 = Sound::FRAME_STEP << 10;
        const STATUS_BITS: u64 = Sound::STATUS_BITS << 10;
        const OWNED: u64 = Sound::OWNED << 10;
        const TAIL: u64 = Sound::TAIL << 10;
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth).rotate_left(10)
        }
        fn table(frame: Pfn, shared: bool) -> u64 {
            Sound::table(frame, shared).rotate_left(10)
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            Sound::decode(entry.rotate_right(10), depth)
        }
        fn invalidated(entry: u64) -> u64 {
            entry & !(VALID << 10)
        }
    }

    a_last_frame_that_is_too_large: the_last_frame_is_the_last_that_an_entry_holds {
        const LAST_FRAME: Pfn = Pfn::new((1 << 45) - 1).unwrap();
    }
    a_last_frame_that_is_one_too_large: the_last_frame_is_the_last_that_an_entry_holds {
        const LAST_FRAME: Pfn = Pfn::new(1 << 44).unwrap();
    }
    a_last_frame_that_is_too_small: the_last_frame_is_the_last_that_an_entry_holds {
        const LAST_FRAME: Pfn = Pfn::new((1 << 43) - 1).unwrap();
    }
    links_to_more_frames_than_leaves_have: the_last_frame_is_the_last_that_an_entry_holds, only {
        const LAST_FRAME: Pfn = Pfn::new((1 << 43) - 1).unwrap();
        fn leaf(leaf: Leaf, depth: usize) -> u64 {
            Sound::leaf(leaf, depth) & !(1 << 53)
        }
        fn decode(entry: u64, depth: usize) -> Entry {
            match entry & (READ | WRITE) {
                0 => Sound::decode(entry, depth),
                _ if entry & 1 << 53 != 0 => Entry::Reserved,
                _ => Sound::decode(entry, depth),
            }
        }
    }
}
