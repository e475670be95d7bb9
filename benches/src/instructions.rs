//! How many instructions a function of a benchmark executes.
//!
//! A time depends on who else uses the machine; this does not.

use std::process::Command;

/// Runs this program again, with the environment variable `name` set to `value`, and counts the instructions
/// within the functions whose names match `function`: `None` where `valgrind` is not installed.
pub fn instructions(function: &str, name: &str, value: &str) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(program)
        .env(name, value)
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find(|line| line.contains("Collected"))?;
    line.split(':').next_back()?.trim().parse().ok()
}
