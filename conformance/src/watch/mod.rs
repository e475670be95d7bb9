//! Looking at memory as readers find it, at every flush of what is done to it.
//!
//! ```text
//!   Session: Vmemmap with readers ──▶ WatchedTable ──▶ the harness's page table
//!                                         │ at every flush, and before each entry changes
//!                                         ▼
//!                                       Watch: a plain map of what was and what is to be
//!                                         │
//!                                         ▼
//!                                       Reader ──▶ HarnessKernel ──▶ what a CPU of the harness finds
//! ```
//!
//! - `table` passes all calls on and looks; `runs` looks between what it asks;
//! - `kernel`: how readers reach a descriptor, and what they wait for;
//! - `session`: a vmemmap with readers, and what is done with it.

mod kernel;
mod runs;
mod session;
mod table;

pub(crate) use session::{PAGES, Parts, Session, run};

use crate::outcome::{Fault, Stop, Verdict};
use core::cell::Cell;
use core::sync::atomic::Ordering;
use kernel::HarnessKernel;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Descriptor, Mask, Page};
use mm_core::model::MemoryModel;
use mm_core::readers::{NoReference, Reader, Reading};

type Frames<'w> = Reader<'w, Page<Mask>, HarnessKernel<'w>>;

/// How much memory is told apart.
const PARTS: usize = 12;

/// Memory, the pages that it is in when something begins, and those that it is to be in. `None`: offline,
/// or not all of it is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    frames: PfnRange,
    before: Option<Order>,
    after: Option<Order>,
    /// Whether nothing is done to it.
    stays: bool,
}

impl Part {
    /// Memory that nothing is done to.
    pub(crate) const fn still(frames: PfnRange, order: Option<Order>) -> Self {
        Self {
            frames,
            before: order,
            after: order,
            stays: true,
        }
    }

    /// Memory to which something is done.
    pub(crate) const fn of(frames: PfnRange, before: Option<Order>, after: Option<Order>) -> Self {
        Self {
            frames,
            before,
            after,
            stays: false,
        }
    }

    /// Makes it the way back.
    pub(crate) fn turn(&mut self) {
        core::mem::swap(&mut self.before, &mut self.after);
    }

    /// How it is when all is done.
    const fn settled(self) -> Self {
        Self::still(self.frames, self.after)
    }

    /// The page that `frame` is part of, of the order that it has or is to have.
    fn page(frame: Pfn, order: Order) -> (Pfn, Order) {
        (frame.align_down(order), order)
    }

    /// Frames by which it is looked at.
    fn samples(&self) -> [Pfn; 4] {
        let frames = self.frames.frames();
        [0, 1, frames / 2 + 1, frames - 1].map(|frame| self.frames.start().saturating_add(frame))
    }
}

/// What readers have to find, and whether they did.
pub(crate) struct Watch<'w> {
    model: MemoryModel,
    reader: Frames<'w>,
    kernel: &'w HarnessKernel<'w>,
    parts: [Cell<Option<Part>>; PARTS],
    /// Whether all pages of what changes are frozen.
    frozen: Cell<bool>,
    /// How often somebody had waited when what is done began.
    waits: Cell<u64>,
    looks: Cell<u64>,
    wrong: Cell<Option<Fault>>,
}

impl<'w> Watch<'w> {
    fn new(model: MemoryModel, reader: Frames<'w>, kernel: &'w HarnessKernel<'w>) -> Self {
        Self {
            model,
            reader,
            kernel,
            parts: [const { Cell::new(None) }; PARTS],
            frozen: Cell::new(false),
            waits: Cell::new(0),
            looks: Cell::new(0),
            wrong: Cell::new(None),
        }
    }

    /// What is to be found from now on. `frozen`: whether all pages of what changes are.
    fn expect(&self, parts: impl Iterator<Item = Part>, frozen: bool) {
        let mut parts = parts;
        self.parts.iter().for_each(|place| place.set(parts.next()));
        self.frozen.set(frozen);
        self.waits.set(self.kernel.waits());
    }

    /// What was found otherwise than it should have been.
    fn verdict(&self) -> Verdict {
        self.wrong
            .take()
            .map_or(Ok(()), |wrong| Err(Stop::Failed(wrong)))
    }

    /// Looks at all memory that is expected, or not, as a reader. The first thing that is wrong is kept.
    pub(super) fn look(&self) {
        self.looks.set(self.looks.get() + 1);
        for part in self.expected() {
            for frame in part.samples() {
                let found = self.look_at(&part, frame);
                let faulted = self
                    .kernel
                    .take_fault()
                    .map(|at| wrong("a reader does not fault", at, frame));
                if let Some(wrong) = faulted.or(found.err()) {
                    let first = self.wrong.take();
                    self.wrong.set(first.or(Some(wrong)));
                }
            }
        }
    }

