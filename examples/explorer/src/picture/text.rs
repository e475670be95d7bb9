//! A picture in a terminal.
//!
//! ```text
//!   vmemmap  [H][T][T][T][T][T][T][T] [H][T][T][T][T][T][T][T]  ... 510 more pages
//!             │  └──┴──┴──┴──┴──┴──┘   │  └──┴──┴──┴──┴──┴──┘
//!   frames   H1          T1           H2          T2
//! ```

use super::{Array, Cell, Frame, Kind, Picture, Strip};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What stands before the cells.
const MARGIN: usize = 10;

/// Draws `picture` on `out`.
///
/// # Errors
///
/// Those of `out`.
pub fn draw(out: &mut dyn Write, picture: &Picture) -> io::Result<()> {
    for panel in &picture.panels {
        writeln!(out, "{}", panel.title)?;
        for array in &panel.arrays {
            for strip in &array.strips {
                draw_strip(out, array, strip)?;
            }
        }
    }
    let mut kinds: Vec<Kind> = picture
        .panels
        .iter()
        .flat_map(|panel| &panel.arrays)
        .flat_map(|array| array.frames.iter().map(|frame| frame.kind))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        writeln!(out, "  {}: {}", kind.letter(), kind.about())?;
    }
    Ok(())
}

/// Cells that follow each other and lead to the same frame: their first columns.
struct Group {
    to: usize,
    columns: Vec<usize>,
}

fn draw_strip(out: &mut dyn Write, array: &Array, strip: &Strip) -> io::Result<()> {
    let mut line = String::new();
    let mut groups: Vec<Group> = Vec::new();
    for cell in &strip.cells {
        match cell {
            Cell::One { kind, to } => {
                let column = line.chars().count() + 1;
                line.push_str(&format!("[{}]", kind.letter()));
                match (to, groups.last_mut()) {
                    (Some(to), Some(group)) if group.to == *to => group.columns.push(column),
                    (Some(to), _) => groups.push(Group {
                        to: *to,
                        columns: vec![column],
                    }),
                    (None, _) => {}
                }
            }
            Cell::Gap { text } => line.push_str(&format!(" ... {text} ")),
            Cell::Space => line.push(' '),
        }
    }
    let names = names(&array.frames);
    let mut wires = Columns::default();
    let mut frames = Columns::default();
    for group in &groups {
        let (Some(first), Some(last)) = (group.columns.first(), group.columns.last()) else {
            continue;
        };
        for column in *first..=*last {
            let wire = match (
                column == *first,
                column == *last,
                group.columns.contains(&column),
            ) {
                (true, true, _) => '│',
                (true, false, _) => '└',
                (false, true, _) => '┘',
                (_, _, true) => '┴',
                _ => '─',
            };
            wires.put(column, &wire.to_string());
        }
        let name = names.get(group.to).map_or("", String::as_str);
        frames.put((first + last) / 2, name);
    }
    writeln!(out, "{:<MARGIN$}{}", strip.label, line.trim_end())?;
    writeln!(out, "{:<MARGIN$}{}", "", wires.0)?;
    writeln!(out, "{:<MARGIN$}{}", "frames", frames.0)
}

/// A line that is written column by column, from the left.
#[derive(Default)]
struct Columns(String);

impl Columns {
    fn put(&mut self, column: usize, text: &str) {
        let width = self.0.chars().count();
        self.0
            .extend(std::iter::repeat_n(' ', column.saturating_sub(width)));
        self.0.push_str(text);
    }
}

/// A letter for each frame, with a number where there are several of the kind.
fn names(frames: &[Frame]) -> Vec<String> {
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    let numbered: Vec<(Kind, u64)> = frames
        .iter()
        .map(|frame| {
            let count = counts.entry(frame.kind).or_default();
            *count += 1;
            (frame.kind, *count)
        })
        .collect();
    let name = |(kind, number): (Kind, u64)| match counts.get(&kind) {
        Some(1) => kind.letter().to_string(),
        _ => format!("{}{number}", kind.letter()),
    };
    numbered.into_iter().map(name).collect()
}
