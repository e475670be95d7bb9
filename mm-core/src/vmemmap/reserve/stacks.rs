//! Lists of frames for each node. They need no memory: each list is inside the frames themselves.
//!
//! ```text
//!   first ──▶ top run of a node ──beside──▶ top run of another node ──▶ ...
//!                  │ below                       │ below
//!                  ▼                             ▼
//!                 run                           run
//! ```

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::frame::DirectMap;
use core::ptr::NonNull;

/// What the first frame of a run starts with. Frames are one more than their number, 0 for none.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// The run below, of the same node.
    below: u64,
    /// How many frames this run has.
    frames: u64,
    /// Of the top run: the top run of the next node.
    beside: u64,
    /// Of the top run: the node.
    node: u64,
    /// Of the top run: how many runs and frames there are for the node.
    runs: u64,
    all: u64,
}

/// Runs of frames that nobody uses, for any number of nodes.
#[derive(Debug)]
pub(super) struct NodeStacks {
    first: Option<Pfn>,
}

const fn link(frame: Option<Pfn>) -> u64 {
    match frame {
        Some(frame) => frame.get() + 1,
        None => 0,
    }
}

fn follow(link: u64) -> Option<Pfn> {
    link.checked_sub(1).and_then(Pfn::new)
}

impl NodeStacks {
    pub(super) const fn new() -> Self {
        Self { first: None }
    }

    /// How many runs there are for `node`, and how many frames.
    pub(super) fn len<M: DirectMap>(&self, node: NodeId, memory: &M) -> (u64, u64) {
        let mut next = self.first;
        while let Some(top) = next {
            let header = self.read(top, memory);
            if header.node == u64::from(node.number()) {
                return (header.runs, header.all);
            }
            next = follow(header.beside);
        }
        (0, 0)
    }

    /// Keeps `run` for `node`.
    ///
    /// # Safety
    ///
    /// 1. The frames were allocated, `memory` reaches them now and at each later call, and nobody else
    ///    uses them until they are taken.
    pub(super) unsafe fn push<M: DirectMap>(&mut self, run: PfnRange, node: NodeId, memory: &M) {
        let number = u64::from(node.number());
        // Mostly it is the node that was served last.
        if let Some(top) = self.first {
            let old = self.read(top, memory);
            if old.node == number {
                let header = Header {
                    below: link(Some(top)),
                    frames: run.frames(),
                    runs: old.runs + 1,
                    all: old.all + run.frames(),
                    ..old
                };
                // SAFETY: 1: the caller's.
                unsafe { self.write(run.start(), header, memory) };
                self.first = Some(run.start());
                return;
            }
        }
        let old = self.detach(number, memory);
        let (below, runs, all) =
            old.map_or((None, 0, 0), |(top, old)| (Some(top), old.runs, old.all));
        let header = Header {
            below: link(below),
            frames: run.frames(),
            beside: link(self.first),
            node: number,
            runs: runs + 1,
            all: all + run.frames(),
        };
        // SAFETY: 1: the caller's.
        unsafe { self.write(run.start(), header, memory) };
        self.first = Some(run.start());
    }

    /// The first of the frames that were pushed last: at least one, at most `at_most`. They are those of
    /// `node`, or of another one if it has none.
    pub(super) fn take<M: DirectMap>(
        &mut self,
        at_most: u64,
        node: NodeId,
        memory: &M,
    ) -> Option<PfnRange> {
        let found = self.detach(u64::from(node.number()), memory);
        let (top, header) = match found {
            Some(found) => found,
            None => {
                let top = self.first?;
                self.detach(self.read(top, memory).node, memory)?
            }
        };
        let run = PfnRange::new(top, header.frames).ok()?;
        let (taken, rest) = run.take_first(at_most);
        let all = header.all.saturating_sub(taken.frames());
        let next = match rest {
            Some(rest) => {
                let frames = rest.frames();
                Some((
                    rest.start(),
                    Header {
                        frames,
                        all,
                        ..header
                    },
                ))
            }
            None => follow(header.below).map(|below| {
                let runs = header.runs.saturating_sub(1);
                let lower = self.read(below, memory);
                (
                    below,
                    Header {
                        below: lower.below,
                        frames: lower.frames,
                        runs,
                        all,
                        ..header
                    },
                )
            }),
        };
        if let Some((top, header)) = next {
            let beside = link(self.first);
            // SAFETY: 1: it was pushed and is not taken.
            unsafe { self.write(top, Header { beside, ..header }, memory) };
            self.first = Some(top);
        }
        Some(taken)
    }

    /// Shows all runs.
    pub(super) fn for_each<M: DirectMap>(&self, memory: &M, visit: &mut dyn FnMut(PfnRange)) {
        let mut next_node = self.first;
        while let Some(top) = next_node {
            next_node = follow(self.read(top, memory).beside);
            let mut next = Some(top);
            while let Some(first) = next {
                let header = self.read(first, memory);
                if let Ok(run) = PfnRange::new(first, header.frames) {
                    visit(run);
                }
                next = follow(header.below);
            }
        }
    }

    /// Takes the list of `node` out of the others: its top run, and what that says.
    fn detach<M: DirectMap>(&mut self, node: u64, memory: &M) -> Option<(Pfn, Header)> {
        let mut before: Option<(Pfn, Header)> = None;
        let mut next = self.first;
        while let Some(top) = next {
            let header = self.read(top, memory);
            next = follow(header.beside);
            if header.node != node {
                before = Some((top, header));
                continue;
            }
            match before {
                None => self.first = next,
                Some((other, found)) => {
                    let beside = link(next);
                    // SAFETY: 1: it was pushed and is not taken.
                    unsafe { self.write(other, Header { beside, ..found }, memory) };
                }
            }
            return Some((top, header));
        }
        None
    }

    /// The header of a run that is here.
    fn read<M: DirectMap>(&self, first: Pfn, memory: &M) -> Header {
        let header: NonNull<Header> = memory.frame_pointer(first).cast();
        // SAFETY: the frame was pushed and is not taken, so it is this value's (duty 1 of `push`) and
        // starts with a header. A page is larger than that, and aligned to more.
        unsafe { header.read() }
    }

    /// # Safety
    ///
    /// 1. As for [`push`](Self::push).
    unsafe fn write<M: DirectMap>(&self, first: Pfn, header: Header, memory: &M) {
        let page: NonNull<Header> = memory.frame_pointer(first).cast();
        // SAFETY: 1: a page that is this value's.
        unsafe { page.write(header) };
    }
}

#[cfg(test)]
mod tests;
