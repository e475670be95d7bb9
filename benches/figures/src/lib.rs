//! What the benchmarks measure, and how it is written down.
//!
//! - [`Figures`]: all of one run, written as JSON;
//! - `growth`: what a page costs in much memory and in very much;
//! - `names`: what there is to measure: contenders, cases, operations, policies;
//! - `linux`: what Linux was measured at;
//! - `text`: the same as tables.
//!
//! A crate of its own so that it can be tested without what only benchmarks need.
#![deny(missing_docs)]

#[cfg(test)]
mod cases;
mod growth;
mod linux;
#[macro_use]
mod names;
mod describing;
mod text;

pub use describing::{Describing, Stores};
pub use growth::Growth;
pub use linux::{Linux, linux};
pub use names::{Case, Change, Contender, Counted, Frames, Op, Pages, Piece, Tables, Tails};

use serde::{Deserialize, Serialize};

/// All that one run has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Zeroing as many bytes as the entries have, in nanoseconds per entry.
    pub memset_ns: f64,
    /// Entries written and cleared, by each contender in each case.
    pub rows: Vec<Row>,
    /// Instructions of whole operations; nothing where none were counted.
    pub instructions: Vec<Instructions>,
    /// Times of whole operations.
    pub operations: Vec<Operation>,
    /// What a compound page costs in the most memory that was measured, beside what it costs in 1 TiB.
    #[serde(default)]
    pub growth: Vec<Growth>,
    /// Times of describing memory, by several kinds of stores, on one thread and two.
    #[serde(default)]
    pub describing: Vec<Describing>,
}

/// What writing or clearing entries takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// By whom.
    pub name: Contender,
    /// Which frames the entries point at.
    pub case: Case,
    /// Written or cleared.
    pub op: Op,
    /// Nanoseconds per entry.
    pub ns_per_entry: f64,
    /// As a multiple of [`Figures::memset_ns`].
    pub vs_memset: f64,
}

/// Instructions for each GiB of memory that comes online and goes offline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instructions {
    /// What is brought online, and how.
    #[serde(flatten)]
    pub counted: Counted,
    /// Which frames there were.
    pub frames: Frames,
    /// Instructions per GiB online.
    pub online_per_gib: f64,
    /// Instructions per GiB offline.
    pub offline_per_gib: f64,
}

/// What a whole operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Which.
    pub operation: Change,
    /// The pages that the memory is used in; those that it becomes.
    pub case: Pages,
    /// What tails share.
    pub tails: Tails,
    /// Whether whole tables are shared.
    pub tables: Tables,
    /// How much comes online at a time.
    pub piece: Piece,
    /// How much memory it is.
    pub gib: u64,
    /// Whether the simulated memory was untouched before: then it is the host that zeroes it.
    pub cold: bool,
    /// The median, in nanoseconds.
    pub ns: f64,
    /// The same for each compound page; base pages by the frame.
    pub ns_per_page: f64,
    /// Frames of descriptors and tables that are in use after it.
    pub frames: u64,
}

impl Figures {
    /// A row.
    pub fn row(&self, name: Contender, case: Case, op: Op) -> Option<&Row> {
        let wanted = |row: &&Row| (row.name, row.case, row.op) == (name, case, op);
        self.rows.iter().find(wanted)
    }