    fn expected(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().filter_map(Cell::get)
    }

    fn address(&self, frame: Pfn) -> VirtAddr {
        let base = self.model.config().vmemmap_base;
        self.model.descriptor_address(frame).unwrap_or(base)
    }

    /// Looks at `frame` of `part`.
    fn look_at(&self, part: &Part, frame: Pfn) -> Result<(), Fault> {
        let reading = self.reader.enter();
        let at = self.address(frame);
        let is_gone = part.after.is_none() && self.kernel.waits() > self.waits.get();
        let is_online = reading.is_online(frame);
        let Some(page) = reading.page_of(frame) else {
            let may_be_offline = part.before.is_none() || part.after.is_none();
            let is_right = may_be_offline && !is_online;
            return holds(is_right, "what is online is found", at, frame);
        };
        holds(is_online, "a page that is found is online", at, frame)?;
        holds(
            !is_gone,
            "what went offline is not found after the wait",
            at,
            frame,
        )?;
        let orders = [part.before, part.after];
        let found = (page.first(), page.order());
        let is_one =
            |order: &Option<Order>| order.is_some_and(|order| Part::page(frame, order) == found);
        let what = "a frame is part of the page that it was in, or is to be in";
        holds(orders.iter().any(is_one), what, at, frame)?;
        let head = page.head();
        holds(!head.is_tail(), "a tail leads to a head", at, frame)?;
        let heads = self.expected().find(|part| part.frames.contains(found.0));
        let [before, after] = heads.map_or(orders, |part| [part.before, part.after]);
        let is_right = [before, after].contains(&Some(head.order()));
        holds(
            is_right,
            "the head has the order of then, or of now",
            at,
            frame,
        )?;
        let frames = page.frames();
        let whole = [frames.start(), frames.last()].map(|frame| reading.is_online(frame));
        holds(whole == [true; 2], "a page is found whole", at, frame)?;
        let begins = |order: Option<Order>| order.is_none_or(|order| found.0.is_aligned(order));
        if before.is_some() && begins(before) && begins(after) {
            let stamp = head.flags().load(Ordering::Relaxed);
            let what = "a first descriptor keeps what the kernel wrote";
            holds(stamp == stamp_of(found.0), what, at, frame)?;
        }
        if let Some(own) = page.own_descriptor() {
            let is_tail = frame != found.0;
            holds(
                own.is_tail() == is_tail,
                "only a first frame is no tail",
                at,
                frame,
            )?;
        }
        self.refers(&reading, part, frame)
    }

    /// Tries to take a reference to the page of `frame`: it is to be had of what stays, and not of what is
    /// frozen.
    // Not inlined, as what it has on the stack is not there when deeper calls look.
    #[inline(never)]
    fn refers(
        &self,
        reading: &Reading<'w, Page<Mask>, HarnessKernel<'w>>,
        part: &Part,
        frame: Pfn,
    ) -> Result<(), Fault> {
        let at = self.address(frame);
        if part.stays && part.before.is_some() {
            let order = reading
                .reference(frame)
                .map(|page| (page.first(), page.order()));
            let expected = part.before.map(|order| Part::page(frame, order));
            let what = "what stays can be referred to";
            return holds(order.ok() == expected, what, at, frame);
        }
        if self.frozen.get() {
            let refused = reading
                .reference(frame)
                .is_err_and(|error| error == NoReference::Refused);
            return holds(refused, "nobody refers to what is frozen", at, frame);
        }
        Ok(())
    }

    /// Writes into the first descriptor of each page of `parts` which it is.
    fn stamp(&self, parts: impl Iterator<Item = Part>) {
        for part in parts {
            let Some(order) = part.after else { continue };
            let first = part.frames.start();
            for index in 0..(part.frames.frames() >> order.get()) {
                let reading = self.reader.enter();
                let first = first.saturating_add(index << order.get());
                if let Some(page) = reading.page_of(first) {
                    page.head()
                        .flags()
                        .store(stamp_of(first), Ordering::Relaxed);
                }
            }
        }
    }
}

/// What is written into the first descriptor of the page at `first`.
const fn stamp_of(first: Pfn) -> u64 {
    first.get() << 1 | 1
}

fn holds(holds: bool, what: &'static str, at: VirtAddr, frame: Pfn) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(wrong(what, at, frame))
    }
}

fn wrong(what: &'static str, at: VirtAddr, frame: Pfn) -> Fault {
    Fault {
        what,
        at: Some(at),
        expected: frame.get(),
        found: 0,
    }
}
