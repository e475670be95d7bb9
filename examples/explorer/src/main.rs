//! The process around [`explorer::run`].

use explorer::Console;
use explorer::need::Limits;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let progress = |what: &str, done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
        if done == all {
            bar.finish_and_clear();
        }
    };
    if let Ok(style) = indicatif::ProgressStyle::with_template("{pos}/{len} {bar:30} {msg}") {
        bar.set_style(style);
    }
    let mut stdout = io::stdout().lock();
    let mut stderr = io::stderr();
    let mut console = Console {
        stdout: &mut stdout,
        stderr: &mut stderr,
        progress: &progress,
    };
    ExitCode::from(explorer::run(
        std::env::args_os(),
        &Limits::default(),
        &mut console,
    ))
}
