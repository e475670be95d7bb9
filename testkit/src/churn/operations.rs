//! What is done in a world, what the model says to it, and whether that is what happens.

use super::Churn;
use mm_core::addr::{NodeId, PfnRange, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use std::ops::Range;

/// One of how many operations brings about what chance seldom does.
const SELDOM: u32 = 1 << 10;

/// What an operation has to answer.
pub(super) type Expected = Result<(), ErrorKind>;

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Does something.
    pub(super) fn act(&mut self) -> Result<(), String> {
        if self.rng.u8(..8) == 0 {
            self.arm();
        }
        let seldom = self.rng.u32(..SELDOM);
        let done = match self.rng.u8(..100) {
            _ if seldom == 0 => self.shared_table_act(),
            _ if seldom == 1 => self.gap_act(),
            0..=7 => self.online(),
            8..=14 => self.offline(),
            15..=28 => self.populate(),
            29..=41 => self.depopulate(),
            42..=47 => self.fold(),
            48..=53 => self.unfold(),
            54..=55 => self.reshape(),
            56..=69 => self.reorder(),
            70 => self.reserve_act(),
            71..=76 => self.mark(),
            77..=80 => self.note(),
            81..=82 => self.wrong_arguments(),
            _ => self.device_act(),
        };
        self.disarm();
        done
    }

    /// Makes some of the next allocations fail.
    pub(super) fn arm(&mut self) {
        let frames = self.world.machine.frames();
        self.armed = true;
        match self.rng.u8(..8) {
            0..=2 => frames.fail_after(self.rng.u64(..6)),
            3 | 4 => frames.fail_nth(self.rng.u64(..12)),
            5 => frames.fail_blocks(true),
            6 => frames.fill_node(NodeId::new(self.rng.u32(..2))),
            _ => {
                frames.fill_node(NodeId::new(0));
                frames.fill_node(NodeId::new(1));
            }
        }
    }

    pub(super) fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.world.machine.frames().no_more_faults();
        }
    }

    pub(super) fn addresses(&self) -> Result<VirtRange, String> {
        let window = self.world.layout.window()?;
        let addresses = self.world.layout.model.descriptors(window);
        addresses.ok_or_else(|| "the window is outside the model".into())
    }

    /// Compares an answer with what it has to be. What may have lacked memory has to have changed
    /// nothing, and is `None`.
    pub(super) fn judge<T>(
        &mut self,
        answer: Result<T, ErrorKind>,
        expected: Expected,
    ) -> Result<Option<T>, String> {
        match (answer, expected) {
            (Ok(value), Ok(())) => Ok(Some(value)),
            (Err(kind), Err(right)) if kind == right => {
                self.tally.refused += 1;
                Ok(None)
            }
            (Err(ErrorKind::OutOfFrames), Ok(())) if self.armed => {
                self.disarm();
                self.tally.undone += 1;
                self.check_counts()
                    .map_err(|error| format!("after a failure: {error}"))?;
                for page in [self.touched.start, self.touched.end - 1] {
                    self.check_page(page)
                        .map_err(|error| format!("after a failure: {error}"))?;
                }
                Ok(None)
            }
            (answer, expected) => Err(format!(
                "the answer is {:?}, expected {expected:?}",
                answer.map(drop)
            )),
        }
    }

    /// Does `operation`, a second time if it lacked memory the first time.
    pub(super) fn attempt<T, X: Fn(&X2) -> ErrorKind, X2>(
        &mut self,
        expected: Expected,
        kind: X,
        mut operation: impl FnMut(&mut Self) -> Result<T, X2>,
    ) -> Result<Option<T>, String> {
        let was_armed = self.armed;
        let answer = operation(self).map_err(|error| kind(&error));
        match self.judge(answer, expected)? {
            None if expected.is_ok() && was_armed => {
                let answer = operation(self).map_err(|error| kind(&error));
                self.judge(answer, expected)
            }
            done => Ok(done),
        }
    }

    /// CPUs cache what is at both ends of `pages`, and beyond.
    pub(super) fn speculate(&self, pages: &Range<u64>) {
        let last = self.world.layout.pages();
        for middle in [pages.start, pages.end - 1] {
            let (from, to) = (middle.saturating_sub(2), (middle + 3).min(last));
            let frames = self.world.layout.frames(from, to - from);
            let range = frames.map(|frames| self.world.layout.model.descriptors(frames));
            if let Ok(Some(range)) = range {
                self.world.machine.cpus().fill(range);
            }
        }
    }

    fn wrong_arguments(&mut self) -> Result<(), String> {
        let memory = self.memory();
        let (policy, piece) = self.policy(memory);
        let pagemap = self.pagemap(memory, &policy, piece)?;
        let [range] = memory.ranges;
        self.touched = self.world.layout.pages_of(range);
        self.act = format!("wrong arguments for {:?} {policy:?}", self.touched);
        let odd = range.take_first(range.frames() - 1).0;
        let beyond = PfnRange::new(
            range.start(),
            range.frames() + self.world.layout.model.subsection().frames(),
        );
        let beyond = beyond.map_err(|error| error.to_string())?;
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        let answers = [
            vmemmap
                .populate(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .populate(table, &pagemap, beyond)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .depopulate(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .depopulate(table, &pagemap, beyond)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .unfold(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
        ];
        let kinds = [
            ErrorKind::Misaligned,
            ErrorKind::OutOfRange,
            ErrorKind::Misaligned,
            ErrorKind::OutOfRange,
            ErrorKind::Misaligned,
        ];
        for (answer, kind) in answers.into_iter().zip(kinds) {
            self.judge(answer, Err(kind))?;
        }
        Ok(())
    }
}