    /// As JSON, on lines.
    ///
    /// # Errors
    ///
    /// Where a number is none.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Of JSON.
    ///
    /// # Errors
    ///
    /// Where it is not what [`to_json`](Self::to_json) writes.
    pub fn from_json(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// What is missing of what there is to measure: rows, and counts where there are any.
    pub fn missing(&self) -> Vec<String> {
        let rows = Row::all().filter(|(name, case, op)| self.row(*name, *case, *op).is_none());
        let rows = rows.map(|row| format!("{row:?}"));
        let is_counted = |all: &(Counted, Frames)| {
            let mut of = self.instructions.iter();
            of.any(|instructions| (instructions.counted, instructions.frames) == *all)
        };
        let counted = Instructions::all().filter(|all| !is_counted(all));
        let counted = counted.map(|all| format!("{all:?}"));
        match self.instructions.is_empty() {
            true => rows.collect(),
            false => rows.chain(counted).collect(),
        }
    }
}

impl Instructions {
    /// Which there are.
    pub fn all() -> impl Iterator<Item = (Counted, Frames)> {
        let frames = Frames::ALL.iter();
        frames.flat_map(|frames| Counted::ALL.iter().map(|counted| (*counted, *frames)))
    }
}

impl Row {
    /// Which rows there are.
    pub fn all() -> impl Iterator<Item = (Contender, Case, Op)> {
        let cases = Case::ALL.iter().flat_map(|case| {
            let ops = [Op::Map, Op::Unmap];
            ops.into_iter().map(move |op| (*case, op))
        });
        cases.flat_map(|(case, op)| Contender::ALL.iter().map(move |name| (*name, case, op)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::Value;

    fn figures() -> Figures {
        let rows = Row::all().map(|(name, case, op)| Row {
            name,
            case,
            op,
            ns_per_entry: 0.5,
            vs_memset: 2.0,
        });
        let instructions = Instructions::all().map(|(counted, frames)| Instructions {
            counted,
            frames,
            online_per_gib: 7500.5,
            offline_per_gib: 2500.0,
        });
        Figures {
            memset_ns: 0.25,
            rows: rows.collect(),
            instructions: instructions.collect(),
            operations: vec![Operation {
                operation: Change::Fold,
                case: Pages::Size2M,
                tails: Tails::PerOrder,
                tables: Tables::Private,
                piece: Piece::Range,
                gib: 1,
                cold: false,
                ns: 1e6,
                ns_per_page: 1953.1,
                frames: 523,
            }],
            growth: Vec::new(),
            describing: vec![Describing {
                case: Pages::Size2M,
                mib: 128,
                stores: Stores::Streamed,
                workers: 2,
                ns: 1e6,
                vs_memset: 0.5,
                gain: 1.5,
                gain_describing: 1.75,
            }],
        }
    }

    #[test]
    fn what_is_written_can_be_read_back() {
        let figures = figures();
        let json = figures.to_json().unwrap();
        assert_eq!(Figures::from_json(&json).unwrap(), figures);
        assert!(Figures::from_json("{}").is_err());
    }

    /// Others read it: names as in the documents, and nothing nested.
    #[test]
    fn keys_and_names_are_those_of_the_documents() {
        let json: Value = serde_json::from_str(&figures().to_json().unwrap()).unwrap();
        let keys = |value: &Value| {
            let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.join(" ")
        };
        assert_eq!(
            keys(&json),
            "describing growth instructions memset_ns operations rows"
        );
        assert_eq!(
            keys(&json["describing"][0]),
            "case gain gain_describing mib ns stores vs_memset workers"
        );
        assert_eq!(
            keys(&json["rows"][0]),
            "case name ns_per_entry op vs_memset"
        );
        assert_eq!(
            keys(&json["instructions"][0]),
            "case frames offline_per_gib online_per_gib piece tables tails"
        );
        let named = |list: &str, key: &str| {
            let all = json[list].as_array().unwrap().iter();
            let mut names: Vec<&str> = all.map(|row| row[key].as_str().unwrap()).collect();
            names.sort_unstable();
            names.dedup();
            names.join(" ")
        };
        assert_eq!(
            named("rows", "name"),
            "aarch64-paging mm-core page-table-generic page_table_multiarch store-loop x86_64"
        );
        assert_eq!(named("rows", "case"), "A B C");
        assert_eq!(named("rows", "op"), "map unmap");
        assert_eq!(named("instructions", "case"), "1G 2M 4K");
        assert_eq!(
            named("instructions", "tails"),
            "none per-compound per-order"
        );
        assert_eq!(named("instructions", "tables"), "private shared");
        assert_eq!(named("instructions", "piece"), "range section");
        assert_eq!(named("instructions", "frames"), "in-order shuffled");
    }

    #[test]
    fn what_is_counted_is_what_the_kernel_counts() {
        let names = |counted: &Counted| {
            let Counted {
                case,
                tails,
                tables,
                piece,
            } = counted;
            [case.name(), tails.name(), tables.name(), piece.name()]
        };
        let all: Vec<_> = Counted::ALL.iter().map(names).collect();
        assert_eq!(all, cases::CASES);
    }

    #[test]
    fn tables_have_a_row_for_all_that_was_measured() {
        let mut figures = figures();
        let text = figures.to_markdown();
        let rows = text.lines().filter(|line| line.starts_with("| ")).count();
        // And four headers.
        assert_eq!(rows, 4 + 6 + 2 * Counted::ALL.len() + 1 + 1);
        assert!(text.contains(" 7.5 |  1282.8 |"), "{text}");
        figures.instructions.clear();
        assert!(figures.to_string().contains("were not counted"));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let mut figures = figures();
        assert_eq!(figures.rows.len(), 6 * 3 * 2);
        assert_eq!(figures.missing(), [""; 0]);
        figures.rows.swap_remove(0);
        figures.instructions.swap_remove(0);
        assert_eq!(figures.missing().len(), 2);
        // Without a program to count with, there is none.
        figures.instructions.clear();
        assert_eq!(figures.missing().len(), 1);
    }
}
