//! How much a change of orders can take from the reserve.

use super::target::{Kind, Segment, Target, aligned};
use crate::addr::{Order, Pfn, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads, Tails};
use crate::paging::{InUse, PageTable};
use crate::readers::ReadersOf;
use crate::vmemmap::heads::heads_needed;
use crate::vmemmap::publish::around;
use crate::vmemmap::{Reserve, Vmemmap, memory_of};

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// How much [`reorder`](Self::reorder) can take from the reserve to make `frames` pages of the
    /// pagemap's order, if no page there is of a larger order than `largest`. It does not look at what is
    /// mapped, but for whether a page there has its head [packed](crate::pagemap::Heads::Packed): then the first
    /// vmemmap page of none has a frame.
    ///
    /// That much suffices, and there is memory for which less does not: a page of `largest` whose tails
    /// and tables are all shared takes all of the frames and blocks, and memory that is mapped by huge
    /// leaves all of the tables. After a call the reserve has what the call has freed.
    ///
    /// Where shared tails of many orders and nodes are online (more than 16, or 8 with shared tables), this has
    /// the frames to remember more of them. It looks at how many there are now.
    /// Where nothing of a span is found by readers, this has the frame for its bits: what is online there are
    /// parts of pages of which more is missing, and become whole pages. Where a page that is [in
    /// use](Self::freeze_units) stays in what a huge leaf could map, the others take single frames of its block.
    pub fn reserve_needed<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        largest: Order,
    ) -> Reserve {
        let whole = [
            aligned(frames.start(), largest),
            aligned(frames.last(), largest),
        ];
        let whole = around(whole[0], whole[1]);
        let in_place = self.find_packed(table, whole, &|_| true).is_none();
        let leaf = self.huge_leaf_of(table, pagemap);
        let leaf = leaf.filter(|_| pagemap.huge_leaves() && table.resizes_leaves());
        let mut most = self.needed_from(table, pagemap, frames, [largest; 2], leaf, in_place);
        // A page that a huge leaf describes only in part gives single frames where a larger one gives a
        // block. Nobody knows which of them is there.
        if let Some(leaf) = leaf {
            let described = leaf.get() + self.model.vmemmap_page_order().get();
            for ends in partly_described(frames, largest, described)
                .into_iter()
                .flatten()
            {
                let other = self.needed_from(table, pagemap, frames, ends, Some(leaf), in_place);
                most.frames = most.frames.max(other.frames);
                most.tables = most.tables.max(other.tables);
                most.huge_leaves = most.huge_leaves.max(other.huge_leaves);
            }
        }
        most.frames += self.bits_to_publish_pages(whole, pagemap.geometry().order());
        most
    }

    /// How much it takes if the pages at the two ends have the orders `ends`, no page between them is of a
    /// larger one, and huge leaves of the order `leaf` come back.
    fn needed_from<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        [first, last]: [Order; 2],
        leaf: Option<Order>,
        all_in_place: bool,
    ) -> Reserve {
        // The first vmemmap page of a page with a packed head has no frame of its own.
        let largest = match all_in_place {
            true => Some(first.max(last)),
            false => None,
        };
        let ends = [aligned(frames.start(), first), aligned(frames.last(), last)];
        let target = Target::new(pagemap, frames, ends, table.can_share_tables());
        let target = match D::Encoding::HAS_STUBS {
            true => target.with_packed_heads(),
            false => target,
        };
        let mut needed = Needed {
            target: &target,
            leaf,
            takes_tables: table.takes_tables(),
            own: 0,
            reserve: Reserve::default(),
            orders: 0,
            stubs: 0,
            stub_tables: 0,
        };
        if let Some(range) = needed.vmemmap_pages() {
            needed.count(range, largest);
        }
        let has_altmap = pagemap.altmap().is_some();
        let (heads, tables) = heads_needed(&self.model, &target, target.whole(), table.levels());
        needed.reserve.tables += tables;
        Reserve {
            frames: u64::from(needed.orders.count_ones() + needed.stubs.count_ones())
                + heads
                + self.frames_to_remember(&needed)
                + if has_altmap { 0 } else { needed.own },
            huge_leaves: if has_altmap {
                0
            } else {
                needed.reserve.huge_leaves
            },
            ..needed.reserve
        }
    }

    /// How many frames it takes to remember the shared tails, and their shared tables.
    fn frames_to_remember(&self, needed: &Needed<'_, '_>) -> u64 {
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let tails = u64::from(needed.orders.count_ones() + needed.stubs.count_ones());
        // The smallest order of which a page's tails may fill a table.
        let entries = self.model.granule().entries_per_table().trailing_zeros();
        let fills_table = u32::from(self.model.vmemmap_page_order().get()) + entries + 1;
        let large = needed.orders.checked_shr(fills_table).unwrap_or(0);
        let tables = match needed.target.can_share_tables() {
            true => u64::from(large.count_ones() + needed.stub_tables.count_ones()),
            false => 0,
        };
        self.pool_state.registry.frames_for(tails, memory)
            + self.table_records.frames_for(tables, memory)
    }
}

