//! What is asked for. `cargo xtask bench` has checked it; this only reads it again.

use super::describing;
use figures::Pages;
use std::path::PathBuf;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Each thing once, to see that it works: `cargo test --benches`.
    Test,
    /// In a few minutes.
    Quick,
    /// All.
    Full,
}

impl Extent {
    /// How often entries are written and cleared by each contender.
    pub(crate) const fn rounds(self) -> usize {
        match self {
            Self::Test => 1,
            Self::Quick => 20,
            Self::Full => 200,
        }
    }

    /// Which memory is described.
    pub(crate) const fn describing_cases(self) -> &'static [(Pages, u64)] {
        match self {
            // Little of it.
            Self::Test => &[(Pages::Size4K, 128)],
            Self::Quick | Self::Full => &describing::CASES,
        }
    }
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) extent: Extent,
    pub(crate) format: Format,
    /// Where plots and JSON are written.
    pub(crate) out: Option<PathBuf>,
}

impl Options {
    pub(crate) fn of_arguments() -> Self {
        let mut options = Self {
            extent: Extent::Full,
            format: Format::Table,
            out: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--test" => options.extent = Extent::Test,
                "--quick" => options.extent = Extent::Quick,
                "--json" => options.format = Format::Json,
                "--out" => options.out = arguments.next().map(PathBuf::from),
                // Cargo's.
                "--bench" => {}
                other => panic!("{other}: `cargo xtask bench --help` says what there is"),
            }
        }
        options
    }
}
