//! What has to be installed: finding it, saying what brings it, installing it.

use anyhow::{Context, Result, bail};
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// What to do about something missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Say so and stop.
    Refuse,
    /// Install it.
    Install,
}

/// Something that has to be there first, and is not. Told from other errors so that a suite can
/// skip a part.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    /// What is missing, as part of a sentence.
    pub(crate) what: String,
    /// How to get it: what to type.
    pub(crate) remedies: Vec<String>,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; run `{}`", self.what, self.remedies.join("` or `"))
    }
}

impl std::error::Error for Requirement {}

/// What a person types to install `packages`.
pub(crate) fn apt_command(packages: &[&str]) -> String {
    format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Where the program `name` is, if it is anywhere on the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Sees to it that the program `name` is there, which the Debian package `package` brings.
pub(crate) fn need_program(name: &str, package: &str, missing: Missing) -> Result<PathBuf> {
    if let Some(program) = find_program(name) {
        return Ok(program);
    }
    let requirement = Requirement {
        what: format!("{name} is not installed"),
        remedies: vec![apt_command(&[package])],
    };
    match missing {
        Missing::Refuse => bail!(requirement),
        Missing::Install => {
            install(&[package])?;
            find_program(name).with_context(|| format!("{package} has not brought {name}"))
        }
    }
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    apt_get(&["-qq", "update"])?;
    let mut arguments = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&arguments)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!("there is no apt-get here; install what is missing by hand");
    }
    // Without `sudo` one is the administrator, or is told so by apt-get.
    let mut command = match find_program("sudo") {
        Some(sudo) => {
            let mut command = Command::new(sudo);
            command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        }
        None => {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        }
    };
    let status = command
        .args(arguments)
        .status()
        .context("apt-get does not start")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}
