//! `docs/soundness.md` against the public API: each function is in its tables, none that is gone, and
//! each as what it is, safe or unsafe.
//!
//! - `api`: the public functions and traits of a crate, from its source;
//! - `tables`: what the document says.

mod api;
mod tables;

use crate::toolchain::root;
use anyhow::{Context, Result, ensure};
use api::Api;
use std::fs;
use tables::{Entry, Kind, Tables};

/// The document, from the project's root.
const DOCUMENT: &str = "docs/soundness.md";

/// The crates that a kernel is built with. What is hosted only has no page tables to corrupt.
const CRATES: [&str; 4] = ["mm-core", "arch-x86_64", "arch-aarch64", "arch-riscv64"];

/// Compares the document with the sources. Says how many functions and traits it accounts for.
///
/// # Errors
///
/// Where they differ: a line for each difference.
pub(crate) fn check() -> Result<usize> {
    let text = fs::read_to_string(root().join(DOCUMENT)).context(DOCUMENT)?;
    let tables = Tables::of(&text);
    let mut lines = tables.wrong_crates(&CRATES);
    let mut accounted = 0;
    for name in CRATES {
        let api = Api::of_crate(&root().join(name)).context(name)?;
        lines.extend(differences(name, &api, &tables));
        accounted += api.iter().count();
    }
    let count = lines.len();
    ensure!(
        lines.is_empty(),
        "{DOCUMENT} and the public API differ in {count} places:\n{}",
        lines.join("\n")
    );
    Ok(accounted)
}

/// What the tables say of the crate `name` otherwise than its `api`.
fn differences(name: &str, api: &Api, tables: &Tables) -> Vec<String> {
    let mut lines = Vec::new();
    for (item, safety, file) in api.iter() {
        let entries = tables.entries(name);
        let entries: Vec<&Entry> = entries
            .filter(|entry| entry.is_about(item, safety))
            .collect();
        match entries.as_slice() {
            [] => lines.push(format!("missing: {name}: `{item}` ({safety}, {file})")),
            [entry] if !entry.is_whole_type() && entry.kind != Kind::Function(safety) => {
                lines.push(format!(
                    "changed: {name}: `{item}` is {safety} in {file}, and {} in line {}",
                    entry.kind, entry.line
                ));
            }
            [_] => {}
            [_, second, ..] => lines.push(format!(
                "twice: {name}: `{item}` is accounted for again in line {}",
                second.line
            )),
        }
    }
    for entry in tables.entries(name) {
        if !api
            .iter()
            .any(|(item, safety, _)| entry.is_about(item, safety))
        {
            lines.push(format!(
                "gone: {name}: there is no public `{}`, which line {} names",
                entry.name, entry.line
            ));
        }
        if entry.is_whole_type() != (entry.kind == Kind::Plain) {
            lines.push(format!(
                "wrong: {name}: line {} says that `{}` is {}; whole types are plain, and nothing else is",
                entry.line, entry.name, entry.kind
            ));
        }
        if entry.reason.is_empty() {
            lines.push(format!(
                "wrong: {name}: line {} does not say why",
                entry.line
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_accounts_for_every_public_function_and_no_other() {
        let accounted = check().unwrap_or_else(|error| panic!("{error:#}"));
        assert!(accounted > 0);
    }

    const SOURCE: &str = "
        pub fn free() {}
        pub struct Table;
        impl Table {
            pub const fn root(&self) -> u64 { 0 }
            pub unsafe fn new() -> Self { Self }
            fn private(&self) {}
        }
        pub unsafe trait Mmu {
            fn flush(&self);
        }
        pub struct Value;
        impl Value {
            pub fn get(&self) -> u64 { 0 }
            pub fn set(&mut self) {}
        }
    ";

    const DOCUMENT: &str = "
## `core`

| function | | why |
|---|---|---|
| `free` | safe | it does nothing |
| `Table::root` | safe | a number |
| `Table::new` | unsafe | 1 one table |
| `trait Mmu` | unsafe | 1 flushes |
| `Mmu::flush` | safe | never too often |
| `Value::*` | plain | a value |
";

    /// The differences with `from` in the document made `to`.
    fn with(from: &str, to: &str) -> Vec<String> {
        assert!(DOCUMENT.contains(from), "{from}");
        let tables = Tables::of(&DOCUMENT.replace(from, to));
        differences("core", &Api::of_source(SOURCE).unwrap(), &tables)
    }

    /// Asserts that there is one difference, which starts with `start`.
    fn assert_one(lines: &[String], start: &str) {
        let [line] = lines else {
            panic!("{start}: {lines:?}");
        };
        assert!(line.starts_with(start), "{start}: {line}");
    }

    #[test]
    fn a_document_that_is_right_is_taken() {
        assert_eq!(with("", ""), [""; 0]);
    }

    #[test]
    fn a_function_that_is_missing_is_named() {
        for (row, start) in [
            (
                "| `free` | safe | it does nothing |\n",
                "missing: core: `free` (safe",
            ),
            (
                "| `Table::new` | unsafe | 1 one table |\n",
                "missing: core: `Table::new` (unsafe",
            ),
            (
                "| `trait Mmu` | unsafe | 1 flushes |\n",
                "missing: core: `trait Mmu` (unsafe",
            ),
            (
                "| `Mmu::flush` | safe | never too often |\n",
                "missing: core: `Mmu::flush` (safe",
            ),
        ] {
            assert_one(&with(row, ""), start);
        }
    }

    #[test]
    fn a_function_that_is_gone_is_named() {
        let row = "| `free` | safe | it does nothing |\n";
        for (name, kind) in [
            ("Table::private", "safe"),
            ("freed", "safe"),
            ("trait Table", "unsafe"),
            ("Tables::*", "plain"),
        ] {
            let more = format!("{row}| `{name}` | {kind} | none |\n");
            assert_one(
                &with(row, &more),
                &format!("gone: core: there is no public `{name}`"),
            );
        }
    }

    #[test]
    fn a_function_that_changed_between_safe_and_unsafe_is_named() {
        assert_one(
            &with("| `free` | safe", "| `free` | unsafe"),
            "changed: core: `free` is safe",
        );
        assert_one(
            &with("| `Table::new` | unsafe", "| `Table::new` | safe"),
            "changed: core: `Table::new` is unsafe",
        );
        assert_one(
            &with("| `trait Mmu` | unsafe", "| `trait Mmu` | safe"),
            "changed: core: `trait Mmu` is unsafe",
        );
    }

    #[test]
    fn a_whole_type_stands_for_its_safe_functions_only() {
        let (safe, new) = (
            "| `Table::root` | safe | a number |\n",
            "| `Table::new` | unsafe | 1 one table |\n",
        );
        let whole = "| `Table::*` | plain | a value |\n";
        assert_eq!(with(safe, whole), [""; 0]);
        assert_one(
            &with(&[safe, new].concat(), whole),
            "missing: core: `Table::new` (unsafe",
        );
        assert_one(
            &with("| `Value::*` | plain", "| `Value::*` | safe"),
            "wrong: core: line 11",
        );
    }

    #[test]
    fn what_is_accounted_for_twice_is_named() {
        let row = "| `free` | safe | it does nothing |\n";
        assert_one(&with(row, &row.repeat(2)), "twice: core: `free`");
        let more = format!("{row}| `Value::get` | safe | a number |\n");
        assert_one(&with(row, &more), "twice: core: `Value::get`");
    }

    #[test]
    fn a_row_says_why() {
        assert_one(
            &with("| it does nothing |", "| |"),
            "wrong: core: line 6 does not say why",
        );
    }
}
