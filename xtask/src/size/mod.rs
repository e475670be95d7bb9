//! How much code the library adds to a kernel.
//!
//! `examples/kernels/footprint` has each operation as a function. What a kernel gains by an operation
//! is what that function reaches, as a linker would keep it.
//!
//! - `reach`: what functions reach in an archive;
//! - `names`: what functions are called in a table.

mod names;
mod reach;

use crate::toolchain::{cargo, root, target_directory};
use anyhow::{Context, Result, bail, ensure};
use reach::{Kind, Objects, Owner, Reached};
use std::collections::BTreeMap;
use std::env::consts::{ARCH, OS};
use std::fmt::Write;
use std::fs;

/// The operations in the order in which a kernel takes them up, and their functions.
const OPERATIONS: [(&str, &[&str]); 7] = [
    (
        "online, offline",
        &["footprint_online", "footprint_offline"],
    ),
    (
        "+ populate, depopulate",
        &["footprint_populate", "footprint_depopulate"],
    ),
    ("+ fold, unfold", &["footprint_fold", "footprint_unfold"]),
    ("+ reshape", &["footprint_reshape"]),
    ("+ mark, unmark", &["footprint_mark", "footprint_unmark"]),
    ("+ stats, audit", &["footprint_stats", "footprint_audit"]),
    (
        "+ reorder, reserve",
        &[
            "footprint_reorder",
            "footprint_reserve_needed",
            "footprint_fill_reserve",
            "footprint_empty_reserve",
        ],
    ),
];

/// What is compared.
const LEVELS: [&str; 2] = ["3", "s"];

/// How many functions are listed.
const LISTED: usize = 15;

/// The widest a line may be.
const WIDTH: usize = 90;

/// What one level of optimization made of all operations.
struct Built {
    level: &'static str,
    objects: Objects,
}

/// Builds the operations and says how large they are.
///
/// # Errors
///
/// Where they do not build, or what comes of it cannot be read.
pub(crate) fn report() -> Result<String> {
    ensure!(
        OS == "linux" && matches!(ARCH, "x86_64" | "aarch64"),
        "this reads what is compiled for Linux on x86-64 or AArch64; run it there"
    );
    let built: Vec<Built> = LEVELS.into_iter().map(build).collect::<Result<_>>()?;
    let mut text = operations(&built)?;
    for one in &built {
        let all: Vec<&str> = OPERATIONS
            .iter()
            .flat_map(|(_, all)| *all)
            .copied()
            .collect();
        let reached = one.objects.reach(&all)?;
        text += "\n";
        text += &largest(one, &reached)?;
        text += &copies(one, &reached)?;
    }
    Ok(text)
}

fn build(level: &'static str) -> Result<Built> {
    let directory = target_directory()?.join("size").join(level);
    let status = cargo()
        .current_dir(root().join("examples/kernels"))
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", "footprint", "--target-dir"])
        .arg(&directory)
        // As a kernel is released; the example kernels are only tested with.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false")
        // What is meant for what runs here, such as a sanitizer, is not in a kernel.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("footprint does not build ({status})");
    }
    let archive = directory.join("release/libfootprint.a");
    let bytes = fs::read(&archive).with_context(|| archive.display().to_string())?;
    let objects = Objects::of_archive(&bytes).with_context(|| archive.display().to_string())?;
    Ok(Built { level, objects })
}

/// A row for each operation: what it adds to those before.
fn operations(built: &[Built]) -> Result<String> {
    let mut text = format!("{:24}", format!("bytes on {ARCH}"));
    for one in built {
        write!(text, "  {:<30}", format!("opt-level {}", one.level))?;
    }
    text.truncate(text.trim_end().len());
    writeln!(text)?;
    write!(text, "{:24}", "operations")?;
    for _ in built {
        write!(text, "  {:>9} {:>9} {:>9}", "code", "data", "of core")?;
    }
    writeln!(text)?;
    let mut before = vec![Sizes::default(); built.len()];
    let mut so_far = Vec::new();
    for (name, functions) in OPERATIONS {
        so_far.extend(functions);
        write!(text, "{name:24}")?;
        for (one, before) in built.iter().zip(&mut before) {
            let sizes = Sizes::of(one, &one.objects.reach(&so_far)?);
            text += &sizes.row(before);
            *before = sizes;
        }
        writeln!(text)?;
    }
    write!(text, "{:24}", "all")?;
    for all in &before {
        text += &all.row(&Sizes::default());
    }
    writeln!(text)?;
    Ok(text)
}

#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    code: u64,
    data: u64,
    /// Code and data of Rust's own library.
    core: u64,
}

impl Sizes {
    fn of(built: &Built, reached: &Reached) -> Self {
        let bytes = |owner, kind| built.objects.bytes(reached, owner, kind);
        Self {
            code: bytes(Owner::Library, Kind::Code),
            data: bytes(Owner::Library, Kind::Data),
            core: bytes(Owner::Core, Kind::Code) + bytes(Owner::Core, Kind::Data),
        }
    }

    /// What is more than `before`.
    fn row(&self, before: &Self) -> String {
        let more = |now: u64, then| grouped(now.saturating_sub(then));
        format!(
            "  {:>9} {:>9} {:>9}",
            more(self.code, before.code),
            more(self.data, before.data),
            more(self.core, before.core)
        )
    }
}

fn largest(built: &Built, reached: &Reached) -> Result<String> {
    let mut functions: Vec<_> = built
        .objects
        .functions(reached)
        .map(|(symbol, bytes)| (bytes, names::readable(symbol)))
        .collect();
    let count = functions.len();
    functions.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
    functions.truncate(LISTED);
    let mut text = format!(
        "the largest of {count} functions at opt-level {}\n",
        built.level
    );
    for (bytes, name) in functions {
        writeln!(text, "{}", cut(format!("{:>9}  {name}", grouped(bytes))))?;
    }
    Ok(text)
}

/// Functions of one name, which differ in what they are generic over: the most bytes first.
fn copies(built: &Built, reached: &Reached) -> Result<String> {
    let mut copies: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (symbol, bytes) in built.objects.functions(reached) {
        let (count, all) = copies.entry(names::readable(symbol)).or_default();
        *count += 1;
        *all += bytes;
    }
    let mut copies: Vec<_> = copies.into_iter().collect();
    copies.retain(|(_, (count, _))| *count > 1);
    copies.sort_by(|(one, (_, a)), (other, (_, b))| b.cmp(a).then_with(|| one.cmp(other)));
    let all: u64 = copies.iter().map(|(_, (_, bytes))| bytes).sum();
    let mut text = format!(
        "compiled more than once at opt-level {}: {} functions, {} bytes in all\n",
        built.level,
        copies.len(),
        grouped(all)
    );
    for (name, (count, bytes)) in copies.into_iter().take(LISTED) {
        let line = format!("{:>9}  {count} times {name}", grouped(bytes));
        writeln!(text, "{}", cut(line))?;
    }
    Ok(text)
}

/// Not longer than a line may be.
fn cut(line: String) -> String {
    match line.char_indices().nth(WIDTH) {
        None => line,
        Some(_) => line.chars().take(WIDTH - 1).chain(['…']).collect(),
    }
}

/// With a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let numbers = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        assert_eq!(cut("short".to_owned()), "short");
        assert_eq!(cut("ü".repeat(WIDTH)), "ü".repeat(WIDTH));
        assert_eq!(cut("ü".repeat(WIDTH + 1)).chars().count(), WIDTH);
        let row = Sizes::default().row(&Sizes::default());
        assert!(24 + LEVELS.len() * row.len() <= WIDTH);
    }
}
