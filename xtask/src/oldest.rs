//! The library with the oldest dependencies that it says it takes.
//!
//! A kernel's `Cargo.lock` may have any version that `Cargo.toml` allows. Here the newest are tested; this
//! compiles with the oldest.

use crate::toolchain::{cargo, root};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// A crate of the library's with a dependency in its public interface, the oldest version of that, and
/// what a user does with both.
const OLDEST: (&str, &str, &str, &str) = (
    "arch-x86_64",
    "x86_64",
    "0.15.0",
    "pub use arch_x86_64::{Cpu, Frames4K, engine_over};\n",
);

/// What it is called.
pub(crate) fn name() -> String {
    let (_, dependency, version, _) = OLDEST;
    format!("{dependency} {version}")
}

/// Compiles for this machine, below `directory`.
///
/// # Errors
///
/// Where it does not compile.
pub(crate) fn check(directory: &Path) -> Result<()> {
    let user = tempfile::tempdir().context("no temporary directory")?;
    fs::write(user.path().join("Cargo.toml"), manifest(&root()))?;
    let (.., code) = OLDEST;
    fs::create_dir(user.path().join("src"))?;
    fs::write(
        user.path().join("src/lib.rs"),
        format!("#![no_std]\n{code}"),
    )?;
    let status = cargo()
        .args(["check", "--quiet", "--manifest-path"])
        .arg(user.path().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(directory.join("oldest"))
        .status()
        .context("cargo does not start")?;
    ensure!(
        status.success(),
        "{} does not compile with {}",
        OLDEST.0,
        name()
    );
    Ok(())
}

/// The manifest of a crate that uses both.
fn manifest(root: &Path) -> String {
    let (of, dependency, version, _) = OLDEST;
    let path = root.join(of);
    format!(
        "[workspace]\n\
         [package]\nname = \"oldest\"\nedition = \"2024\"\n\
         [dependencies]\n\
         {of} = {{ path = {path:?} }}\n\
         {dependency} = {{ version = \"={version}\", default-features = false }}\n"
    )
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
