//! What is to be mapped otherwise than it is, before anything is changed.

use super::held_tails::HeldTails;
use super::target::{Kind, Segment, Target};
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::Tails;
use crate::paging::{Leaf, PageTable, Role, Run, Visit};
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::registry::TailKey;
use core::ops::ControlFlow;

/// The differences in a range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Difference {
    /// How many vmemmap pages get a frame of their own.
    pub(super) own: u64,
    /// How many huge leaves can come back.
    pub(super) leaves: u64,
    /// How many entries of tails per compound page are made.
    pub(super) per_compound: u64,
    /// A tail frame of a compound page that stays where it is mapped. What else of that page is to be
    /// mapped to tails gets the same.
    pub(super) kept_tail: Option<Pfn>,
    /// Whether huge leaves map some of it.
    pub(super) has_huge_leaves: bool,
    /// Why it cannot be changed.
    pub(super) error: Option<FoldError>,
}

/// What is known of the span that was looked at last.
#[derive(Clone, Copy)]
struct SpanSeen {
    span: VirtRange,
    /// Becomes a huge leaf.
    joins: bool,
    /// Becomes a table that is shared: what all of its pages are mapped to.
    shares: Option<Kind>,
}

/// The rest of a span behind what was looked at last, which is to be mapped to the same tails.
#[derive(Clone, Copy)]
struct Alike {
    /// The first address that was not seen yet, and how many pages are left from there on.
    next: VirtAddr,
    left: u64,
    kind: Kind,
    /// It becomes a table that is shared, so that no entry of it stays.
    shares: bool,
    /// That, and no entry has a tail frame that is kept.
    all_are_made: bool,
    /// How many entries of it are made.
    entries: u64,
}

impl Alike {
    /// Whether all of `run` at `at`, base pages, is what is left or the start of it.
    #[inline]
    fn has(&self, at: VirtAddr, run: &Run) -> bool {
        at == self.next && run.count <= self.left
    }
}

/// How far a walk through a range has come.
struct Walk<'o> {
    range: VirtRange,
    /// The first address that was not seen yet.
    next: Option<VirtAddr>,
    seen: Option<SpanSeen>,
    alike: Option<Alike>,
    /// The last leaf table that is not this library's.
    foreign_table: Option<VirtAddr>,
    /// Whether there are altmaps besides the pool's.
    any_other: bool,
    found: Difference,
    /// Where entries of tails per order are counted, if that is asked for.
    per_order: Option<&'o mut HeldTails>,
}

impl Walk<'_> {
    /// Adds the entries of what was alike.
    fn end_alike(&mut self, target: &Target<'_>) -> &mut Self {
        if let Some(alike) = self.alike.take() {
            self.next = (alike.next > VirtAddr::new(0)).then_some(alike.next);
            self.add_tails(target, &alike.kind, alike.entries);
        }
        self
    }

    /// Counts `entries` more for the tails of `kind`.
    #[inline]
    fn add_tails(&mut self, target: &Target<'_>, kind: &Kind, entries: u64) {
        match *kind {
            Kind::Tail {
                order,
                tails: Tails::PerOrder,
                ..
            } => {
                if let Some(all) = &mut self.per_order {
                    all.need(target.slot(order), entries);
                }
            }
            Kind::Tail { .. } => self.found.per_compound += entries,
            Kind::Own => {}
        }
    }
}

/// Compares what is mapped with what is to be.
pub(super) struct Survey<'s, 'v, A, M> {
    pub(super) target: &'s Target<'s>,
    pub(super) pool: &'s FramePool<'v, A, M>,
    pub(super) writer: &'s DescriptorWriter<'v, M>,
    /// The size of a huge leaf, if any is to come back.
    pub(super) leaf: Option<Order>,
    /// How many huge leaves have a block; the others become single frames.
    pub(super) blocks: u64,
    /// Whether tails that are shared stay so, and a compound page keeps its tail frame where they are not to
    /// be shared: see [`Describe::keeps`](super::describe::Describe::keeps).
    pub(super) keeps: bool,
}

impl<A: FrameAllocator, M: DirectMap> Survey<'_, '_, A, M> {
    /// What differs in `range`, whole vmemmap pages. All of them have to be online, with frames of RAM or
    /// of the pool's altmap. The entries of tails per order that are made are added to what `per_order` needs.
    #[inline(never)]
    pub(super) fn difference<D: Descriptor, P: PageTable>(
        &self,
        table: &P,
        range: VirtRange,
        per_order: Option<&mut HeldTails>,
    ) -> Difference {
        let mut walk = Walk {
            range,
            next: Some(range.start()),
            seen: None,
            alike: None,
            foreign_table: None,
            any_other: self.pool.state.altmaps.any_other(self.pool.altmap),
            found: Difference::default(),
            per_order,
        };
        let shift = self.target.model().granule().shift();
        let _ = table.visit(range, &mut |visit| {
            // Most are like the one before.
            if let Visit::Leaves { at, run } = &visit
                && let Some(alike) = &mut walk.alike
                && run.leaf.role != Role::Foreign
                && alike.has(*at, run)
            {
                if alike.all_are_made {
                    alike.entries += run.count;
                } else {
                    let fits = self.is_tail_of::<D>(&run.leaf, &alike.kind);
                    if fits && run.leaf.writable {
                        walk.found.kept_tail = Some(run.leaf.block.first());
                    }
                    if alike.shares || !fits {
                        alike.entries += run.count;
                    }
                }
                alike.left -= run.count;
                // It is 0 behind the last address of all.
                alike.next = VirtAddr::new(at.get().wrapping_add(run.count << shift));
                return ControlFlow::Continue(());
            }
            self.visited::<D>(&mut walk, visit)
        });
        let mut found = walk.end_alike(self.target).found;
        if let Some(at) = walk.next.filter(|next| *next <= range.last()) {
            found.error.get_or_insert(FoldError::NotOnline { at });
        }
        found
    }

