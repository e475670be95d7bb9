//! The machine that the simulation runs on.

use crate::need::Limits;
use std::fs;

/// How much the explorer may use here: no more than there is, where that is known.
pub fn limits() -> Limits {
    // Only Linux has this file; elsewhere the limits are the usual ones.
    let memory = fs::read_to_string("/proc/meminfo").ok();
    Limits {
        available_bytes: memory.as_deref().and_then(available),
        ..Limits::default()
    }
}

/// The bytes that `meminfo`, in the format of `/proc/meminfo`, says can be used without swapping.
pub fn available(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_where_it_is_said() {
        let all = "MemTotal:       16384000 kB\nMemFree:          123456 kB\nMemAvailable:    2048000 kB\nBuffers: 1 kB\n";
        assert_eq!(available(all), Some(2_097_152_000));
        for unknown in [
            "",
            "MemFree: 1 kB\n",
            "MemAvailable: 1 pages\n",
            "MemAvailable: many kB\n",
            "MemAvailable: 18446744073709551615 kB\n",
        ] {
            assert_eq!(available(unknown), None, "{unknown}");
        }
    }
}
