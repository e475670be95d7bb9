//! Progress on a terminal.

use explorer::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Often enough to see that something is done.
const TICK: Duration = Duration::from_millis(100);

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Bar {
    start: Instant,
    shown: RefCell<Option<ProgressBar>>,
}

impl Default for Bar {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            shown: RefCell::new(None),
        }
    }
}

impl Progress for Bar {
    fn step(&self, what: &str, done: usize, all: usize) {
        let mut shown = self.shown.borrow_mut();
        let bar = shown.get_or_insert_with(|| new_bar(self.start.elapsed()));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    }

    fn hide(&self) {
        if let Some(bar) = self.shown.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(elapsed: Duration) -> ProgressBar {
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let bar = bar.with_elapsed(elapsed);
    let template = "{spinner} {elapsed} {bar:20} {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    // One step may take long.
    bar.enable_steady_tick(TICK);
    bar
}
