//! What came of folding and unfolding, with the keys and in the order of the JSON output.

use crate::failure::Failure;
use crate::notes;
use crate::report::{AfterError, AfterOffline, CLEAN, Frames, nanoseconds, saved_percent};
use crate::request::{Request, heads_name, tables_name, tails_name};
use crate::simulation::MachineVmemmap;
use crate::size::ByteRange;
use crate::stats::{self, NodeRow};
use mm_core::addr::Granule;
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{AuditReport, Folded, Note, Notes};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A step of what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Bringing the region online in base pages.
    Online,
    /// Folding it.
    Fold,
    /// Unfolding it.
    Unfold,
}

impl Step {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Fold => "fold",
            Self::Unfold => "unfold",
        }
    }

    /// What the region is after it.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Online => "base",
            Self::Fold => "folded",
            Self::Unfold => "unfolded",
        }
    }
}

/// What came of it. `None` is what is not known, because it did not come to that.
#[derive(Clone, Debug, Serialize)]
pub struct FoldReport {
    /// The page tables.
    pub backend: &'static str,
    /// The memory that was asked for, in the order in which it was named.
    pub ranges: Vec<ByteRange>,
    /// The size of the compound pages.
    pub align: String,
    /// The size of a frame, in bytes.
    #[serde(skip)]
    pub frame_bytes: u64,
    /// Where heads were to be.
    pub heads: Option<&'static str>,
    /// How tails were shared.
    pub tails: Option<&'static str>,
    /// How tables were shared.
    pub tables: Option<&'static str>,
    /// Bytes that are reserved for an altmap, if there is one.
    pub altmap_reserved_bytes: Option<u64>,
    /// How many compound pages were folded.
    pub compound_pages: Option<u64>,
    /// Frames in base pages, all tables below the root included.
    pub frames_base: Option<u64>,
    /// The same when folded.
    pub frames_folded: Option<u64>,
    /// The same when unfolded.
    pub frames_unfolded: Option<u64>,
    /// What base pages cost.
    pub base: Frames,
    /// What it cost when folded.
    pub folded: Frames,
    /// What it cost when unfolded.
    pub unfolded: Frames,
    /// What folding saved against base pages.
    pub saved_percent: Option<f64>,
    /// How often the CPUs were made to forget translations while folding and unfolding: once for
    /// each batch of changes, however many addresses are in it. Coming online and going offline are
    /// not counted.
    pub flushes: Option<u64>,
    /// Of these, while folding.
    pub flushes_fold: Option<u64>,
    /// Of these, while unfolding.
    pub flushes_unfold: Option<u64>,
    /// What it cost on each node, as base pages, folded and unfolded.
    pub stats: Vec<NodeRow>,
    /// What was done otherwise than asked.
    pub notes: Vec<String>,
    /// Whether huge leaves were wanted for which there were no blocks.
    #[serde(skip)]
    pub lacked_huge_leaves: bool,
    /// `clean`, or what the recounting found.
    pub audit: Option<String>,
    /// How long it took to bring it online.
    #[serde(rename = "online_ns", serialize_with = "nanoseconds")]
    pub online: Option<Duration>,
    /// How long it took to fold it.
    #[serde(rename = "fold_ns", serialize_with = "nanoseconds")]
    pub fold: Option<Duration>,
    /// How long it took to unfold it.
    #[serde(rename = "unfold_ns", serialize_with = "nanoseconds")]
    pub unfold: Option<Duration>,
    /// How long it took to take it offline.
    #[serde(rename = "offline_ns", serialize_with = "nanoseconds")]
    pub offline: Option<Duration>,
    /// What was left after that.
    pub after_offline: AfterOffline,
    /// The step that was not done, if it came to the steps.
    pub failed_step: Option<Step>,
    /// Why it was not done.
    pub error: Option<Failure>,
    /// What was left after the error, when the step had been found to have changed nothing and
    /// everything had been taken offline.
    pub after_error: Option<AfterError>,
}

impl FoldReport {
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
            compound_pages: None,
            frames_base: None,
            frames_folded: None,
            frames_unfolded: None,
            base: Frames::default(),
            folded: Frames::default(),
            unfolded: Frames::default(),
            saved_percent: None,
            flushes: None,
            flushes_fold: None,
            flushes_unfold: None,
            stats: Vec::new(),
            notes: Vec::new(),
            lacked_huge_leaves: false,
            audit: None,
            online: None,
            fold: None,
            unfold: None,
            offline: None,
            after_offline: AfterOffline::default(),
            failed_step: None,
            error: None,
            after_error: None,
        }
    }

    /// Enters where heads are, and how tails and tables are shared, when it is folded as `compound` says.
    pub(super) fn enter_policies(&mut self, compound: &DevPagemap<'_>, shares_tables: bool) {
        self.heads = Some(heads_name(compound.heads().0));
        self.tails = Some(tails_name(compound.tails().0));
        self.tables = Some(tables_name(compound.tables_on(shares_tables).0));
    }

    /// Enters what was `counted` after `step`, how many frames of the altmap were used, what the vmemmap
    /// counts itself, and how long the step took.
    pub(super) fn enter_step(
        &mut self,
        step: Step,
        counted: Option<&AuditReport>,
        altmap: u64,
        vmemmap: &MachineVmemmap<'_>,
        took: Duration,
    ) {
        let frames = counted.map_or(Frames::default(), |counted| Frames::of(counted, altmap));
        let total = frames.total;
        self.stats.extend(stats::rows(Some(step.state()), vmemmap));
        match step {
            Step::Online => {
                (self.base, self.frames_base, self.online) = (frames, total, Some(took))
            }
            Step::Fold => {
                (self.folded, self.frames_folded, self.fold) = (frames, total, Some(took));
                self.saved_percent = saved_percent(total, self.frames_base);
            }
            Step::Unfold => {
                (self.unfolded, self.frames_unfolded, self.unfold) = (frames, total, Some(took));
            }
        }
    }

    /// Enters what a fold or an unfold has done.
    pub(super) fn enter_change(&mut self, step: Step, done: &Folded) {
        let flushes = Some(done.flushes);
        match step {
            Step::Unfold => {
                self.flushes_unfold = flushes;
                self.flushes = self.flushes_fold.map(|fold| fold + done.flushes);
            }
            _ => {
                self.compound_pages = Some(done.changed);
                self.flushes_fold = flushes;
            }
        }
    }

    /// Notes what was done otherwise than asked, once.
    pub(super) fn note(&mut self, note: impl fmt::Display) {
        let note = note.to_string();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Notes what `step` has done otherwise than asked.
    pub(super) fn notes_of(&mut self, step: Step, notes: &Notes, granule: Granule) {
        for note in notes.iter() {
            self.lacked_huge_leaves |= matches!(note, Note::HugeLeavesUnavailable { .. });
            let text = notes::text(&note, granule);
            self.note(format_args!("{}: {text}", step.name()));
        }
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
