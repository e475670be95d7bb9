//! What was measured, with the keys and in the order of the JSON output.

use crate::counts::CountCosts;
use crate::failure::Failure;
use crate::request::{Request, heads_name, tables_name, tails_name};
use crate::size::ByteRange;
use crate::stats::NodeRow;
use mm_core::pagemap::{Heads, Tables, Tails};
use mm_core::vmemmap::AuditReport;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// What came of bringing a region online and taking it offline again. `None` is what is not known,
/// because it did not come to that.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The page tables.
    pub backend: &'static str,
    /// The memory that was asked for, in the order in which it was named.
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that it is used in.
    pub align: String,
    /// The size of a frame, in bytes.
    #[serde(skip)]
    pub frame_bytes: u64,
    /// Where heads were.
    pub heads: Option<&'static str>,
    /// How tails were shared.
    pub tails: Option<&'static str>,
    /// How tables were shared.
    pub tables: Option<&'static str>,
    /// Bytes that are reserved for an altmap, if there is one.
    pub altmap_reserved_bytes: Option<u64>,
    /// What it cost.
    pub frames: Frames,
    /// What a flat array costs: vmemmap pages that were mapped.
    pub flat_frames: Option<u64>,
    /// What was saved against it.
    pub saved_percent: Option<f64>,
    /// Leaf entries less distinct descriptor frames.
    pub reused_entries: Option<u64>,
    /// What the reference counts of its frames take.
    pub counts: Option<CountCosts>,
    /// What it cost on each node.
    pub stats: Option<Vec<NodeRow>>,
    /// What was done otherwise than asked.
    pub notes: Option<Vec<String>>,
    /// `clean`, or what the recounting found.
    pub audit: Option<String>,
    /// How long it took to bring it online.
    #[serde(rename = "online_ns", serialize_with = "nanoseconds")]
    pub online: Option<Duration>,
    /// How long it took to take it offline.
    #[serde(rename = "offline_ns", serialize_with = "nanoseconds")]
    pub offline: Option<Duration>,
    /// What was left after that.
    pub after_offline: AfterOffline,
    /// Why it was not done.
    pub error: Option<Failure>,
    /// What was left after the error.
    pub after_error: Option<AfterError>,
}

/// Frames that memory's descriptors cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Distinct frames with descriptors, and those in which an altmap counts them.
    pub descriptors: Option<u64>,
    /// How many of these hold packed heads.
    pub heads: Option<u64>,
    /// Tables whose entries are leaves of base pages.
    pub leaf_tables: Option<u64>,
    /// Tables between these and the root.
    pub upper_tables: Option<u64>,
    /// How many of the descriptor frames came from the altmap.
    pub altmap: Option<u64>,
    /// Descriptor frames and tables.
    pub total: Option<u64>,
}

impl Frames {
    /// What an audit has counted, while `altmap` frames of the altmap were used.
    pub fn of(counted: &AuditReport, altmap: u64) -> Self {
        Self {
            descriptors: Some(counted.descriptor_frames + counted.count_frames),
            heads: Some(counted.head_frames),
            leaf_tables: Some(counted.leaf_tables),
            upper_tables: Some(counted.upper_tables),
            altmap: Some(altmap),
            total: Some(counted.frames()),
        }
    }
}

/// What is left when everything is offline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AfterOffline {
    /// Frames of RAM and the altmap that are out.
    pub frames: Option<u64>,
}

/// What is left after an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AfterError {
    /// Frames of RAM and the altmap that are out.
    pub frames: u64,
    /// `clean`, or what the recounting found.
    pub audit: String,
}

impl AfterError {
    /// After an error before there was a machine.
    pub fn nothing_done() -> Self {
        Self {
            frames: 0,
            audit: CLEAN.to_owned(),
        }
    }
}

/// What an audit says that has found nothing.
pub const CLEAN: &str = "clean";

impl Report {
    /// What is known before anything is done.
    pub fn new(request: &Request) -> Self {
        Self {
            backend: request.backend.name(),
            ranges: request.ranges.clone(),
            align: request.align.to_string(),
            frame_bytes: request.backend.model().granule().bytes(),
            heads: None,
            tails: None,
            tables: None,
            altmap_reserved_bytes: None,
            frames: Frames::default(),
            flat_frames: None,
            saved_percent: None,
            reused_entries: None,
            counts: None,
            stats: None,
            notes: None,
            audit: None,
            online: None,
            offline: None,
            after_offline: AfterOffline::default(),
            error: None,
            after_error: None,
        }
    }

    /// Enters what an audit has counted while the region was online, and how many frames of the
    /// altmap were used.
    pub fn enter_counts(&mut self, counted: &AuditReport, altmap: u64) {
        self.frames = Frames::of(counted, altmap);
        // Packed heads are no part of the array: each page of theirs has a frame of its own.
        self.flat_frames = Some(counted.mapped_pages - counted.head_frames);
        self.saved_percent = saved_percent(self.frames.total, self.flat_frames);
        self.reused_entries = Some(counted.reused_entries());
    }

    /// Enters where heads were, and how tails and tables were shared.
    pub fn enter_policies(&mut self, heads: Heads, tails: Tails, tables: Tables) {
        self.heads = Some(heads_name(heads));
        self.tails = Some(tails_name(tails));
        self.tables = Some(tables_name(tables));
    }

    /// Whether everything was done and nothing wrong was found.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.audit.as_deref() == Some(CLEAN)
    }

    /// The bytes of memory that were asked for.
    pub fn bytes(&self) -> u64 {
        let sizes = self.ranges.iter().map(|range| range.size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// How much less than `of` the frames `total` are, in percent, rounded to four digits.
pub(crate) fn saved_percent(total: Option<u64>, of: Option<u64>) -> Option<f64> {
    let (total, of) = (total?, of.filter(|of| *of > 0)?);
    let saved = 100.0 * (1.0 - total as f64 / of as f64);
    // Zero is added so that there is no -0.
    Some((saved * 10_000.0).round() / 10_000.0 + 0.0)
}

pub(crate) fn nanoseconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let time = time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    time.serialize(serializer)
}
