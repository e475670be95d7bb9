//! Folds: from a frame for each vmemmap page to one frame for all tails.

use crate::addr::{Block, Order, Pfn, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, Initial, Part, Reshape};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{Exchange, Leaf, Role, Run};
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::frame_pool::FramePool;
use core::marker::PhantomData;

/// The exchange that folds.
pub(super) struct Folding<'v, D, A, M> {
    pub(super) pool: FramePool<'v, A, M>,
    pub(super) writer: DescriptorWriter<'v, M>,
    /// The tail frame of all compound pages, with a reference for each entry. If there is none, the
    /// second vmemmap page of each compound page becomes its tail frame.
    pub(super) shared: Option<Pfn>,
    /// The frame of the head's vmemmap page, until it is known whether its tails are shared already.
    head: Option<Pfn>,
    /// The tail frame of the compound page that is being folded.
    tail: Option<Pfn>,
    /// How many compound pages stay unfolded because the allocator cannot count the references.
    pub(super) uncounted: u64,
    descriptor: PhantomData<fn() -> D>,
}

/// How a descriptor is made part of another page.
#[derive(Clone, Copy)]
enum Keep {
    /// What the kernel keeps in it.
    State,
    /// Nothing.
    Nothing,
}

impl<'v, D: Reshape, A: FrameAllocator, M: DirectMap> Folding<'v, D, A, M> {
    pub(super) fn new(
        pool: FramePool<'v, A, M>,
        writer: DescriptorWriter<'v, M>,
        shared: Option<Pfn>,
    ) -> Self {
        Self {
            pool,
            writer,
            shared,
            head: None,
            tail: None,
            uncounted: 0,
            descriptor: PhantomData,
        }
    }

    /// The number of the vmemmap page at `at` within its compound page, and the compound page's
    /// first frame.
    fn page_at(&self, at: VirtAddr) -> Option<(u64, Pfn)> {
        let model = self.writer.model;
        let frame = model.frame_of_descriptor(at)?;
        let head = frame.align_down(self.writer.order);
        Some((
            (frame.get() - head.get()) / model.descriptors_per_page(),
            head,
        ))
    }

    fn reshape(&self, frame: Pfn, first: Pfn, keep: Keep) {
        reshape_page::<D, M>(&self.writer, frame, first, keep);
    }
}

impl<D: Reshape, A: FrameAllocator, M: DirectMap> Exchange for Folding<'_, D, A, M> {
    fn should_split(&self, _at: VirtAddr, leaf: Leaf) -> bool {
        leaf.role == Role::Descriptors
    }

    fn split(&mut self, block: Block) {
        // SAFETY: 1: an entry of this library's was the block's one user. 2: that entry's
        // reference; the entries that take its place own those that come of it.
        unsafe { self.pool.split(block) };
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some((page, head)) = self.page_at(at) else {
            return old;
        };
        let own = old.leaf.block.first();
        if page == 0 {
            self.head = Some(own);
            self.tail = None;
            return Run::once(old.leaf);
        }
        let pages = self.writer.model.vmemmap_pages(self.writer.order);
        let count = old.count.min(pages - page);
        let old = Run { count, ..old };
        let of_head = self.head.take();
        if old.leaf.role != Role::Descriptors {
            // Folded already, as the survey has seen.
            return old;
        }
        if let Some(of_head) = of_head {
            self.reshape(of_head, head, Keep::State);
        }
        let per_page = self.writer.model.descriptors_per_page();
        let first = head.saturating_add(page * per_page);
        if let Some(tail) = self.shared {
            let tails = Run::repeat(tail, count, Role::Tail);
            let leaf = Leaf {
                writable: false,
                ..tails.leaf
            };
            return Run { leaf, ..tails };
        }
        // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the entries of the tail
        // pages own the references.
        if page == 1 && unsafe { self.pool.acquire(own, pages - 1) } {
            self.reshape(own, first, Keep::Nothing);
            self.pool.add_tail(own);
            self.tail = Some(own);
        } else if page == 1 {
            self.uncounted += 1;
        }
        match self.tail {
            Some(tail) => Run::repeat(tail, count, Role::Tail),
            None => {
                // The compound page stays unfolded.
                for index in 0..count {
                    if let Some(block) = old.block(index) {
                        let first = first.saturating_add(index * per_page);
                        self.reshape(block.first(), first, Keep::State);
                    }
                }
                old
            }
        }
    }

    fn released(&mut self, run: Run) {
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it
        // after the flush (duty 6 of `PageTable`).
        unsafe { self.pool.release_run(run) };
    }
}

