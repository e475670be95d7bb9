//! All figures of one run: `cargo xtask bench` builds and runs it.
//!
//! - `entries`: entries written and cleared, beside other crates;
//! - `options`: what it is asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

#[path = "../contenders/mod.rs"]
mod contenders;
mod entries;
mod options;

use figures::Figures;
use options::{Format, Options};

fn main() {
    let options = Options::of_arguments();
    let (memset_ns, rows) = entries::measure(options.extent.rounds());
    let figures = Figures {
        memset_ns,
        rows,
        instructions: Vec::new(),
        operations: Vec::new(),
    };
    assert_eq!(figures.missing(), [""; 0]);
    match options.format {
        Format::Json => println!("{}", figures.to_json().unwrap()),
        Format::Table => println!("{figures}"),
    }
}
