//! Which frames the entries point at.

use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::paging::{Role, Run, RunSource};

/// The first frame that entries point at; none of them is ever accessed.
const FIRST_FRAME: u64 = 1 << 20;

/// How one frame is chosen after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Frames that follow each other.
    Distinct,
    /// Frames of which no two neighbours follow each other: every entry is a run.
    Scattered,
    /// Of each `pages` vmemmap pages the first has a frame of its own and the others share one.
    Compound {
        /// How many vmemmap pages describe one compound page.
        pages: u64,
    },
}

impl Pattern {
    /// What is measured, with a name for each.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Distinct, "distinct"),
        (Self::Compound { pages: 4096 }, "1 GiB groups"),
        (Self::Compound { pages: 8 }, "2 MiB groups"),
        (Self::Scattered, "scattered"),
    ];

    /// The frame of the entry number `index`.
    #[inline]
    pub fn frame(self, index: u64) -> Pfn {
        let number = match self {
            Self::Distinct => index,
            // Pairs exchanged.
            Self::Scattered => index ^ 1,
            Self::Compound { pages } => {
                let first = index / pages * 2;
                if index.is_multiple_of(pages) {
                    first
                } else {
                    first + 1
                }
            }
        };
        Pfn::new(FIRST_FRAME + number).unwrap()
    }

    /// The longest run that starts with the entry number `index`.
    #[inline]
    fn run(self, index: u64, at_most: u64) -> Run {
        let frame = self.frame(index);
        match self {
            Self::Distinct => Run::each(PfnRange::new(frame, at_most).unwrap(), Role::Descriptors),
            Self::Scattered => Run::repeat(frame, 1, Role::Descriptors),
            Self::Compound { pages } => match index % pages {
                0 => Run::repeat(frame, 1, Role::Descriptors),
                offset => Run::repeat(frame, (pages - offset).min(at_most), Role::Tail),
            },
        }
    }
}

/// A pattern as a source of runs whose frames are there already.
pub struct Runs {
    pattern: Pattern,
    next: u64,
}

impl Runs {
    /// From the first entry on.
    pub const fn new(pattern: Pattern) -> Self {
        Self { pattern, next: 0 }
    }
}

impl RunSource for Runs {
    type Error = core::convert::Infallible;

    #[inline]
    fn next_run(&mut self, _: VirtAddr, pages: u64, _: Order) -> Result<Run, Self::Error> {
        let run = self.pattern.run(self.next, pages);
        self.next += run.count;
        Ok(run)
    }

    fn put_back(&mut self, run: Run) {
        self.next -= run.count;
    }
}
