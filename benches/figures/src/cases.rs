//! Where instructions are counted, hosted and in a kernel: of memory in which pages, with which tails and tables,
//! in which pieces. The words are those of the explorer's command line. The kernel includes this file.

/// The cases of the design's table, in its order.
pub(crate) const CASES: [[&str; 4]; 6] = [
    ["1G", "per-order", "shared", "section"],
    ["1G", "per-order", "shared", "range"],
    ["1G", "per-compound", "private", "section"],
    ["2M", "per-order", "private", "section"],
    ["2M", "per-compound", "private", "section"],
    ["4K", "none", "private", "section"],
];
