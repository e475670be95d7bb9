//! What came of changing orders, with the keys and in the order of the JSON output.

use super::ReorderRequest;
use crate::failure::Failure;
use crate::report::{CLEAN, nanoseconds};
use crate::request::{heads_name, tables_name, tails_name};
use crate::size::ByteRange;
use mm_core::pagemap::DevPagemap;
use serde::Serialize;
use std::time::Duration;

/// What the reserve was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReserveUse {
    /// Frames that the way there was said to need at most: of descriptors, tables and huge leaves.
    pub needed: Option<u64>,
    /// How many fewer were in reserve when it was done.
    pub used: Option<u64>,
}

/// What came of it. `None` is what is not known, because it did not come to that.
#[derive(Clone, Debug, Serialize)]
pub struct ReorderReport {
    /// The page tables.
    pub backend: &'static str,
    /// The memory that was asked for, in the order in which it was named.
    pub ranges: Vec<ByteRange>,
    /// The size of the pages before.
    pub from: String,
    /// The size of the pages after it.
    pub to: String,
    /// The part that changed, if that was not all of it.
    pub part: Option<ByteRange>,
    /// The size of a frame, in bytes.
    #[serde(skip)]
    pub frame_bytes: u64,
    /// Where heads were in the larger pages.
    pub heads: Option<&'static str>,
    /// How tails were shared in the larger pages.
    pub tails: Option<&'static str>,
    /// How tables were shared in the larger pages.
    pub tables: Option<&'static str>,
    /// Frames before, all tables below the root included, and the reserve not.
    pub frames_before: Option<u64>,
    /// The same after it.
    pub frames_after: Option<u64>,
    /// The same when it was changed back.
    pub frames_back: Option<u64>,
    /// What the reserve was asked for.
    pub reserve: ReserveUse,
    /// How often the CPUs were made to forget translations, there and back.
    pub flushes: Option<u64>,
    /// How often the allocator was called within the changes, to hand out or to take back.
    pub allocator_calls: Option<u64>,
    /// What was done otherwise than asked.
    pub notes: Vec<String>,
    /// `clean`, or what the recounting found.
    pub audit: Option<String>,
    /// How long the way there took.
    #[serde(rename = "there_ns", serialize_with = "nanoseconds")]
    pub there: Option<Duration>,
    /// How long the way back took.
    #[serde(rename = "back_ns", serialize_with = "nanoseconds")]
    pub back: Option<Duration>,
    /// Frames that were still out when all was offline again.
    pub frames_left: Option<u64>,
    /// Why it was not done.
    pub error: Option<Failure>,
}

impl ReorderReport {
    /// What is known before anything is done.
    pub fn new(request: &ReorderRequest) -> Self {
        Self {
            backend: request.from.backend.name(),
            ranges: request.from.ranges.clone(),
            from: request.from.align.to_string(),
            to: request.to.align.to_string(),
            part: request.part,
            frame_bytes: request.from.backend.model().granule().bytes(),
            heads: None,
            tails: None,
            tables: None,
            frames_before: None,
            frames_after: None,
            frames_back: None,
            reserve: ReserveUse::default(),
            flushes: None,
            allocator_calls: None,
            notes: Vec::new(),
            audit: None,
            there: None,
            back: None,
            frames_left: None,
            error: None,
        }
    }

    /// Enters where heads are, and how tails and tables are shared.
    pub(super) fn enter_policies(
        &mut self,
        before: &DevPagemap<'_>,
        after: &DevPagemap<'_>,
        shares_tables: bool,
    ) {
        let larger = match before.geometry().order() >= after.geometry().order() {
            true => before,
            false => after,
        };
        self.heads = Some(heads_name(larger.heads().0));
        self.tails = Some(tails_name(larger.tails().0));
        self.tables = Some(tables_name(larger.tables_on(shares_tables).0));
    }

    /// Whether everything was done and nothing wrong was found.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.audit.as_deref() == Some(CLEAN)
    }
}
