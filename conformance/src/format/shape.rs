//! The tree, and the bits that are not about it.

use super::any::AnyFormat;
use crate::outcome::{Verdict, ensure, ensure_at, equal, fail, skip};
use mm_core::addr::VirtAddr;

/// The base-2 logarithm of the number of entries that fill a page.
fn most_index_bits(format: &AnyFormat) -> u32 {
    format.granule.shift() - 3
}

pub(super) fn levels_lead_from_the_root_to_base_pages(format: &AnyFormat) -> Verdict {
    let levels = format.levels;
    ensure(
        (3..=5).contains(&levels.len()),
        "there are three to five levels",
    )?;
    for (upper, lower) in levels.iter().zip(levels.iter().skip(1)) {
        equal(
            lower.table_shift().into(),
            upper.shift.into(),
            "an entry translates what the table below it does",
        )?;
    }
    for level in levels {
        ensure(
            (1..=most_index_bits(format)).contains(&level.index_bits),
            "a table has entries and fits in a page",
        )?;
    }
    let (Some(root), Some(last)) = (levels.first(), levels.last()) else {
        return fail("there are three to five levels");
    };
    equal(
        format.granule.shift().into(),
        last.shift.into(),
        "an entry of the last level translates a base page",
    )?;
    ensure(last.leaf, "entries of the last level are leaves")?;
    ensure(root.table_shift() <= 64, "an address has 64 bits")?;
    equal(
        root.table_shift().into(),
        format.virtual_bits.into(),
        "the tree translates what the root does",
    )
}

/// Looks at both ends of what each entry of the root translates, and so at both sides of every
/// border: what an entry translates is translated as a whole.
pub(super) fn each_address_of_the_tree_is_translated_in_one_place(format: &AnyFormat) -> Verdict {
    let Some(root) = format.levels.first() else {
        return fail("there is a root");
    };
    let all = root.table_shift();
    if root.index_bits > most_index_bits(format) || all > 64 {
        return fail("the root fits in a page, and addresses in 64 bits");
    }
    if all == 64 {
        return skip("the tree translates all bits of an address");
    }
    let above = u64::MAX << all;
    let entry_bytes = 1u64 << root.shift;
    let mut seen_higher = false;
    for index in 0..1u64 << root.index_bits {
        let first = index << root.shift;
        for lower in [first, first | (entry_bytes - 1)] {
            let higher = lower | above;
            let at = VirtAddr::new(lower);
            let is_higher = (format.translates)(VirtAddr::new(higher));
            ensure_at(
                (format.translates)(at) != is_higher,
                "an address is translated with its upper bits all clear, or all set, and not both",
                at,
            )?;
            ensure_at(
                is_higher || !seen_higher,
                "what is translated goes up to the last address, or starts with the first",
                at,
            )?;
            seen_higher = is_higher;
            let translated = if is_higher { higher } else { lower };
            for bit in all..64 {
                let alias = VirtAddr::new(translated ^ 1 << bit);
                // With a single bit above, this is the other one of the two.
                ensure_at(
                    !(format.translates)(alias),
                    "no other address has the same entries",
                    alias,
                )?;
            }
        }
    }
    Ok(())
}

pub(super) fn the_bits_for_software_are_two(format: &AnyFormat) -> Verdict {
    for bit in [format.owned, format.tail] {
        equal(1, bit.count_ones().into(), "it is one bit")?;
    }
    ensure(
        format.owned != format.tail,
        "it is not the same bit for both",
    )?;
    equal(
        0,
        format.status_bits & (format.owned | format.tail),
        "hardware does not set it",
    )
}
