//! What Linux was measured at: `linux_instructions.csv`, on Debian's kernels.
//!
//! `xtask` has a link to this file: it is built before everything else, and no member may depend on one that
//! is not published.

/// One row for each kernel, align and size; instructions of binding a device-dax device and of
/// unbinding it.
const ROWS: &str = include_str!("linux_instructions.csv");

/// The kernel that is compared with: the newest.
const KERNEL: &str = "7.3.4+deb13-amd64";

/// Instructions of Linux for each GiB, as the slope from 1 to 8 GiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linux {
    /// Binding the device.
    pub online_per_gib: f64,
    /// `arch_remove_memory` of unbinding it. The rest of unbinding waits for other things, which differ
    /// from run to run.
    pub offline_per_gib: f64,
}

/// What Linux takes with a device whose pages are `4K`, `2M` or `1G`.
pub fn linux(pages: &str) -> Option<Linux> {
    let row = |gib: &str| -> Option<Vec<f64>> {
        let row = ROWS.lines().find_map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells.get(..3)? == [KERNEL, pages, gib]).then_some(cells)
        })?;
        row.get(3..)?.iter().map(|cell| cell.parse().ok()).collect()
    };
    let (small, large) = (row("1.000")?, row("8.000")?);
    let slope = |column: usize| Some((large.get(column)? - small.get(column)?) / 7.0);
    Some(Linux {
        online_per_gib: slope(0)?,
        offline_per_gib: slope(4)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The figures of the design.
    #[test]
    fn slopes_are_those_of_the_measurements() {
        let thousands = |pages: &str| {
            let linux = linux(pages).unwrap();
            [linux.online_per_gib, linux.offline_per_gib].map(|count| (count / 1e3).round() as u64)
        };
        assert_eq!(thousands("1G"), [1283, 468]);
        assert_eq!(thousands("2M"), [4950, 771]);
        assert_eq!(thousands("4K"), [11907, 91]);
        assert_eq!(linux("16K"), None);
    }
}
