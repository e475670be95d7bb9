//! What the document says: the rows of its tables, under a heading for each crate.
//!
//! ```text
//! ## `mm-core`
//!
//! | `Type::function`, `Type::other` | safe   | why no argument does harm |
//! | `Type::function`                | unsafe | the numbered duties       |
//! | `Type::*`                       | plain  | what the type is          |
//! ```
//!
//! Other lines are for readers.

use super::api::Safety;
use std::fmt;

/// What a row says that its functions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A function, or a trait.
    Function(Safety),
    /// All safe functions of a type, which touch nothing.
    Plain,
    /// Neither.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(safety) => safety.fmt(f),
            Self::Plain => f.write_str("plain"),
            Self::Unknown => f.write_str("neither safe, unsafe nor plain"),
        }
    }
}

/// One name of a row.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    crate_name: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) reason: String,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Entry {
    /// Whether it is about all safe functions of a type.
    pub(super) fn is_whole_type(&self) -> bool {
        self.name.ends_with("::*")
    }

    /// Whether it accounts for `item`: by its name, or as a safe function of a whole type.
    pub(super) fn is_about(&self, item: &str, safety: Safety) -> bool {
        match self.name.strip_suffix("::*") {
            Some(of) => {
                safety == Safety::Safe && item.split_once("::").is_some_and(|(own, _)| own == of)
            }
            None => self.name == item,
        }
    }
}

/// All rows.
#[derive(Debug)]
pub(super) struct Tables {
    entries: Vec<Entry>,
}

impl Tables {
    /// Of the document `text`.
    pub(super) fn of(text: &str) -> Self {
        let mut entries = Vec::new();
        let mut crate_name = "";
        for (index, line) in text.lines().enumerate() {
            if let Some(heading) = line.strip_prefix("## ") {
                crate_name = quoted(heading).unwrap_or_default();
            }
            let Some((names, kind, reason)) = row(line) else {
                continue;
            };
            let kind = match kind {
                "safe" => Kind::Function(Safety::Safe),
                "unsafe" => Kind::Function(Safety::Unsafe),
                "plain" => Kind::Plain,
                _ => Kind::Unknown,
            };
            entries.extend(names.split(", ").filter_map(quoted).map(|name| Entry {
                crate_name: crate_name.to_owned(),
                name: name.to_owned(),
                kind,
                reason: reason.to_owned(),
                line: index + 1,
            }));
        }
        Self { entries }
    }

    /// What is said of the crate `name`.
    pub(super) fn entries(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.crate_name == name)
    }

    /// A line for each row under another heading than one of `crates`.
    pub(super) fn wrong_crates(&self, crates: &[&str]) -> Vec<String> {
        let wrong = |entry: &&Entry| !crates.contains(&entry.crate_name.as_str());
        let entries = self.entries.iter().filter(wrong);
        entries
            .map(|entry| {
                format!(
                    "wrong: line {} is under no heading of a crate: `{}`",
                    entry.line, entry.name
                )
            })
            .collect()
    }
}

/// The three cells of a row whose first one starts with a name.
fn row(line: &str) -> Option<(&str, &str, &str)> {
    let cells = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells = cells.trim_start();
    if !cells.starts_with('`') {
        return None;
    }
    let (names, rest) = cells.split_once('|')?;
    let (kind, reason) = rest.split_once('|')?;
    Some((names.trim(), kind.trim(), reason.trim()))
}

/// What is between two backticks.
fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('`')?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_crate_and_name() {
        let tables = Tables::of(
            "| `early` | safe | no crate |\n\
             ## `one`\n\
             ### Traits\n\
             | function | | why |\n\
             |---|---|---|\n\
             | `A::a`, `A::b` | safe | of `A` |\n\
             ## `two`\n\
             | `trait A` | unsafe | 1 of `A` |\n\
             | `B::*` | harmless | |\n",
        );
        let read = |name| -> Vec<(String, Kind, String, usize)> {
            tables
                .entries(name)
                .map(|entry| {
                    let Entry {
                        name, kind, reason, ..
                    } = entry.clone();
                    (name, kind, reason, entry.line)
                })
                .collect()
        };
        let (safe, of) = (Kind::Function(Safety::Safe), "of `A`".to_owned());
        assert_eq!(
            read("one"),
            [
                ("A::a".to_owned(), safe, of.clone(), 6),
                ("A::b".to_owned(), safe, of, 6),
            ]
        );
        let two = read("two");
        assert_eq!(two[0].1, Kind::Function(Safety::Unsafe));
        assert_eq!((two[1].1, two[1].2.as_str()), (Kind::Unknown, ""));
        let wrong = tables.wrong_crates(&["one", "two"]);
        assert_eq!(
            wrong,
            ["wrong: line 1 is under no heading of a crate: `early`"]
        );
    }
}