/// The orders of pages at the two ends of `frames` with which huge leaves, which describe pages of the order
/// `described`, cannot come back there: at both, or at either.
fn partly_described(frames: PfnRange, largest: Order, described: u8) -> [Option<[Order; 2]>; 4] {
    let [start, last] = [frames.start(), frames.last()];
    // The largest page around the start that a huge leaf describes with what is before it, and around the
    // last frame with what is behind it.
    let below = |described: u8| described.checked_sub(1).and_then(Order::new);
    let Some(smaller) = below(described) else {
        return [None; 4];
    };
    let orders = || {
        (0..=smaller.min(largest).get())
            .rev()
            .filter_map(Order::new)
    };
    let span = Order::new(described).map(|span| (aligned(start, span), aligned(last, span)));
    let Some((first_span, last_span)) = span else {
        return [None; 4];
    };
    let before = orders().find(|order| aligned(start, *order).start() != first_span.start());
    let behind = orders().find(|order| aligned(last, *order).last() != last_span.last());
    // The largest page around one end that does not reach the other.
    let apart = (start.get() ^ last.get()).checked_ilog2();
    let apart = apart.and_then(|order| Order::new(order as u8));
    let other = |one: Order| match apart {
        Some(apart) if apart >= one => apart.min(largest),
        _ => one,
    };
    [
        Some([smaller.min(largest); 2]),
        before.map(|before| [before, other(before)]),
        behind.map(|behind| [other(behind), behind]),
        before.zip(behind).map(|(before, behind)| [before, behind]),
    ]
}

/// What was counted so far.
struct Needed<'t, 'p> {
    target: &'t Target<'p>,
    leaf: Option<Order>,
    takes_tables: bool,
    /// Frames for descriptors that an altmap gives, if there is one.
    own: u64,
    reserve: Reserve,
    /// The orders, by their bits, whose tails are shared by all.
    orders: u64,
    /// Those of which there are stubs, and those whose stubs fill a table.
    stubs: u64,
    stub_tables: u64,
}

impl Needed<'_, '_> {
    /// The vmemmap pages of all that may change.
    fn vmemmap_pages(&self) -> Option<VirtRange> {
        let model = self.target.model();
        let whole = self.target.whole();
        let page = model.vmemmap_page_order();
        let start = model.descriptors(aligned(whole.start(), page))?;
        let end = model.descriptors(aligned(whole.last(), page))?;
        VirtRange::between(start.start(), end.last())
    }

    /// Counts what `range` takes, span by span, if it was mapped by pages of `largest` with heads in place.
    fn count(&mut self, range: VirtRange, largest: Option<Order>) {
        let granule = self.target.model().granule();
        let entries = granule.entries_per_table() as u64;
        let bytes = entries * granule.bytes();
        let mut rest = Some(range);
        while let Some(left) = rest {
            let start = left.start();
            let to_end = (bytes - (start.get() & (bytes - 1))) / granule.bytes();
            let pages = to_end.min(left.pages(granule));
            rest = self.target.after(left, pages);
            let last = rest.map_or(left.last(), |rest| {
                start
                    .checked_add((rest.start().get() - start.get()).saturating_sub(1))
                    .unwrap_or(start)
            });
            let Some(span) = VirtRange::between(start, last) else {
                return;
            };
            let is_all_own = self.target.is_all_own(span);
            if pages == entries && is_all_own && self.leaf.is_some() {
                self.reserve.huge_leaves += 1;
                self.reserve.tables += u64::from(self.takes_tables);
                continue;
            }
            // A part of what a table of stubs maps takes one, whatever it becomes.
            let takes_one = pages == entries || !is_all_own || largest.is_none();
            self.reserve.tables += u64::from(self.takes_tables && takes_one);
            self.count_pages(span, largest);
        }
    }

    /// Counts the frames of `span`.
    fn count_pages(&mut self, span: VirtRange, largest: Option<Order>) {
        let granule = self.target.model().granule();
        let mut rest = Some(span);
        while let Some(left) = rest {
            let Some(Segment { kind, pages }) = self.target.segment(left.start()) else {
                return;
            };
            let Some(first) = self.target.model().frame_of_descriptor(left.start()) else {
                return;
            };
            let pages = pages.min(left.pages(granule));
            match kind {
                Kind::Own => self.own += pages - self.first_pages(first, pages, largest),
                Kind::Tail {
                    order,
                    heads: Heads::Packed,
                    ..
                } => {
                    self.stubs |= 1 << order.get();
                    if pages == granule.entries_per_table() as u64 {
                        self.stub_tables |= 1 << order.get();
                    }
                }
                Kind::Tail {
                    order,
                    tails: Tails::PerOrder,
                    ..
                } => {
                    self.orders |= 1 << order.get();
                }
                Kind::Tail { page, .. } => {
                    let after_head = page
                        .start()
                        .checked_add(self.target.model().descriptors_per_page());
                    self.own += u64::from(after_head == Some(first));
                }
            }
            rest = self.target.after(left, pages);
        }
    }

    /// How many of the `pages` vmemmap pages that describe the frames from `first` on have the first
    /// frame of a page of `largest`, or of one that is smaller than a vmemmap page: those have a frame. None, if
    /// heads may be packed.
    fn first_pages(&self, first: Pfn, pages: u64, largest: Option<Order>) -> u64 {
        let Some(largest) = largest else {
            return 0;
        };
        let per_page = self.target.model().descriptors_per_page();
        if largest.frames() <= per_page {
            return pages;
        }
        let frames = PfnRange::new(first, pages.saturating_mul(per_page));
        let Ok(frames) = frames else { return 0 };
        let up_to = |frame: u64| frame.div_ceil(largest.frames());
        up_to(frames.last().get() + 1) - up_to(frames.start().get())
    }
}
