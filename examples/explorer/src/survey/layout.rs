//! A table that is as narrow as its cells, with lines across it.

use std::io::{self, Write};

/// A line of a table.
enum Line<const N: usize> {
    Cells([String; N]),
    /// Text that is in no column.
    Across(String),
}

/// A table of `N` columns, of which the first `LEFT` are aligned at their left ends.
pub(super) struct Layout<const N: usize, const LEFT: usize> {
    header: [&'static str; N],
    lines: Vec<Line<N>>,
}

impl<const N: usize, const LEFT: usize> Layout<N, LEFT> {
    /// A table with a header of as many lines as its longest cell has.
    pub(super) fn new(header: [&'static str; N]) -> Self {
        Self {
            header,
            lines: Vec::new(),
        }
    }

    pub(super) fn cells(&mut self, cells: [String; N]) {
        self.lines.push(Line::Cells(cells));
    }

    pub(super) fn across(&mut self, text: String) {
        self.lines.push(Line::Across(text));
    }

    /// Prints the table, in `columns` if that is possible without leaving anything out.
    pub(super) fn print(&self, out: &mut dyn Write, columns: usize) -> io::Result<()> {
        let widths = self.widths();
        let gaps = N.saturating_sub(1);
        let all = widths.iter().sum::<usize>();
        let gap = if all + 2 * gaps <= columns { 2 } else { 1 };
        let height = self.header.iter().map(|cell| cell.lines().count()).max();
        for index in 0..height.unwrap_or(0) {
            let part = |cell: &str| cell.lines().nth(index).unwrap_or_default().to_owned();
            print_cells::<N, LEFT>(out, &self.header.map(part), &widths, gap)?;
        }
        writeln!(out, "{}", "─".repeat(all + gap * gaps))?;
        for line in &self.lines {
            match line {
                Line::Cells(cells) => print_cells::<N, LEFT>(out, cells, &widths, gap)?,
                Line::Across(text) => writeln!(out, "{text}")?,
            }
        }
        Ok(())
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.header.map(|cell| {
            let lines = cell.lines().map(|line| line.chars().count());
            lines.max().unwrap_or(0)
        });
        for line in &self.lines {
            if let Line::Cells(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        widths
    }
}

fn print_cells<const N: usize, const LEFT: usize>(
    out: &mut dyn Write,
    cells: &[String; N],
    widths: &[usize; N],
    gap: usize,
) -> io::Result<()> {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if index > 0 {
            line.push_str(&" ".repeat(gap));
        }
        match index < LEFT {
            true => line.push_str(&format!("{cell:<width$}")),
            false => line.push_str(&format!("{cell:>width$}")),
        }
    }
    writeln!(out, "{}", line.trim_end())
}
