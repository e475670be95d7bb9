//! Looks at many entries of a table that a processor may be walking.
//!
//! A compiler loads atomics one by one, each into a register of its own. These instructions take their operands
//! from memory, and two entries at a time where there are registers for that. A wide load need not be one
//! access, but it reads each byte once, and the bits that matter are those which nobody changes meanwhile:
//! what the processor does (A and D) is not looked for.

use core::arch::asm;
use core::sync::atomic::AtomicU64;
use mm_core::paging::SeenBits;

/// How many entries are looked at together. All of a table of 512 but the first two are 17 times as many.
const BLOCK: usize = 30;

/// Entries where wide loads want them.
#[repr(C, align(16))]
struct Block([AtomicU64; BLOCK]);

/// The bits of `entries`.
pub(crate) fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
    // SAFETY: a block is so many entries and nothing else.
    let (before, blocks, behind) = unsafe { entries.align_to::<Block>() };
    let of_blocks = of_blocks(blocks);
    SeenBits::of(before)
        .and(of_blocks)
        .and(SeenBits::of(behind))
}

/// The bits of all entries of `blocks`, as many of them to a register as it holds.
#[cfg(target_feature = "sse2")]
fn of_blocks(blocks: &[Block]) -> SeenBits {
    use core::arch::x86_64::__m128i;
    use core::mem::transmute;

    // SAFETY: two words fill such a register, and any bits are two words.
    let register = |word: u64| unsafe { transmute::<[u64; 2], __m128i>([word; 2]) };
    // SAFETY: as above.
    let words = |register| unsafe { transmute::<__m128i, [u64; 2]>(register) };
    let mut all = register(SeenBits::NONE.all);
    let mut any = register(SeenBits::NONE.any);
    for block in blocks {
        // SAFETY: it reads the entries of the block, which is aligned to 16 bytes, and writes nothing.
        unsafe {
            asm!(
                ".irp pair, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14",
                "pand {all}, [{block} + 16 * \\pair]",
                "por {any}, [{block} + 16 * \\pair]",
                ".endr",
                block = in(reg) block,
                all = inout(xmm_reg) all,
                any = inout(xmm_reg) any,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
    }
    let ([even, odd], [any_even, any_odd]) = (words(all), words(any));
    SeenBits {
        all: even & odd,
        any: any_even | any_odd,
    }
}

/// The bits of all entries of `blocks`, one by one: kernels are compiled without wide registers.
#[cfg(not(target_feature = "sse2"))]
fn of_blocks(blocks: &[Block]) -> SeenBits {
    let SeenBits { mut all, mut any } = SeenBits::NONE;
    for block in blocks {
        // SAFETY: it reads the entries of the block, and writes nothing.
        unsafe {
            asm!(
                ".irp entry, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14",
                "and {all}, [{block} + 16 * \\entry]",
                "or {any}, [{block} + 16 * \\entry]",
                "and {all}, [{block} + 16 * \\entry + 8]",
                "or {any}, [{block} + 16 * \\entry + 8]",
                ".endr",
                block = in(reg) block,
                all = inout(reg) all,
                any = inout(reg) any,
                options(pure, readonly, nostack)
            );
        }
    }
    SeenBits { all, any }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn bits_are_seen_wherever_they_are() {
        for entries in [0, 1, 2, 3, 29, 30, 31, 62, 511, 512] {
            for place in 0..entries {
                for from in [0, 1] {
                    let entry = 0x0123_4567_89ab_cdef;
                    let of =
                        |index| AtomicU64::new(if index == place + from { !entry } else { entry });
                    let table: Vec<_> = (0..from + entries).map(of).collect();
                    let seen = seen_bits(&table[from..]);
                    assert_eq!(seen, SeenBits::of(&table[from..]));
                    let alone = entries == 1;
                    assert_eq!(seen.all == 0 && seen.any == u64::MAX, !alone);
                }
            }
        }
        assert_eq!(seen_bits(&[]), SeenBits::NONE);
    }
}