/// Makes the descriptors in `frame`, which is mapped for the memory from `first` on, parts of pages
/// of the order and node that `describe` says.
fn reshape_page<D: Reshape, M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    frame: Pfn,
    first: Pfn,
    keep: Keep,
) {
    for_each_in_page(writer, frame, first, &mut |described, descriptor: &D| {
        let initial = initial_of::<D, M>(writer, described);
        // SAFETY: 1: the frame becomes that part. 2: what is reset stands for others from now on.
        unsafe {
            match keep {
                Keep::State => descriptor.reshape(initial),
                Keep::Nothing => descriptor.reset(initial),
            }
        }
    });
}

/// Shows the descriptors in `frame`, which this library has mapped for the memory from `first` on.
fn for_each_in_page<D: Reshape, M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    frame: Pfn,
    first: Pfn,
    visit: &mut dyn FnMut(Pfn, &D),
) {
    let page = writer.direct_map.frame_pointer(frame).cast::<D>();
    for index in 0..writer.model.descriptors_per_page() {
        // SAFETY: the frame is mapped by this library, so the direct map reaches it (duty 2 of
        // `Vmemmap::new`), and it holds a page of descriptors of `D`'s size; they are only
        // shared, and change by atomics (duty 1 of `Reshape`).
        let descriptor = unsafe { page.add(index as usize).as_ref() };
        visit(first.saturating_add(index), descriptor);
    }
}

/// What the descriptor of `frame` starts with.
fn initial_of<D: Descriptor, M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    frame: Pfn,
) -> Initial {
    let part = if writer.order == Order::BASE {
        Part::Base
    } else if frame.is_aligned(writer.order) {
        Part::Head
    } else {
        Part::Tail
    };
    writer.initial::<D>(part, frame.align_down(writer.order))
}

/// Makes all descriptors of a run, mapped at `at`, each in a frame of its own, parts of pages of
/// the order and node that `describe` says. What the kernel keeps in them stays.
pub(super) fn reshape_run<D: Reshape, M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    at: VirtAddr,
    run: &Run,
    range: VirtRange,
) {
    for_each_page(writer, at, run, range, &mut |frame, first| {
        reshape_page::<D, M>(writer, frame, first, Keep::State);
    });
}

/// Shows all descriptors of a run, mapped at `at`, each in a frame of its own, that are in `range`.
pub(super) fn for_each_descriptor<D: Reshape, M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    at: VirtAddr,
    run: &Run,
    range: VirtRange,
    visit: &mut dyn FnMut(Pfn, &D),
) {
    for_each_page(writer, at, run, range, &mut |frame, first| {
        for_each_in_page(writer, frame, first, visit);
    });
}

/// Shows the frames of a run, mapped at `at`, that are mapped in `range`, each with the first frame
/// that it describes.
fn for_each_page<M: DirectMap>(
    writer: &DescriptorWriter<'_, M>,
    at: VirtAddr,
    run: &Run,
    range: VirtRange,
    visit: &mut dyn FnMut(Pfn, Pfn),
) {
    let model = writer.model;
    let page = model.granule().bytes();
    let per_block = run.leaf.block.order().frames();
    for index in 0..run.pages() {
        let Some(at) = at.checked_add(index.saturating_mul(page)) else {
            return;
        };
        let block = run.block(index / per_block).map(Block::first);
        let frame = block.and_then(|first| first.checked_add(index % per_block));
        if let (true, Some(frame), Some(first)) =
            (range.contains(at), frame, model.frame_of_descriptor(at))
        {
            visit(frame, first);
        }
    }
}
