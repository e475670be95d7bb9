//! The nightly toolchain: what needs unstable options of the compiler is built with it.

use crate::requirement::find_program;
use crate::toolchain::root;
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// A nightly toolchain that rustup has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nightly {
    /// What rustup calls it.
    toolchain: String,
    /// The target that it compiles for if it is not told otherwise.
    host: String,
}

impl Nightly {
    /// The first one that rustup lists.
    ///
    /// # Errors
    ///
    /// Where there is none; says how to get one.
    pub(crate) fn find() -> Result<Self> {
        ensure!(
            find_program("rustup").is_some(),
            "this needs a nightly toolchain by way of rustup, which is not installed; get it from \
             https://rustup.rs, then run `{INSTALL}`"
        );
        let toolchains = answer(Command::new("rustup").args(["toolchain", "list"]))?;
        let toolchain = nightly_of(&toolchains)
            .with_context(|| {
                format!("this needs a nightly toolchain, and rustup has none; run `{INSTALL}`")
            })?
            .to_owned();
        let version = answer(run(&toolchain, "rustc").arg("-vV"))?;
        let host = host_of(&version)
            .context("rustc -vV names no host")?
            .to_owned();
        Ok(Self { toolchain, host })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Its Cargo, to do something with the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = run(&self.toolchain, "cargo");
        command
            // What is meant for the other toolchain.
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTDOC");
        command
    }
}

const INSTALL: &str = "rustup toolchain install nightly";

/// A program of `toolchain`'s.
fn run(toolchain: &str, program: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, program])
        .current_dir(root());
    command
}

/// What a program prints.
fn answer(command: &mut Command) -> Result<String> {
    let output = command.output().context("rustup does not start")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "rustup: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first nightly toolchain in what `rustup toolchain list` prints.
fn nightly_of(toolchains: &str) -> Option<&str> {
    let mut names = toolchains.lines().filter_map(|line| line.split(' ').next());
    names.find(|name| name.split('-').next() == Some("nightly"))
}

/// The host in what `rustc -vV` prints.
fn host_of(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_toolchain_is_found_whatever_its_date() {
        let toolchains = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                          nightly-2026-05-19-x86_64-unknown-linux-gnu\n\
                          nightly-x86_64-unknown-linux-gnu (default)\n";
        assert_eq!(
            nightly_of(toolchains),
            Some("nightly-2026-05-19-x86_64-unknown-linux-gnu")
        );
        let only = "nightly-x86_64-unknown-linux-gnu (active, default)\n";
        assert_eq!(nightly_of(only), Some("nightly-x86_64-unknown-linux-gnu"));
        for none in ["", "no installed toolchains\n", "stable-x86_64 (active)\n"] {
            assert_eq!(nightly_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_host_is_read_from_what_the_compiler_says() {
        let version = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                       host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\n";
        assert_eq!(host_of(version), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host_of("binary: rustc\n"), None);
    }
}
