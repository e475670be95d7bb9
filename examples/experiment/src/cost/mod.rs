//! What bringing memory online has to cost, by arithmetic alone.
//!
//! Shares no code with the plan, the page table or the audit: ranges and sizes in, numbers of
//! frames out.

mod device;
mod packed;

pub(crate) use device::DeviceCost;
pub(crate) use packed::{packed_cost, place_of_head};

use crate::TableShape;
use crate::case::{Case, Leaves};
use core::fmt;
use mm_core::addr::{PfnRange, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tails};

/// Frames by what they are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Frames that hold descriptors.
    pub descriptor_frames: u64,
    /// Tables of base-page leaves.
    pub leaf_tables: u64,
    /// Tables above those and below the root.
    pub upper_tables: u64,
    /// Frames in which an altmap counts.
    pub count_frames: u64,
    /// How many of all these come from an altmap, and not from RAM.
    pub altmap_frames: u64,
}

impl Cost {
    /// All of them.
    pub const fn frames(&self) -> u64 {
        self.descriptor_frames + self.leaf_tables + self.upper_tables + self.count_frames
    }

    /// Those that come from RAM.
    pub const fn ram_frames(&self) -> u64 {
        self.frames().saturating_sub(self.altmap_frames)
    }

    /// Both together.
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            descriptor_frames: self.descriptor_frames + other.descriptor_frames,
            leaf_tables: self.leaf_tables + other.leaf_tables,
            upper_tables: self.upper_tables + other.upper_tables,
            count_frames: self.count_frames + other.count_frames,
            altmap_frames: self.altmap_frames + other.altmap_frames,
        }
    }

    /// What is more here than in `before`; `None` where anything is less.
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            descriptor_frames: self
                .descriptor_frames
                .checked_sub(before.descriptor_frames)?,
            leaf_tables: self.leaf_tables.checked_sub(before.leaf_tables)?,
            upper_tables: self.upper_tables.checked_sub(before.upper_tables)?,
            count_frames: self.count_frames.checked_sub(before.count_frames)?,
            altmap_frames: self.altmap_frames.checked_sub(before.altmap_frames)?,
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptor frames, {} leaf tables, {} upper tables",
            self.descriptor_frames, self.leaf_tables, self.upper_tables
        )?;
        match self.altmap_frames {
            0 => Ok(()),
            frames => write!(f, "; {frames} from the altmap"),
        }
    }
}

impl Cost {
    /// What `case` costs while `online` is online.
    ///
    /// A leaf table and a huge leaf stand for the same span. Shared tails and tables are not those
    /// of `online`.
    pub fn of(case: &Case, online: &[Case], model: &MemoryModel, shape: &TableShape) -> Self {
        let needs_leaf_table = |case: &Case, span: u64| leaf_table_at(case, model, shape, span);
        let leaf_tables = spans_of(case, model, shape.leaf_span())
            .filter(|span| needs_leaf_table(case, *span))
            .filter(|span| !online.iter().any(|other| needs_leaf_table(other, *span)))
            .count() as u64;
        let leaf_tables = match case.shares_tables(model, shape) {
            // The one with the head, and one for all others; whole tables, which nobody else has
            // descriptors in.
            true => compound_pages(case) + shared_by(case),
            false => leaf_tables,
        };
        let upper_tables = shape
            .upper_spans()
            .map(|shift| {
                let used = |other: &Case, span: u64| {
                    spans_of(other, model, shift).any(|there| there == span)
                };
                spans_of(case, model, shift)
                    .filter(|span| !online.iter().any(|other| used(other, *span)))
                    .count() as u64
            })
            .sum();
        Self {
            descriptor_frames: descriptor_frames(case, model),
            leaf_tables,
            upper_tables,
            count_frames: 0,
            altmap_frames: 0,
        }
    }
}

/// How many vmemmap pages describe the case's memory.
pub(crate) fn vmemmap_pages(case: &Case, model: &MemoryModel) -> u64 {
    case.range.frames() * model.descriptor_bytes() / model.granule().bytes()
}

fn descriptor_frames(case: &Case, model: &MemoryModel) -> u64 {
    if case.shares_tails(model) {
        compound_pages(case) + shared_by(case)
    } else {
        vmemmap_pages(case, model)
    }
}

fn compound_pages(case: &Case) -> u64 {
    case.range.frames() / case.order.frames()
}

/// How many frames hold nothing but tails that are shared.
pub(crate) fn tail_frames(case: &Case, model: &MemoryModel) -> u64 {
    match case.shares_tails(model) {
        true => shared_by(case),
        false => 0,
    }
}

/// How many different tails there are where they are shared.
fn shared_by(case: &Case) -> u64 {
    match case.tails {
        Tails::PerOrder => 1,
        _ => compound_pages(case),
    }
}

/// The number of the span that a huge leaf or a shared table maps of which `part`, a subsection of
/// the case's range, is a part; `None` where they are mapped by a table that nobody shares.
///
/// When a part goes offline, the rest gets a table of its own there, which stays.
pub(crate) fn split_span_at(
    case: &Case,
    part: PfnRange,
    model: &MemoryModel,
    shape: &TableShape,
) -> Option<u64> {
    let span_of = |frame| Some(model.descriptor_address(frame)?.get() >> shape.leaf_span());
    let head = part.start().align_down(case.order);
    let (span, heads) = (span_of(part.start())?, span_of(head)?);
    let shared = case.shares_tables(model, shape) && span != heads;
    (shared || !leaf_table_at(case, model, shape, span)).then_some(span)
}

fn descriptors(case: &Case, model: &MemoryModel) -> Option<VirtRange> {
    model.descriptors(case.range)
}

/// The spans of 2^`shift` bytes that the case's descriptors touch, by number.
fn spans_of(case: &Case, model: &MemoryModel, shift: u32) -> core::ops::Range<u64> {
    match descriptors(case, model) {
        Some(range) => range.start().get() >> shift..(range.last().get() >> shift) + 1,
        None => 0..0,
    }
}

/// Whether a leaf table is needed for a span, rather than a huge leaf or nothing.
fn leaf_table_at(case: &Case, model: &MemoryModel, shape: &TableShape, span: u64) -> bool {
    if !spans_of(case, model, shape.leaf_span()).contains(&span) {
        return false;
    }
    let at_a_time = match case.piece {
        Piece::Subsection => model.subsection().frames(),
        Piece::Section => model.section().frames(),
        Piece::Range => case.range.frames(),
    };
    let span_bytes = 1 << shape.leaf_span();
    let huge = case.leaves == Leaves::Huge
        && !case.shares_tails(model)
        && at_a_time * model.descriptor_bytes() >= span_bytes;
    let first = span << shape.leaf_span();
    let whole = descriptors(case, model).is_some_and(|range| {
        range.start().get() <= first && first + (span_bytes - 1) <= range.last().get()
    });
    !(huge && whole)
}
