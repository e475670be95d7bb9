//! A list of reserved frames. It needs no heap: the list is inside the frames themselves.

use super::DirectMap;
use crate::addr::{Pfn, PfnRange};
use core::ptr::NonNull;

/// What the first frame of a run starts with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// One more than the number of the first frame of the run below; 0 for none.
    below: u64,
    /// How many frames this run has.
    frames: u64,
}

/// Runs of frames that nobody uses yet, the last first.
pub(crate) struct FrameStack<'m, M> {
    direct_map: &'m M,
    top: Option<Pfn>,
}

impl<M> FrameStack<'_, M> {
    /// How many words of the first frame of a run are the stack's.
    pub(crate) const HEADER_WORDS: usize = size_of::<Header>() / size_of::<u64>();
}

impl<'m, M: DirectMap> FrameStack<'m, M> {
    pub(crate) const fn new(direct_map: &'m M) -> Self {
        Self {
            direct_map,
            top: None,
        }
    }

    /// The list that another value left behind, whose [`top`](Self::top) that was.
    ///
    /// # Safety
    ///
    /// 1. Its frames are used by nobody, and the direct map reaches them.
    pub(crate) const unsafe fn resume(direct_map: &'m M, top: Option<Pfn>) -> Self {
        Self { direct_map, top }
    }

    /// The first frame of the run that was pushed last.
    pub(crate) const fn top(&self) -> Option<Pfn> {
        self.top
    }

    /// # Safety
    ///
    /// 1. The frames were allocated, the direct map reaches them, and nobody else uses them until
    ///    they are taken.
    pub(crate) unsafe fn push(&mut self, run: PfnRange) {
        let below = self.top.map_or(0, |frame| frame.get() + 1);
        self.write(run.start(), below, run.frames());
        self.top = Some(run.start());
    }

    /// The run that was pushed last.
    pub(crate) fn pop(&mut self) -> Option<PfnRange> {
        let first = self.top?;
        // SAFETY: the frame was pushed and not taken, so it is this value's (duty 1 of `push`) and
        // starts with a header.
        let header = unsafe { self.header(first).read() };
        self.top = header.below.checked_sub(1).and_then(Pfn::new);
        PfnRange::new(first, header.frames).ok()
    }

    /// Shows all runs, those first that were pushed last.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(PfnRange)) {
        let mut next = self.top;
        while let Some(first) = next {
            // SAFETY: as for `pop`.
            let header = unsafe { self.header(first).read() };
            if let Ok(run) = PfnRange::new(first, header.frames) {
                visit(run);
            }
            next = header.below.checked_sub(1).and_then(Pfn::new);
        }
    }

    /// The first of the frames that were pushed last: at least one, at most `at_most`.
    pub(crate) fn take(&mut self, at_most: u64) -> Option<PfnRange> {
        let (taken, rest) = self.pop()?.take_first(at_most);
        if let Some(rest) = rest {
            // SAFETY: 1: they were pushed and are not taken.
            unsafe { self.push(rest) };
        }
        Some(taken)
    }

    fn header(&self, frame: Pfn) -> NonNull<Header> {
        self.direct_map.frame_pointer(frame).cast()
    }

    fn write(&self, frame: Pfn, below: u64, frames: u64) {
        // SAFETY: called by `push` only, by whose duty 1 the page is this value's; a page is larger
        // than a header and aligned to more.
        unsafe { self.header(frame).write(Header { below, frames }) };
    }
}
