//! What has to be installed: finding it, saying what brings it, installing it.

use anyhow::{Context, Result, bail};
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Something that has to be there first, and is not. Told from other errors so that a suite can
/// skip a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// What is missing, as part of a sentence.
    pub(crate) what: String,
    /// The Debian packages that bring it.
    pub(crate) packages: Vec<&'static str>,
    /// Another way to get it: what to type.
    pub(crate) or: Option<String>,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; run ", self.what)?;
        if let Some(other) = &self.or {
            write!(f, "`{other}` or ")?;
        }
        let packages = self.packages.join(" ");
        write!(f, "`apt-get install --no-install-recommends {packages}`")
    }
}

impl std::error::Error for Requirement {}

/// Where the program `name` is, if it is anywhere on the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Where the program `name` is, which the Debian package `package` brings.
///
/// # Errors
///
/// Where it is nowhere.
pub(crate) fn need_program(name: &str, package: &'static str) -> Result<PathBuf, Requirement> {
    find_program(name).ok_or_else(|| Requirement {
        what: format!("{name} is not installed"),
        packages: vec![package],
        or: None,
    })
}

/// Installs all of what `missing` says at once, and says which packages that took.
///
/// # Errors
///
/// Where that does not work, or something is missing still.
pub(crate) fn install(missing: impl Fn() -> Vec<Requirement>) -> Result<Vec<&'static str>> {
    let packages = packages(&missing());
    if packages.is_empty() {
        return Ok(packages);
    }
    eprintln!("installing {}", packages.join(" "));
    apt_get(&["-qq", "update"])?;
    let mut arguments = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments)?;
    if let Some(still) = missing().first() {
        bail!("apt-get has installed {}, but {still}", packages.join(" "));
    }
    Ok(packages)
}

/// What brings all of `missing`, each package once.
fn packages(missing: &[Requirement]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for &package in missing.iter().flat_map(|one| &one.packages) {
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_parts_need_is_installed_once() {
        let emulator = need_program("no-such-program", "one").unwrap_err();
        let compiler = Requirement {
            packages: vec!["two", "three"],
            ..emulator.clone()
        };
        let missing = [emulator.clone(), compiler.clone(), emulator, compiler];
        assert_eq!(packages(&missing), ["one", "two", "three"]);
        assert_eq!(packages(&[]), [""; 0]);
    }

    #[test]
    fn where_nothing_is_missing_nothing_is_installed() {
        assert_eq!(install(Vec::new).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        let mut missing = need_program("no-such-program", "one").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no-such-program is not installed; run `apt-get install --no-install-recommends one`"
        );
        missing.or = Some("make it".to_owned());
        assert!(missing.to_string().contains("; run `make it` or `apt-get "));
    }
}
