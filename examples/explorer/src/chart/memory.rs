//! How much memory descriptors take, by geometry and policy.

use super::rows::Row;
use crate::failure::Failure;
use crate::live::{Region, with_memory_online};
use crate::need::Limits;
use crate::progress::Progress;
use crate::size::{ByteRange, ByteSize};
use mm_core::pagemap::{Heads, Tables, Tails};

/// What was measured on Linux: `arch_add_memory` and `memmap_init` of device-dax devices, the frames behind the vmemmap and
/// the leaf tables that map it, without tables above these.
const LINUX: &str = include_str!("linux_memory.csv");

const TIB: u64 = 1 << 40;

/// What is measured: the size of pages, how much of such memory, tails, tables, heads, and what that is called.
const CASES: [(u64, u64, Tails, Tables, Heads, &str); 9] = [
    (
        4 << 10,
        4 << 30,
        Tails::None,
        Tables::Private,
        Heads::InPlace,
        "4K pages",
    ),
    (
        2 << 20,
        32 << 30,
        Tails::PerCompound,
        Tables::Private,
        Heads::InPlace,
        "2M, tails per compound page",
    ),
    (
        2 << 20,
        32 << 30,
        Tails::PerOrder,
        Tables::Private,
        Heads::InPlace,
        "2M, tails per order",
    ),
    (
        2 << 20,
        32 << 30,
        Tails::PerOrder,
        Tables::Shared,
        Heads::Packed,
        "2M, heads packed",
    ),
    (
        1 << 30,
        TIB,
        Tails::PerCompound,
        Tables::Private,
        Heads::InPlace,
        "1G, tails per compound page",
    ),
    (
        1 << 30,
        TIB,
        Tails::PerCompound,
        Tables::Shared,
        Heads::InPlace,
        "1G, per compound page, tables shared",
    ),
    (
        1 << 30,
        TIB,
        Tails::PerOrder,
        Tables::Private,
        Heads::InPlace,
        "1G, tails per order",
    ),
    (
        1 << 30,
        TIB,
        Tails::PerOrder,
        Tables::Shared,
        Heads::InPlace,
        "1G, per order, tables shared",
    ),
    (
        1 << 30,
        TIB,
        Tails::PerOrder,
        Tables::Shared,
        Heads::Packed,
        "1G, heads packed",
    ),
];

/// A row for each geometry and policy.
///
/// # Errors
///
/// A [`Failure`] where the host has no room for one of the machines.
pub fn rows(limits: &Limits, progress: &dyn Progress) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (index, (page, bytes, tails, tables, heads, name)) in CASES.into_iter().enumerate() {
        progress.step("measuring", index, CASES.len());
        let region = Region {
            heads,
            ranges: vec![ByteRange {
                start: TIB,
                size: bytes,
            }],
            align: ByteSize(page),
            tails,
            tables,
            ..Region::default()
        };
        let taken = with_memory_online(&region, limits, &mut |machine| Ok(machine.frames))?;
        rows.push(Row {
            name: name.to_owned(),
            ours: (taken * (TIB / bytes)) as f64 * 4096.0,
            linux: linux(&ByteSize(page).to_string()),
        });
    }
    Ok(rows)
}

/// Bytes per TiB on Linux, with pages of a size.
fn linux(align: &str) -> Option<f64> {
    LINUX.lines().find_map(|line| {
        let mut words = line.split(',');
        if words.next() != Some(align) {
            return None;
        }
        let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            [gib, descriptors, tables] => Some((descriptors + tables) * 4096.0 * 1024.0 / gib),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_takes_what_was_measured() {
        let mib = |align| linux(align).map(|bytes| bytes / (1 << 20) as f64);
        assert_eq!(mib("4K"), Some(16.0 * 1024.0));
        assert_eq!(mib("2M"), Some(8256.0 / 2.0));
        assert_eq!(mib("1G"), Some(40.0));
        assert_eq!(mib("64K"), None);
    }
}
