//! What came of it, with the keys and in the order of the JSON output.

use super::LazyRequest;
use crate::failure::Failure;
use crate::report::{CLEAN, nanoseconds};
use serde::Serialize;
use std::time::Duration;

/// All RAM in base pages at once.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EagerReport {
    /// Frames, all tables below the root included.
    pub frames: Option<u64>,
    /// How long it took to come online.
    #[serde(rename = "online_ns", serialize_with = "nanoseconds")]
    pub online: Option<Duration>,
}

/// RAM in large pages, and base pages where it is used. Frames are without the reserve.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LazyWay {
    /// Frames when all is online and nothing is used.
    pub frames_online: Option<u64>,
    /// Frames when the first frame of RAM has been handed out.
    pub frames_first: Option<u64>,
    /// Frames when as much is used as was asked for.
    pub frames_used: Option<u64>,
    /// Frames that are kept in reserve for one change.
    pub reserve: Option<u64>,
    /// How often a block became base pages.
    pub changes: u64,
    /// How often the CPUs were made to forget translations by that.
    pub flushes: u64,
    /// How often the allocator was called within the changes.
    pub allocator_calls: u64,
    /// How long it took to come online.
    #[serde(rename = "online_ns", serialize_with = "nanoseconds")]
    pub online: Option<Duration>,
    /// How long the first change took.
    #[serde(rename = "first_ns", serialize_with = "nanoseconds")]
    pub first: Option<Duration>,
    /// How long all changes took together.
    #[serde(rename = "changes_ns", serialize_with = "nanoseconds")]
    pub all: Option<Duration>,
}

/// Both. `None` is what is not known, because it did not come to that.
#[derive(Clone, Debug, Serialize)]
pub struct LazyReport {
    /// The page tables.
    pub backend: &'static str,
    /// How much RAM there is.
    pub ram: String,
    /// The size of the pages that it comes online in.
    pub page: String,
    /// How much becomes base pages at a time.
    pub block: String,
    /// How much is handed out.
    pub used: String,
    /// The size of a frame, in bytes.
    #[serde(skip)]
    pub frame_bytes: u64,
    /// In base pages at once.
    pub eager: EagerReport,
    /// In large pages.
    pub lazy: LazyWay,
    /// `clean`, or what the recounting found.
    pub audit: Option<String>,
    /// Frames that were still out when all was offline again.
    pub frames_left: Option<u64>,
    /// Why it was not done.
    pub error: Option<Failure>,
}

impl LazyReport {
    /// What is known before anything is done.
    pub fn new(request: &LazyRequest) -> Self {
        let [block, page] = request.sizes();
        Self {
            backend: request.backend.name(),
            ram: request.ram.to_string(),
            page: page.to_string(),
            block: block.to_string(),
            used: request.used.to_string(),
            frame_bytes: request.backend.model().granule().bytes(),
            eager: EagerReport::default(),
            lazy: LazyWay::default(),
            audit: None,
            frames_left: None,
            error: None,
        }
    }

    /// Whether everything was done and nothing wrong was found.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.audit.as_deref() == Some(CLEAN)
    }
}
