//! Many entries at once, several to a register.
//!
//! What these functions write or compare with comes by reference, and they are not inlined: a compiler that
//! knows that some of the entries are equal handles these one by one, and others several at a time only where
//! it knows nothing of them. They are also the same for all formats.

/// How many entries a cache line has.
pub(super) const LINE: usize = 8;

/// How many equal entries are written at a time: as many as have registers where these hold one each.
pub(super) const COPIES: usize = 8;

/// How many equal entries are compared at a time.
pub(super) const BLOCK: usize = 64;

/// Writes `copies` into each of `to`.
#[inline(never)]
pub(super) fn write_copies(to: &mut [[u64; COPIES]], copies: &[u64; COPIES]) {
    let copies = *copies;
    for slots in to {
        for (slot, entry) in slots.iter_mut().zip(copies) {
            *slot = entry;
        }
    }
}

/// Writes `first` into the first of `to`, and into each further one what differs from the one before by
/// `steps`.
#[inline(never)]
pub(super) fn write_lines(to: &mut [[u64; LINE]], first: &[u64; LINE], steps: &[u64; LINE]) {
    let mut line = *first;
    let steps = *steps;
    for slots in to {
        for (slot, entry) in slots.iter_mut().zip(line) {
            *slot = entry;
        }
        add(&mut line, steps);
    }
}

/// How many of the first of `blocks` have entries that all are as in `entries`, but for the bits `hidden`.
#[inline(never)]
pub(super) fn equal_blocks(blocks: &[[u64; BLOCK]], entries: &[u64; 4], hidden: u64) -> usize {
    let entries = *entries;
    let differs = |block: &[u64; BLOCK]| {
        let mut differences = [0; 4];
        for slots in block.as_chunks().0 {
            collect(&mut differences, slots, &entries);
        }
        let [first, second, third, fourth] = differences;
        (first | second | third | fourth) & !hidden != 0
    };
    blocks.iter().position(differs).unwrap_or(blocks.len())
}

/// How many of the first of `lines` are what [`write_lines`] writes, but for the bits `hidden`.
#[inline(never)]
pub(super) fn equal_lines(
    lines: &[[u64; LINE]],
    first: &[u64; LINE],
    steps: &[u64; LINE],
    hidden: u64,
) -> usize {
    let mut expected = *first;
    let steps = *steps;
    let differs = |line: &[u64; LINE]| {
        let mut differences = [0; 2];
        let expected_pairs = expected.as_chunks().0;
        for (slots, entries) in line.as_chunks().0.iter().zip(expected_pairs) {
            collect(&mut differences, slots, entries);
        }
        add(&mut expected, steps);
        let [first, second] = differences;
        (first | second) & !hidden != 0
    };
    lines.iter().position(differs).unwrap_or(lines.len())
}

/// Adds to `differences` the bits in which `slots` and `entries` differ.
#[inline(always)]
fn collect<const N: usize>(differences: &mut [u64; N], slots: &[u64; N], entries: &[u64; N]) {
    for ((difference, slot), entry) in differences.iter_mut().zip(slots).zip(entries) {
        *difference |= slot ^ entry;
    }
}

#[inline(always)]
fn add(line: &mut [u64; LINE], steps: [u64; LINE]) {
    for (entry, step) in line.iter_mut().zip(steps) {
        *entry = entry.wrapping_add(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_equal_up_to_the_first_that_differs_in_a_bit_that_counts() {
        let first = [1, 20, 300, 4000, 5, 60, 700, 8000];
        let steps = [1 << 12, 0, 3, u64::MAX, 0, 7, 9, 1 << 40];
        let mut lines = [[0; LINE]; 9];
        write_lines(&mut lines, &first, &steps);
        for (index, line) in lines.iter().enumerate() {
            for ((entry, first), step) in line.iter().zip(first).zip(steps) {
                assert_eq!(*entry, first.wrapping_add(step.wrapping_mul(index as u64)));
            }
        }
        let hidden = 0b110_0000;
        assert_eq!(equal_lines(&lines, &first, &steps, hidden), 9);
        for place in 0..9 * LINE {
            for bit in 0..u64::BITS {
                let mut lines = lines;
                lines[place / LINE][place % LINE] ^= 1 << bit;
                let equal = if hidden >> bit & 1 == 1 {
                    9
                } else {
                    place / LINE
                };
                assert_eq!(equal_lines(&lines, &first, &steps, hidden), equal);
            }
        }
    }

    #[test]
    fn blocks_are_equal_up_to_the_first_that_differs_in_a_bit_that_counts() {
        let entry = 0x8000_1234_5678_9063;
        let mut copies = [[0; COPIES]; 2 * BLOCK / COPIES];
        write_copies(&mut copies, &[entry; COPIES]);
        let blocks: [[u64; BLOCK]; 2] = [[entry; BLOCK]; 2];
        assert_eq!(copies.as_flattened(), blocks.as_flattened());
        let hidden = 0b110_0000;
        assert_eq!(equal_blocks(&blocks, &[entry; 4], hidden), 2);
        for place in 0..2 * BLOCK {
            for bit in 0..u64::BITS {
                let mut blocks = blocks;
                blocks[place / BLOCK][place % BLOCK] ^= 1 << bit;
                let equal = if hidden >> bit & 1 == 1 {
                    2
                } else {
                    place / BLOCK
                };
                assert_eq!(equal_blocks(&blocks, &[entry; 4], hidden), equal);
            }
        }
    }
}
