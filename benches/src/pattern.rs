//! Which frames the entries point at.

use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::paging::{GroupTails, Groups, Role, Run, RunSource};

/// The first frame that entries point at; none of them is ever accessed.
const FIRST_FRAME: u64 = 1 << 20;

/// How one frame is chosen after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Frames that follow each other.
    Distinct,
    /// Of each 2^`shift` vmemmap pages the first has a frame of its own and the others share one.
    Compound {
        /// The base-2 logarithm of the number of vmemmap pages that describe one compound page.
        shift: u32,
    },
}

impl Pattern {
    /// The frame of the entry number `index`.
    #[inline]
    pub fn frame(self, index: u64) -> Pfn {
        let number = match self {
            Self::Distinct => index,
            Self::Compound { shift } => {
                let is_head = index & ((1 << shift) - 1) == 0;
                (index >> shift) * 2 + u64::from(!is_head)
            }
        };
        Pfn::new(FIRST_FRAME + number).unwrap()
    }

    /// The longest run that starts with the entry number `index`.
    #[inline(always)]
    fn run(self, index: u64, at_most: u64) -> Run {
        let frame = self.frame(index);
        match self {
            Self::Distinct => Run::each(PfnRange::new(frame, at_most).unwrap(), Role::Descriptors),
            Self::Compound { shift } => {
                let pages = 1 << shift;
                match index & (pages - 1) {
                    0 => Run::repeat(frame, 1, Role::Descriptors),
                    offset => Run::repeat(frame, (pages - offset).min(at_most), Role::Tail),
                }
            }
        }
    }

    /// The whole groups that start with the entry number `index`, if one does.
    #[inline(always)]
    fn groups(self, index: u64, at_most: u64) -> Option<Groups> {
        let Self::Compound { shift } = self else {
            return None;
        };
        let groups = at_most >> shift;
        if groups == 0 || index & ((1 << shift) - 1) != 0 {
            return None;
        }
        Some(Groups {
            frames: PfnRange::new(self.frame(index), 2 * groups).unwrap(),
            tails: GroupTails::Own,
            pages: 1 << shift,
        })
    }
}

/// A pattern as a source of runs and groups whose frames are there already.
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

    #[inline(always)]
    fn next_run(&mut self, _: VirtAddr, pages: u64, _: Order) -> Result<Run, Self::Error> {
        let run = self.pattern.run(self.next, pages);
        self.next += run.count;
        Ok(run)
    }

    #[inline(always)]
    fn next_groups(&mut self, _: VirtAddr, pages: u64) -> Result<Option<Groups>, Self::Error> {
        let groups = self.pattern.groups(self.next, pages);
        self.next += groups.map_or(0, |groups| groups.leaves());
        Ok(groups)
    }

    fn return_unused(&mut self, run: Run) {
        self.next -= run.count;
    }
}
