//! The process around [`explorer::run`].

mod bar;

use bar::Bar;
use explorer::{Console, host, screen};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = std::env::var("COLUMNS").ok();
    let terminal = terminal_size::terminal_size().map(|(width, _)| width.0);
    let mut stdout = io::stdout().lock();
    let mut stderr = io::stderr();
    let mut console = Console {
        stdout: &mut stdout,
        stderr: &mut stderr,
        progress: &Bar::default(),
        columns: screen::columns(environment.as_deref(), terminal),
    };
    ExitCode::from(explorer::run(
        std::env::args_os(),
        &host::limits(),
        &mut console,
    ))
}