    /// Goes on with `visit`, which may be about anything.
    // Not inlined: few come here.
    #[inline(never)]
    fn visited<D: Descriptor>(&self, walk: &mut Walk<'_>, visit: Visit) -> ControlFlow<()> {
        walk.end_alike(self.target);
        let (at, run, shared) = match visit {
            Visit::Leaves { at, run } => (at, run, false),
            Visit::SharedTable { at, run, .. } => (at, run, true),
            Visit::Table {
                at,
                leaf_table: true,
                owned: false,
                ..
            } => {
                walk.foreign_table = Some(at);
                return ControlFlow::Continue(());
            }
            Visit::Table { .. } => return ControlFlow::Continue(()),
        };
        if run.leaf.role == Role::Foreign || walk.next.is_none_or(|next| at > next) {
            return ControlFlow::Break(());
        }
        let altmaps = &self.pool.state.altmaps;
        if walk.any_other
            && let Some(reserved) = altmaps.other_altmap_of(&run, self.pool.altmap)
        {
            walk.found.error = Some(FoldError::OtherAltmap { reserved });
            return ControlFlow::Break(());
        }
        let bytes = self.target.model().granule().bytes();
        walk.next = at.checked_add(run.pages().saturating_mul(bytes));
        let alike = self.compare::<D>(walk, at, run, shared);
        // With other altmaps, each run has to be looked at.
        if let (Some((alike, last)), Some(next), false) = (alike, walk.next, walk.any_other) {
            let left = VirtRange::between(next, last);
            let left = left.map_or(0, |left| left.pages(self.target.model().granule()));
            walk.alike = Some(Alike {
                next,
                left,
                ..alike
            });
        }
        ControlFlow::Continue(())
    }

    /// Compares the leaves of `run` at `at`, of a table that may be shared. Answers with what the leaves
    /// behind them may be compared with, and its last address.
    fn compare<D: Descriptor>(
        &self,
        walk: &mut Walk<'_>,
        at: VirtAddr,
        run: Run,
        shared: bool,
    ) -> Option<(Alike, VirtAddr)> {
        let (range, foreign_table) = (walk.range, walk.foreign_table);
        let granule = self.target.model().granule();
        let page = granule.bytes();
        let is_huge = run.leaf.block.order() != Order::BASE;
        walk.found.has_huge_leaves |= is_huge;
        let bytes = run.pages().saturating_mul(page);
        let all = VirtRange::new(at.max(range.start()), bytes).ok();
        let end = at.get().saturating_add(bytes.saturating_sub(1));
        let last = VirtAddr::new(end).min(range.last());
        let mut rest = all.and_then(|all| VirtRange::between(all.start(), last));
        let mut alike = None;
        while let Some(left) = rest {
            let known = match &walk.seen {
                Some(seen) if seen.span.contains(left.start()) => *seen,
                _ => {
                    let span = self.span_of(left.start());
                    let found = &mut walk.found;
                    let seen = self.look_at(range, span, is_huge, foreign_table, found);
                    *walk.seen.insert(seen)
                }
            };
            let part = VirtRange::between(left.start(), left.last().min(known.span.last()));
            let part = part.map_or(1, |part| part.pages(granule));
            let at = left.start();
            // How many pages are alike, and how many of them have a frame of their own.
            let segment = match known.shares {
                Some(kind) => Segment {
                    kind,
                    pages: known.span.pages(granule),
                },
                None => self.target.segment(at)?,
            };
            let is_longer = segment.kind != Kind::Own && segment.pages > part;
            let is_per_order = matches!(
                segment.kind,
                Kind::Tail {
                    tails: Tails::PerOrder,
                    ..
                }
            );
            let last = known
                .span
                .last()
                .min(self.target.last_of(at, segment.pages));
            alike = is_longer.then(|| {
                let alike = Alike {
                    next: at,
                    left: 0,
                    kind: segment.kind,
                    shares: known.shares.is_some(),
                    all_are_made: known.shares.is_some() && is_per_order,
                    entries: 0,
                };
                (alike, last)
            });
            let uniform = match segment.pages < part {
                true => self.target.uniform(at, part),
                false => None,
            };
            let (pages, own, kind) = match (uniform, segment) {
                (Some((heads, kind)), _) => (part, heads, kind),
                (None, Segment { kind, pages }) => {
                    let pages = pages.min(part);
                    (pages, if kind == Kind::Own { pages } else { 0 }, kind)
                }
            };
            if run.leaf.role == Role::Tail && !known.joins {
                let keeps = self.keeps_tail_frame(&run.leaf, at, own);
                walk.found.own += own - u64::from(keeps);
            }
            let tails = pages - own;
            let fits = tails > 0 && self.is_tail_of::<D>(&run.leaf, &kind);
            if fits && run.leaf.writable {
                walk.found.kept_tail = Some(run.leaf.block.first());
            }
            let stays = fits && (self.keeps || shared == known.shares.is_some());
            if tails > 0 && !stays {
                walk.add_tails(self.target, &kind, tails);
            }
            rest = self.target.after(left, pages);
        }
        alike
    }

