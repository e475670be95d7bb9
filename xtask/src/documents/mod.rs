//! What README and book say that can be compared with the project itself.
//!
//! - `commands`: each command that they name, and what runs it;
//! - here: errors, and what examples look like.

mod commands;

use crate::toolchain::root;
use std::collections::BTreeSet;
use std::fs;

fn read(file: &str) -> String {
    let read = fs::read_to_string(root().join(file));
    read.unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The errors, notes and reasons that the library's users can meet.
fn variants() -> BTreeSet<(String, String)> {
    let endings = ["Error", "Note", "Fallback", "Misconfigured"];
    let files = fs::read_dir(root().join("docs/api")).unwrap();
    let mut variants = BTreeSet::new();
    for file in files {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let Some(path) = line.strip_prefix("variant ") else {
                continue;
            };
            let path = path.split([' ', '(']).next().unwrap_or(path);
            let mut names = path.rsplit("::");
            let (Some(variant), Some(of)) = (names.next(), names.next()) else {
                continue;
            };
            if endings.iter().any(|ending| of.ends_with(ending)) {
                variants.insert((of.to_owned(), variant.to_owned()));
            }
        }
    }
    variants
}

#[test]
fn the_book_says_what_to_do_about_every_error_and_note() {
    let chapter = read("docs/book/errors.md");
    // A table is about the type that its heading names.
    let mut said = BTreeSet::new();
    let mut of = String::new();
    for row in chapter.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cell = row.split(" |").next().unwrap_or(row);
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        if row.contains("what to do") {
            of = names
                .first()
                .map_or(String::new(), |name| (*name).to_owned());
            continue;
        }
        for name in names {
            let (of, variant) = name.split_once("::").unwrap_or((&of, name));
            said.insert((of.to_owned(), variant.to_owned()));
        }
    }
    let missing: Vec<_> = variants()
        .into_iter()
        .filter(|(of, variant)| !said.contains(&(of.clone(), variant.clone())))
        .map(|(of, variant)| format!("{of}::{variant}"))
        .collect();
    assert!(missing.is_empty(), "docs/book/errors.md lacks {missing:?}");
}

/// The lines of `file` without comments and empty ones.
fn lines_of_code(file: &str) -> usize {
    let text = read(file);
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    text.lines().filter(is_code).count()
}

#[test]
fn the_book_shows_the_files_of_the_example_and_counts_the_lines_of_glue() {
    let chapter = read("docs/book/embedding.md");
    for name in ["glue.rs", "first_steps.rs"] {
        let file = read(&format!("examples/embed-x86_64-crate/src/{name}"));
        assert!(
            chapter.contains(&format!("```rs\n{file}```\n")),
            "docs/book/embedding.md shows another {name} than examples/embed-x86_64-crate has"
        );
    }
    for (kernel, words) in [
        ("embed-x86_64-crate", "lines without comments"),
        ("embed-own-table", "lines, most of them"),
    ] {
        let lines = lines_of_code(&format!("examples/{kernel}/src/glue.rs"));
        let says = format!("{lines} {words}");
        assert!(chapter.contains(&says), "{kernel}: {says}");
    }
}
