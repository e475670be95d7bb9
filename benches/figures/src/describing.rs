//! What describing memory takes.

use crate::{Figures, Pages};
use serde::{Deserialize, Serialize};

named! {
    /// How descriptors are stored.
    Stores {
        /// `memset` of as many bytes: all of them, or page by page where they are few.
        Memset = "memset",
        /// Stores like all others.
        Plain = "plain",
        /// Past the caches.
        Streamed = "streamed",
        /// Not at all: what else there is to do.
        Omitted = "omitted",
    }
}

/// What it takes to bring memory online that has descriptors of its own, beside `memset` of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Describing {
    /// The pages that the memory is used in; tails are shared by all of a size.
    pub case: Pages,
    /// How much memory it is.
    pub mib: u64,
    /// By which stores.
    pub stores: Stores,
    /// How many threads write descriptors.
    pub workers: usize,
    /// The median, in nanoseconds.
    pub ns: f64,
    /// As a multiple of `memset` by one thread.
    pub vs_memset: f64,
    /// One thread's time by this one.
    pub gain: f64,
    /// The same for what is left without the time that it takes to store nothing.
    pub gain_describing: f64,
}

impl Figures {
    /// What was measured of describing `mib` of memory in pages of `case`.
    pub fn describing(
        &self,
        case: Pages,
        mib: u64,
        stores: Stores,
        workers: usize,
    ) -> Option<&Describing> {
        let wanted = |row: &&Describing| {
            (row.case, row.mib, row.stores, row.workers) == (case, mib, stores, workers)
        };
        self.describing.iter().find(wanted)
    }
}
