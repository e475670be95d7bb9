//! What the reference counts of frames take of RAM, in either of the library's two ways.

use crate::notes::counted;
use crate::size::rounded;
use mm_core::frame::SharedCounts;
use mm_core::pagemap::DevPagemap;
use serde::Serialize;
use std::fmt;

const GIB: u64 = 1 << 30;

/// What counts take for a pagemap that is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CountCosts {
    /// How many frames have more than one reference, at most.
    pub shared_frames: u64,
    /// Bytes for the counts of these alone: `SharedCounts`.
    pub shared_bytes: u64,
    /// Bytes for a count of each frame, for each GiB of RAM: `WordCounts`.
    pub bytes_per_gib_of_ram: u64,
}

impl CountCosts {
    /// What they take for `pagemap`.
    pub fn of(pagemap: &DevPagemap<'_>) -> Self {
        let shared_frames = pagemap.shared_frames();
        let words = SharedCounts::words_for(shared_frames);
        let frames = GIB / pagemap.model().granule().bytes();
        Self {
            shared_frames,
            shared_bytes: words.saturating_mul(size_of::<u64>() as u64),
            bytes_per_gib_of_ram: frames * size_of::<u32>() as u64,
        }
    }
}

impl fmt::Display for CountCosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} for {}; for all, {} per GiB of RAM",
            rounded(self.shared_bytes as f64),
            counted(self.shared_frames, "shared frame"),
            rounded(self.bytes_per_gib_of_ram as f64),
        )
    }
}
