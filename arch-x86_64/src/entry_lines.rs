//! Compares lines of entries of a table that a processor may be walking.
//!
//! As [`seen_bits`](crate::seen_bits) does, two entries at a time where there are registers for that: the same holds
//! of these loads. Kernels are compiled without, and load one by one.

use core::sync::atomic::AtomicU64;
use mm_core::paging::EntryLines;

/// One line of entries.
type Line = [AtomicU64; EntryLines::LENGTH];

/// Whether `entries` are `lines`.
#[cfg(not(target_feature = "sse2"))]
pub(crate) fn are_lines(entries: &[Line], lines: &EntryLines) -> bool {
    lines.are_in(entries)
}

/// Whether `entries` are `lines`.
// Not inlined: it takes most of the registers.
#[cfg(target_feature = "sse2")]
#[inline(never)]
pub(crate) fn are_lines(entries: &[Line], lines: &EntryLines) -> bool {
    use core::arch::asm;
    use core::arch::x86_64::__m128i;
    use core::mem::transmute;

    /// How many lines are compared before the differences are looked at.
    const LINES: usize = 16;

    // SAFETY: two words fill such a register, and any bits are two words.
    let registers = |line| unsafe { transmute::<[u64; EntryLines::LENGTH], [__m128i; 4]>(line) };
    let [mut first, mut second, mut third, mut fourth] = registers(lines.first);
    let [first_step, second_step, third_step, fourth_step] = registers(lines.steps);
    entries.chunks(LINES).all(|lines_of_block| {
        // SAFETY: as above.
        let mut differences = unsafe { transmute::<[u64; 2], __m128i>([0; 2]) };
        for line in lines_of_block {
            // SAFETY: it reads the entries of the line, and writes nothing.
            unsafe {
                asm!(
                    "movdqu {found}, [{line}]",
                    "pxor {found}, {first}",
                    "por {differences}, {found}",
                    "paddq {first}, {first_step}",
                    "movdqu {found}, [{line} + 16]",
                    "pxor {found}, {second}",
                    "por {differences}, {found}",
                    "paddq {second}, {second_step}",
                    "movdqu {found}, [{line} + 32]",
                    "pxor {found}, {third}",
                    "por {differences}, {found}",
                    "paddq {third}, {third_step}",
                    "movdqu {found}, [{line} + 48]",
                    "pxor {found}, {fourth}",
                    "por {differences}, {found}",
                    "paddq {fourth}, {fourth_step}",
                    line = in(reg) line,
                    found = out(xmm_reg) _,
                    differences = inout(xmm_reg) differences,
                    first = inout(xmm_reg) first,
                    second = inout(xmm_reg) second,
                    third = inout(xmm_reg) third,
                    fourth = inout(xmm_reg) fourth,
                    first_step = in(xmm_reg) first_step,
                    second_step = in(xmm_reg) second_step,
                    third_step = in(xmm_reg) third_step,
                    fourth_step = in(xmm_reg) fourth_step,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
        }
        // SAFETY: as above.
        let [even, odd] = unsafe { transmute::<__m128i, [u64; 2]>(differences) };
        (even | odd) & !lines.hidden == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn a_difference_is_seen_wherever_it_is() {
        let lines = EntryLines {
            first: [1, 20, 300, 4000, 5, 60, 700, 8000],
            steps: [1 << 12, 0, 3, u64::MAX, 0, 7, 9, 1 << 40],
            hidden: 0b110_0000,
        };
        for count in [0, 1, 2, 15, 16, 17, 33, 64] {
            let line = |line: u64| {
                core::array::from_fn(|slot| {
                    let step = lines.steps[slot].wrapping_mul(line);
                    AtomicU64::new(lines.first[slot].wrapping_add(step))
                })
            };
            let mut entries: Vec<Line> = (0..count as u64).map(line).collect();
            assert!(are_lines(&entries, &lines), "{count} lines");
            for place in 0..count * EntryLines::LENGTH {
                let (line, slot) = (place / EntryLines::LENGTH, place % EntryLines::LENGTH);
                for bit in [0, 5, 6, 12, 56, 63] {
                    *entries[line][slot].get_mut() ^= 1 << bit;
                    let is_hidden = lines.hidden >> bit & 1 == 1;
                    assert_eq!(are_lines(&entries, &lines), is_hidden, "{place}, bit {bit}");
                    assert_eq!(lines.are_in(&entries), is_hidden);
                    *entries[line][slot].get_mut() ^= 1 << bit;
                }
            }
        }
    }
}
