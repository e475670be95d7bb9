//! Frames that are marked, in the bitmaps beside the vmemmap.

use super::Findings;
use super::description::Described;
use super::pages::PageRun;
use arch_sim::ReadMemory;
use mm_core::addr::{Pfn, PhysAddr};

/// How many bitmaps are looked at, at most: those of 64 TiB.
const MOST_BITMAPS: u64 = 1 << 20;

/// The words before the bits: the next bitmap, the number of the block of memory, how many bits are set.
const HEADER: u64 = 3 * 8;

/// What is marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Marked frames.
    pub frames: u64,
    /// How many of them are in each run of pages.
    pub in_runs: Vec<u64>,
    /// Frames that hold the marks.
    pub bitmaps: u64,
}

impl Marked {
    /// Reads the chains of bitmaps.
    pub fn read<M: ReadMemory>(
        memory: &M,
        described: &Described,
        pages: &[PageRun],
        findings: &mut Findings,
    ) -> Self {
        let mut marked = Self {
            in_runs: vec![0; pages.len()],
            ..Self::default()
        };
        let granule = described.granule();
        let words = (1_u64 << described.mark_order) / 64;
        // The bits of a block fit its page; what says otherwise is damaged.
        if words * 8 + HEADER > granule.bytes() {
            findings.add("bitmaps of marks are larger than a page");
            return marked;
        }
        for chain in &described.mark_chains {
            let mut next = *chain;
            while let Some(frame) = next.checked_sub(1) {
                marked.bitmaps += 1;
                let word = |offset: u64| {
                    let page = Pfn::new(frame)?.base(granule).get();
                    memory.read_u64(PhysAddr::new(page.checked_add(offset)?))
                };
                let header = (word(0), word(8));
                let ((Some(following), Some(block)), true) =
                    (header, marked.bitmaps <= MOST_BITMAPS)
                else {
                    findings.add(format_args!(
                        "the bitmap of marks in frame {frame:#x} cannot be read"
                    ));
                    break;
                };
                for index in 0..words {
                    let bits = word(HEADER + index * 8).unwrap_or(0);
                    if bits == 0 {
                        continue;
                    }
                    let first = block
                        .saturating_mul(words)
                        .saturating_add(index)
                        .saturating_mul(64);
                    for bit in (0..64).filter(|bit| bits >> bit & 1 != 0) {
                        marked.add(first.saturating_add(bit), pages, findings);
                    }
                }
                next = following;
            }
        }
        marked
    }

    fn add(&mut self, frame: u64, pages: &[PageRun], findings: &mut Findings) {
        self.frames += 1;
        let index = pages
            .partition_point(|run| run.start.get() <= frame)
            .checked_sub(1);
        let run = index.and_then(|index| pages.get(index));
        let has = run.is_some_and(|run| run.end().is_none_or(|end| frame < end.get()));
        match index
            .filter(|_| has)
            .and_then(|index| self.in_runs.get_mut(index))
        {
            Some(count) => *count += 1,
            None => findings.add(format_args!("frame {frame:#x} is marked and not online")),
        }
    }
}
