//! How to compile for a machine without an operating system, here.
//!
//! | way | what it takes |
//! |---|---|
//! | the target | a compiler whose library has the target: `rustup target add` |
//! | Debian | Debian's compiler, which builds the library from its source, also Debian's |

use crate::requirement::Requirement;
use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What brings Debian's compiler, its library's source, and the linker that the targets ask for.
const DEBIAN_PACKAGES: [&str; 5] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "lld-22",
];

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "/usr/bin/rust-lld";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/core";

/// The oldest minor version of Rust 1 that compiles the kernels.
const OLDEST_MINOR: u32 = 95;

/// A way to compile a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The compiler in use has the target.
    Target,
    /// Debian's compiler builds the library first.
    Debian,
}

/// The project's root.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// The Cargo that runs this.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The Cargo that runs this, to do something with the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_program());
    command.current_dir(root());
    command
}

/// The directory that Cargo builds below, and this writes below: by environment or configuration,
/// or `target`.
pub(crate) fn target_directory() -> Result<PathBuf> {
    // Asked where this was started, for settings may be relative to that.
    target_directory_of(Command::new(cargo_program()))
}

fn target_directory_of(mut cargo: Command) -> Result<PathBuf> {
    let output = cargo
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    ensure!(output.status.success(), "cargo metadata: {}", output.status);
    let metadata = String::from_utf8_lossy(&output.stdout);
    json_string(&metadata, "target_directory")
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// The last string with this key. All that is read of JSON here: a parser would have to be compiled
/// before everything else.
fn json_string(json: &str, key: &str) -> Option<String> {
    let key = format!("\"{key}\":\"");
    let (_, rest) = json.rsplit_once(&key)?;
    let mut characters = rest.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(
                characters
                    .next()
                    .filter(|next| matches!(next, '"' | '\\'))?,
            ),
            other => value.push(other),
        }
    }
}

/// The first way that there is on this machine.
///
/// # Errors
///
/// Where there is none.
pub(crate) fn find(target: &str) -> Result<Way, Requirement> {
    if has_target(target) {
        return Ok(Way::Target);
    }
    if has_debian() {
        return Ok(Way::Debian);
    }
    Err(Requirement {
        what: format!(
            "neither the Rust target {target} is installed nor Debian's compiler with its library's \
             source, from 1.{OLDEST_MINOR} on"
        ),
        packages: DEBIAN_PACKAGES.to_vec(),
        or: Some(format!("rustup target add {target}")),
    })
}

/// What a compiler answers, in one line.
fn ask(rustc: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(rustc)
        .args(arguments)
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn has_target(target: &str) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    ask(Path::new(&rustc), &["--print", "sysroot"]).is_some_and(|sysroot| {
        let library = Path::new(&sysroot).join("lib/rustlib").join(target);
        library.join("lib").is_dir()
    })
}

fn has_debian() -> bool {
    let all_there = [DEBIAN_RUSTC, DEBIAN_CARGO, DEBIAN_LINKER, DEBIAN_LIBRARY]
        .iter()
        .all(|file| Path::new(file).exists());
    all_there
        && ask(Path::new(DEBIAN_RUSTC), &["--version"])
            .and_then(|version| minor_version(&version))
            .is_some_and(|minor| minor >= OLDEST_MINOR)
}

/// The 96 of `rustc 1.96.0 (…)`.
fn minor_version(version: &str) -> Option<u32> {
    let number = version.strip_prefix("rustc 1.")?;
    number.split('.').next()?.parse().ok()
}

/// Builds the kernels of `packages` by `profile` for `target` below `target_directory`, and says in which directory
/// they are. What they have in common is built once. Each target has a directory of its own, so that
/// two can be built for at the same time.
pub(crate) fn build(
    packages: &[&str],
    target: &str,
    way: Way,
    profile: &str,
    target_directory: &Path,
) -> Result<PathBuf> {
    let (mut command, directory) = match way {
        Way::Target => (cargo(), "kernels"),
        Way::Debian => (debian_cargo(), "kernels-debian"),
    };
    let directory = target_directory.join(directory).join(target);
    command
        .current_dir(root().join("examples/kernels"))
        .args(["build", "--quiet", "--locked", "--profile", profile])
        .args(["--target", target, "--target-dir"])
        .arg(&directory);
    for package in packages {
        command.args(["--package", package]);
    }
    if way == Way::Debian {
        command.args([
            "-Zbuild-std=core,alloc,compiler_builtins",
            "-Zbuild-std-features=compiler-builtins-mem",
        ]);
    }
    let status = command.status().context("cargo does not start")?;
    if !status.success() {
        bail!("{} does not build ({status})", packages.join(", "));
    }
    Ok(directory.join(target).join(profile))
}

/// Debian's Cargo with Debian's compiler, which would otherwise be the one on the search path.
fn debian_cargo() -> Command {
    let mut command = Command::new(DEBIAN_CARGO);
    command
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        // What is meant for the other compiler.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_compiler_says() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some(96)
        );
        assert_eq!(minor_version("rustc 1.63.0"), Some(63));
        assert_eq!(minor_version("gcc 12"), None);
    }

    #[test]
    fn a_string_is_found_in_json_with_all_its_characters() {
        let json = r#"{"a":[{"target":"x"}],"target_directory":"/tmp/\"q\" \\ü","version":1}"#;
        let value = json_string(json, "target_directory");
        assert_eq!(value.as_deref(), Some(r#"/tmp/"q" \ü"#));
        assert_eq!(json_string(json, "version"), None);
        assert_eq!(json_string(r#"{"a":"not en"#, "a"), None);
        assert_eq!(json_string(r#"{"a":"\u0009"}"#, "a"), None);
    }

    #[test]
    fn cargo_is_asked_where_it_builds() {
        let of = |variable: &str, directory: &str| {
            let mut cargo = Command::new(cargo_program());
            cargo.env_remove("CARGO_TARGET_DIR");
            cargo.env(variable, directory).current_dir("/");
            target_directory_of(cargo).unwrap()
        };
        assert_eq!(
            of("CARGO_TARGET_DIR", "/some/where"),
            Path::new("/some/where")
        );
        assert_eq!(of("CARGO_TARGET_DIR", "here"), Path::new("/here"));
        assert_eq!(
            of("CARGO_BUILD_TARGET_DIR", "/some/b"),
            Path::new("/some/b")
        );
    }
}
