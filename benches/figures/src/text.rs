//! The figures as tables.

use crate::{Case, Contender, Figures, Op, linux};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt;

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Entries: ns for each of 262144, and as multiples of memset of the same bytes, which takes {:.3}",
            self.memset_ns
        )?;
        let meanings = Case::ALL.iter();
        let meanings = meanings.map(|case| format!("{case}: {}", case.meaning()));
        writeln!(f, "{}", meanings.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "\n{}", self.entries())?;
        match self.instructions.is_empty() {
            true => writeln!(f, "\nInstructions were not counted")?,
            false => writeln!(
                f,
                "\nInstructions per GiB, in thousands, beside those of Linux 7.3\n\n{}",
                self.counts()
            )?,
        }
        writeln!(f, "\nWhole operations\n\n{}", self.times())?;
        if !self.growth.is_empty() {
            writeln!(
                f,
                "\nA compound page in the most memory, beside one in 1 TiB\n\n{}",
                self.growth()
            )?;
        }
        write!(f, "\nDescribing memory\n\n{}", self.describing_table())
    }
}

impl Figures {
    /// A document for people.
    pub fn to_markdown(&self) -> String {
        format!("# Figures\n\nWritten by `cargo xtask bench --out`.\n\n{self}\n")
    }

    fn entries(&self) -> Table {
        let mut header = vec!["entries".to_owned()];
        header.extend(columns().map(|(case, op)| format!("{case} {op}")));
        let mut table = table(header);
        for name in Contender::ALL {
            let cells = columns().map(|(case, op)| {
                self.row(*name, case, op).map_or("-".to_owned(), |row| {
                    format!("{:.2} ({:.1})", row.ns_per_entry, row.vs_memset)
                })
            });
            table.add_row([name.to_string()].into_iter().chain(cells));
        }
        aligned(table, 1)
    }

    fn counts(&self) -> Table {
        let header = [
            "case", "piece", "frames", "online", "Linux", "offline", "Linux",
        ];
        let mut table = table(header.map(str::to_owned).to_vec());
        let thousands = |count: f64| format!("{:.1}", count / 1e3);
        for of in &self.instructions {
            let linux = linux(of.counted.case.name());
            let beside = |count: Option<f64>| count.map_or("-".to_owned(), thousands);
            table.add_row([
                of.counted.to_string(),
                of.counted.piece.to_string(),
                of.frames.to_string(),
                thousands(of.online_per_gib),
                beside(linux.map(|linux| linux.online_per_gib)),
                thousands(of.offline_per_gib),
                beside(linux.map(|linux| linux.offline_per_gib)),
            ]);
        }
        aligned(table, 1)
    }

    fn growth(&self) -> Table {
        let header = [
            "operation",
            "pages",
            "tails",
            "tables",
            "piece",
            "memory",
            "ns per page in 1 TiB",
            "ratio",
        ];
        let mut table = table(header.map(str::to_owned).to_vec());
        for of in &self.growth {
            table.add_row([
                of.operation.to_string(),
                of.case.to_string(),
                of.tails.to_string(),
                of.tables.to_string(),
                of.piece.to_string(),
                memory(of.gib),
                format!("{:.1}", of.ns_per_page),
                format!("{:.2}", of.ratio),
            ]);
        }
        aligned(table, 5)
    }

    fn times(&self) -> Table {
        let header = [
            "operation",
            "pages",
            "tails",
            "tables",
            "piece",
            "memory",
            "ms",
            "ns per page",
            "frames",
        ];
        let mut table = table(header.map(str::to_owned).to_vec());
        for of in &self.operations {
            let name = match of.cold {
                true => format!("{}, cold", of.operation),
                false => of.operation.to_string(),
            };
            table.add_row([
                name,
                of.case.to_string(),
                of.tails.to_string(),
                of.tables.to_string(),
                of.piece.to_string(),
                memory(of.gib),
                format!("{:.3}", of.ns / 1e6),
                format!("{:.1}", of.ns_per_page),
                of.frames.to_string(),
            ]);
        }
        aligned(table, 5)
    }
}

impl Figures {
    /// What describing memory takes.
    pub fn describing_table(&self) -> Table {
        let header = [
            "pages",
            "memory",
            "stores",
            "threads",
            "ms",
            "by memset",
            "gain",
            "describing",
        ];
        let mut table = table(header.map(str::to_owned).to_vec());
        for of in &self.describing {
            table.add_row([
                of.case.to_string(),
                mebibytes(of.mib),
                of.stores.to_string(),
                of.workers.to_string(),
                format!("{:.3}", of.ns / 1e6),
                format!("{:.2}", of.vs_memset),
                format!("{:.2}", of.gain),
                format!("{:.2}", of.gain_describing),
            ]);
        }
        aligned(table, 3)
    }
}

fn mebibytes(mib: u64) -> String {
    match mib {
        mib if mib >= 1024 => memory(mib / 1024),
        mib => format!("{mib} MiB"),
    }
}

fn memory(gib: u64) -> String {
    match gib {
        gib if gib >= 1024 => format!("{} TiB", gib / 1024),
        gib => format!("{gib} GiB"),
    }
}

fn columns() -> impl Iterator<Item = (Case, Op)> {
    let ops = |case: &Case| [(*case, Op::Map), (*case, Op::Unmap)];
    Case::ALL.iter().flat_map(ops)
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

/// With numbers to the right: all columns but the first `names`.
fn aligned(mut table: Table, names: usize) -> Table {
    for column in table.column_iter_mut().skip(names) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
