//! A machine's own RAM, online when it starts: in large pages, which become base pages block by block
//! when the first frame of a block is handed out, and beside that in base pages at once.
//!
//! ```text
//!   eager   online in base pages
//!   lazy    online in pages of 1 GiB ──▶ first frame of a block ──▶ ... ──▶ as much as is used
//!            count                        count                              count
//! ```

mod report;
mod steps;
mod text;

pub use report::{EagerReport, LazyReport, LazyWay};
pub use text::print;

use crate::args::LazyArgs;
use crate::failure::Failure;
use crate::geometry::natural;
use crate::need::{Limits, Need};
use crate::progress::Progress;
use crate::request::Request;
use crate::size::{ByteRange, ByteSize};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Heads, Piece, Tables, Tails};
use steps::Steps;

/// How many times as much RAM there is as is used if nothing is said.
const RAM_TO_USED: u64 = 16;

/// A machine's RAM, and how much of it is used.
#[derive(Clone, Copy, Debug)]
pub struct LazyRequest {
    /// The page tables.
    pub backend: BackendKind,
    /// All RAM, from address 0 on.
    pub ram: ByteSize,
    /// How much of it is handed out.
    pub used: ByteSize,
}

impl LazyRequest {
    /// What the command line asks for.
    pub fn from_args(args: &LazyArgs) -> Self {
        let LazyArgs {
            backend, ram, used, ..
        } = *args;
        let used = used.unwrap_or(ByteSize(ram.0 / RAM_TO_USED));
        Self { backend, ram, used }
    }

    /// The block that becomes base pages at a time, and the pages that RAM comes online in.
    fn sizes(&self) -> [ByteSize; 2] {
        natural(self.backend.model().granule()).map(ByteSize)
    }

    /// RAM in pages of `align`.
    fn region(&self, align: ByteSize, tails: Tails, tables: Tables) -> Request {
        Request {
            backend: self.backend,
            ranges: vec![ByteRange {
                start: 0,
                size: self.ram.0,
            }],
            align,
            heads: Heads::InPlace,
            tails: Some(tails),
            tables,
            piece: Piece::Range,
            huge_leaves: true,
            altmap: None,
            node: NodeId::new(0),
            fail_after: None,
        }
    }
}

/// Does what `request` asks for, within `limits`.
pub fn lazy(request: &LazyRequest, limits: &Limits, progress: &dyn Progress) -> LazyReport {
    let job = Job {
        request,
        limits,
        progress,
    };
    let mut report = LazyReport::new(request);
    if let Err(failure) = job.run(&mut report) {
        report.error = Some(failure);
    }
    report
}

struct Job<'a> {
    request: &'a LazyRequest,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn run(&self, report: &mut LazyReport) -> Result<(), Failure> {
        let request = self.request;
        let LazyRequest { ram, used, .. } = *request;
        if used.0 == 0 || used.0 > ram.0 {
            let message = format_args!("--used {used} is not a part of --ram {ram}");
            return Err(Failure::new(ErrorKind::OutOfRange, message));
        }
        let facts = &request.backend.facts();
        let (model, granule) = (&facts.model, facts.model.granule());
        let [block, large] = request.sizes();
        let base = ByteSize(granule.bytes());
        let large = request.region(large, Tails::PerOrder, Tables::Shared);
        let small = request.region(base, Tails::PerOrder, Tables::Shared);
        let eager = request.region(base, Tails::None, Tables::Private);
        let frames = large.in_frames(granule)?;
        let (small, eager) = (small.in_frames(granule)?, eager.in_frames(granule)?);
        let online = frames.pagemap(model, None)?;
        let changed = small.pagemap(model, None)?;
        let all = eager.pagemap(model, None)?;
        let need = Need::of(facts, &all);
        let backend = request.backend;
        steps::eager(
            backend,
            &eager,
            (&all, &need),
            self.limits,
            report,
            self.progress,
        )?;
        // Base pages of all RAM are more than there can be on the way.
        let need = need.plus(&Need::of(facts, &online));
        let block = Order::from_bytes(block.0, granule).unwrap_or(Order::BASE);
        let used = used.0.div_ceil(granule.bytes());
        let steps = Steps {
            backend,
            online: &online,
            changed: &changed,
            block,
            used: used.next_multiple_of(block.frames()),
        };
        steps.run(&frames, &need, self.limits, report, self.progress)
    }
}