    /// What `span` becomes, of which a part at least is in `range`.
    // Not inlined: once for each span.
    #[inline(never)]
    fn look_at(
        &self,
        range: VirtRange,
        span: VirtRange,
        is_huge: bool,
        foreign_table: Option<VirtAddr>,
        found: &mut Difference,
    ) -> SpanSeen {
        let is_whole = range.contains(span.start()) && range.contains(span.last());
        let can_join = is_whole
            && self.leaf.is_some()
            && !is_huge
            && foreign_table != Some(span.start())
            && self.target.is_all_own(span);
        found.leaves += u64::from(can_join);
        let pages = span.pages(self.target.model().granule());
        let shares = is_whole && self.target.shares_table(span.start(), pages);
        let segment = self.target.segment(span.start()).filter(|_| shares);
        SpanSeen {
            span,
            joins: can_join && found.leaves <= self.blocks,
            shares: segment.map(|segment| segment.kind),
        }
    }

    /// What one entry above a leaf table translates, around `at`.
    fn span_of(&self, at: VirtAddr) -> VirtRange {
        let granule = self.target.model().granule();
        let bytes = (granule.entries_per_table() as u64).saturating_mul(granule.bytes());
        let start = VirtAddr::new(at.get() & !(bytes - 1));
        VirtRange::new(start, bytes).unwrap_or(VirtRange::single(at))
    }

    /// Whether one of the `pages` vmemmap pages from `at` on, all mapped to `leaf`, gets the frame of that:
    /// the second one of a compound page, which keeps its tail frame.
    fn keeps_tail_frame(&self, leaf: &Leaf, at: VirtAddr, pages: u64) -> bool {
        let model = self.target.model();
        if !self.keeps || !leaf.writable || pages == 0 {
            return false;
        }
        let Some(first) = model.frame_of_descriptor(at) else {
            return false;
        };
        let before = first.get() - self.target.page_of(first).0.start().get();
        let before = before / model.descriptors_per_page();
        before <= 1 && before + pages > 1
    }

    /// Whether `leaf` is what the tails of `kind` are to be mapped to.
    pub(super) fn is_tail_of<D: Descriptor>(&self, leaf: &Leaf, kind: &Kind) -> bool {
        if self.keeps {
            return leaf.role == Role::Tail;
        }
        is_tail_of::<D, A, M>(self.pool, self.writer, leaf, kind)
    }

    /// How many entries of its own tail frame the compound page `page` gets, and the tail frame that other
    /// entries of it keep.
    pub(super) fn new_tails<D: Descriptor, P: PageTable>(
        &self,
        table: &P,
        page: PfnRange,
    ) -> (u64, Option<Pfn>) {
        let range = self.target.model().descriptors(page);
        range.map_or((0, None), |range| {
            let found = self.difference::<D, P>(table, range, None);
            (found.per_compound, found.kept_tail)
        })
    }
}

/// See [`Survey::is_tail_of`].
pub(super) fn is_tail_of<D: Descriptor, A: FrameAllocator, M: DirectMap>(
    pool: &FramePool<'_, A, M>,
    writer: &DescriptorWriter<'_, M>,
    leaf: &Leaf,
    kind: &Kind,
) -> bool {
    let Kind::Tail {
        page,
        order,
        tails,
        heads,
    } = *kind
    else {
        return false;
    };
    if leaf.role != Role::Tail || leaf.block.order() != Order::BASE {
        return false;
    }
    if tails == Tails::PerOrder {
        let node = writer.node;
        let registered = pool.registered_tail(TailKey { order, node, heads });
        return !leaf.writable && registered == Some(leaf.block.first());
    }
    if !leaf.writable {
        return false;
    }
    let descriptors = writer
        .direct_map
        .frame_pointer(leaf.block.first())
        .cast::<D>();
    // SAFETY: an entry of this library's maps the frame as a tail frame, so the direct map reaches it (duty
    // 2 of `Vmemmap::new`) and it holds descriptors of `D`'s size; descriptors are only shared.
    let tail = unsafe { descriptors.as_ref() };
    let writer = DescriptorWriter {
        order,
        heads,
        ..*writer
    };
    tail.order() == order && tail.word() == writer.tail_word::<D>(page.start())
}
