//! How many instructions memory takes to come online and to go offline.

use super::rows::Row;

/// What `cargo xtask qemu x86_64 --icount` has printed when figures were taken last.
const COUNTED: &str = include_str!("kernel.txt");

/// Rows for online and for offline. Behind an empty line are other tables.
pub fn rows() -> [Vec<Row>; 2] {
    [4, 6].map(|column| {
        COUNTED
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| row(line, column))
            .collect()
    })
}

/// The row of `line`, which has thousands in `column` and Linux's in the next one.
fn row(line: &str, column: usize) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [pages, tails, tables, piece, ..] = *words.as_slice() else {
        return None;
    };
    let number = |column: usize| {
        words
            .get(column)?
            .parse::<f64>()
            .ok()
            .map(|count| count * 1e3)
    };
    // The head of the table has no numbers.
    let ours = number(column)?;
    let tails = match tails {
        "none" => String::new(),
        tails => format!(
            ", tails {}",
            tails
                .replace("per-compound", "per compound page")
                .replace('-', " ")
        ),
    };
    let tables = if tables == "shared" {
        ", tables shared"
    } else {
        ""
    };
    let piece = if piece == "range" { ", one piece" } else { "" };
    let name = match (tails.is_empty(), tables.is_empty()) {
        (true, _) => format!("{pages} pages"),
        (_, true) => format!("{pages}{tails}"),
        (_, false) => format!("{pages}{}{tables}{piece}", tails.replace("tails ", "")),
    };
    Some(Row {
        name,
        ours,
        linux: number(column + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counted_case_is_a_row_with_linux_beside_it() {
        for rows in rows() {
            assert!(rows.len() >= 6, "{rows:?}");
            assert!(
                rows.iter()
                    .all(|row| row.ours > 0.0 && row.linux > Some(0.0))
            );
        }
    }
}
