//! The process around [`explorer::run`].

use explorer::Console;
use explorer::need::Limits;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut stdout = io::stdout().lock();
    let mut stderr = io::stderr();
    let mut console = Console {
        stdout: &mut stdout,
        stderr: &mut stderr,
    };
    ExitCode::from(explorer::run(
        std::env::args_os(),
        &Limits::default(),
        &mut console,
    ))
}
