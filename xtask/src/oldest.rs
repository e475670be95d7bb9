//! The library with the oldest dependencies that it says it takes.
//!
//! A kernel's `Cargo.lock` may have any version that `Cargo.toml` allows. The workspace's tests have the
//! newest; here those that use a dependency run with the oldest.

use crate::parts::Outcome;
use crate::suite::count_tests;
use crate::toolchain::{cargo, root};
use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::Path;

/// A crate of the library's with a dependency in its public interface, the oldest version of that, and the
/// tests of both, a file that needs no other.
const OLDEST: (&str, &str, &str, &str) = (
    "arch-x86_64",
    "x86_64",
    "0.15.0",
    "tests/contract/x86_64_crate.rs",
);

/// What it is called.
pub(crate) fn name() -> String {
    let (_, dependency, version, _) = OLDEST;
    format!("{dependency} {version}")
}

/// Compiles and tests on this machine, below `directory`.
///
/// # Errors
///
/// Where nothing can be started.
pub(crate) fn test(directory: &Path) -> Result<Outcome> {
    let user = tempfile::tempdir().context("no temporary directory")?;
    fs::write(user.path().join("Cargo.toml"), manifest(&root()))?;
    fs::create_dir(user.path().join("src"))?;
    fs::write(user.path().join("src/lib.rs"), tests(&root()))?;
    let mut command = cargo();
    command
        .args(["test", "--quiet", "--lib", "--manifest-path"])
        .arg(user.path().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(directory.join("oldest"));
    count_tests(command, io::stdout(), |_| {})
}

/// The manifest of a crate that uses both.
fn manifest(root: &Path) -> String {
    let (of, dependency, version, _) = OLDEST;
    let path_of = |name: &str| root.join(name);
    format!(
        "[workspace]\n\
         [package]\nname = \"oldest\"\nedition = \"2024\"\n\
         [lib]\ndoctest = false\n\
         [dependencies]\n\
         {of} = {{ path = {:?} }}\n\
         arch-sim = {{ path = {:?} }}\n\
         mm-core = {{ path = {:?} }}\n\
         {dependency} = {{ version = \"={version}\", default-features = false }}\n\
         [profile.dev]\ndebug = false\n",
        path_of(of),
        path_of("arch-sim"),
        path_of("mm-core"),
    )
}

/// Its source.
fn tests(root: &Path) -> String {
    let (of, .., tests) = OLDEST;
    let tests = root.join(of).join(tests);
    format!("#![cfg(test)]\n#[path = {tests:?}]\nmod tests;\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_oldest_that_the_workspace_says() {
        let (_, dependency, version, _) = OLDEST;
        let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let says = workspace.lines().find_map(|line| {
            let rest = line
                .strip_prefix(dependency)?
                .strip_prefix(" = { version = \"")?;
            rest.split('"').next()
        });
        let says = says.unwrap();
        let parts = version.split('.').collect::<Vec<_>>();
        let of_version = says.split('.').collect::<Vec<_>>();
        assert!(parts.starts_with(&of_version), "{says}, {version}");
        let rest = parts.iter().skip(of_version.len());
        assert!(
            rest.into_iter().all(|part| *part == "0"),
            "{says}, {version}"
        );
    }
}
