//! All figures of one run: `cargo xtask bench` builds and runs it.
//!
//! - `entries`: entries written and cleared, beside other crates;
//! - `counts`: instructions of whole operations, on a kernel's parts in `bump`;
//! - `operations`: times of whole operations;
//! - `describing`: times of describing memory, by several kinds of stores and on two threads;
//! - `plots`: the figures as SVG;
//! - `options`: what it is asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

mod bump;
#[path = "../contenders/mod.rs"]
mod contenders;
mod counts;
#[path = "../describing/mod.rs"]
mod describing;
mod entries;
mod operations;
mod options;
mod plots;

use figures::{Figures, Growth};
use options::{Extent, Format, Options};

fn main() {
    if counts::is_counted() {
        return;
    }
    let options = Options::of_arguments();
    let (memset_ns, rows) = entries::measure(options.extent.rounds());
    let instructions = match options.extent {
        Extent::Test => None,
        _ => counts::measure(),
    };
    if instructions.is_none() && options.extent != Extent::Test {
        eprintln!("instructions are not counted: `valgrind` is not installed, or stopped");
    }
    let operations = operations::measure(options.extent);
    let figures = Figures {
        memset_ns,
        rows,
        instructions: instructions.unwrap_or_default(),
        growth: Growth::of(&operations),
        operations,
        describing: describing::measure(options.extent.describing_cases(), options.extent.rounds()),
    };
    assert_eq!(figures.missing(), [""; 0]);
    if let Some(folder) = &options.out {
        std::fs::write(
            folder.join("figures.json"),
            figures.to_json().unwrap() + "\n",
        )
        .unwrap();
        std::fs::write(folder.join("figures.md"), figures.to_markdown()).unwrap();
        plots::draw(&figures, folder).unwrap();
    }
    match options.format {
        Format::Json => println!("{}", figures.to_json().unwrap()),
        Format::Table => println!("{figures}"),
    }
}
