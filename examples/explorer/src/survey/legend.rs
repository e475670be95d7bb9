//! What the words of the tables mean.

use super::Backend;
use super::cases::{FOLDED_BYTES, MOST, MOST_FOLDED_BYTES, MOST_WITHOUT_TABLES, descriptor_bytes};
use crate::screen::print_wrapped;
use crate::size::{ByteSize, rounded};
use hosted::BackendKind;
use mm_core::pagemap::Tails;
use std::io::{self, Write};

/// How far explanations are indented.
const INDENT: usize = 14;

/// Words and what they mean.
const WORDS: &[(&str, &str)] = &[
    (
        "pages",
        "What the memory is used in: base pages, or compound pages of this size (--align). A compound page is a head and tails.",
    ),
    (
        "tails",
        "What the descriptors of tails share (--tails). none: nothing, each has memory of its own. per-compound: one frame for each compound page. per-order: one read-only frame for all compound pages of a size on a NUMA node. packed: the same, and heads lie side by side in an array of their own (--heads packed).",
    ),
    (
        "leaves",
        "The page-table entries that map the array of descriptors (the vmemmap): what each of them maps. shared: leaf tables that are all tails are linked from many places instead of copied (--tables shared).",
    ),
    ("descr. frames", "Frames that hold descriptors."),
    (
        "table frames",
        "Frames that are page tables for them: leaf tables, and the tables above these up to the root.",
    ),
    (
        "left in RAM",
        "What descriptors and tables take of RAM for each GiB brought online.",
    ),
    (
        "altmap",
        "A part of the device that holds the device's own descriptors (--altmap auto). What is there is not taken of RAM.",
    ),
    (
        "saved",
        "Against the flat array: a descriptor for each frame, 64 bytes, and no tables; in the table with 'frames before', against these. Frames of an altmap are not saved. It is below zero where nothing is shared, since tables, and frames in which an altmap counts, come on top of the flat array.",
    ),
    (
        "online in",
        "How long it took; this includes the host's zeroing of simulated RAM. So do 'folded in' and 'unfolded in'.",
    ),
    (
        "fold",
        "Sharing tails of memory that is online in base pages already; to unfold is to undo that. Unfolded, it has the frames of before.",
    ),
    (
        "frames before",
        "Frames of descriptors and tables, before folding; the next column: after it.",
    ),
    (
        "flushes",
        "How often CPUs were told to forget translations, by folding and unfolding together.",
    ),
    (
        "audit",
        "After each step, all frames and references are counted again from the page tables, and compared with what the library and the allocator say. clean: there is no difference, and nothing is left when the memory is offline again.",
    ),
];

/// Explains the tables of `backends`.
pub(super) fn print(out: &mut dyn Write, columns: usize, backends: &[Backend]) -> io::Result<()> {
    let mut explain = |word: &str, text: &str| {
        let line = format!("{word:<width$} {text}", width = INDENT - 1);
        print_wrapped(out, &line, columns, INDENT)
    };
    for (word, text) in WORDS {
        explain(word, text)?;
    }
    if backends
        .iter()
        .any(|backend| backend.kind == BackendKind::Sim)
    {
        explain(
            "oracle",
            "A plain map without page tables. The other backends are tested against it.",
        )?;
    }
    let all = || backends.iter().flat_map(|backend| &backend.online);
    if all().any(|row| row.range.size < MOST) {
        let limit = |bytes: u64| rounded(bytes as f64);
        let text = format!(
            "How much is online: at most {}, or {} on the oracle, and half of what a backend has room for. Less where descriptors would take more host memory than {}, or {} where tails are shared, or {} to be folded. No less than one page, and what one leaf describes.",
            ByteSize(MOST),
            ByteSize(MOST_WITHOUT_TABLES),
            limit(descriptor_bytes(Tails::None)),
            limit(descriptor_bytes(Tails::PerCompound)),
            limit(FOLDED_BYTES),
        );
        explain("sizes", &text)?;
    }
    if all().any(|row| row.case.tails != Tails::None) {
        explain(
            "not shown",
            &format!(
                "Compound pages that share nothing cost what base pages do. Leaf tables are shared only where the tails of one compound page fill a whole one. Pages with more than {} of descriptors are not folded.",
                rounded(MOST_FOLDED_BYTES as f64)
            ),
        )?;
    }
    Ok(())
}
