//! Packed heads: what they cost, where they are, pieces in any order, failures, and what is refused.

mod altmaps;
mod changes;
mod costs;
mod pieces;
mod refusals;
mod reorder;

use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tables};
use mm_core::vmemmap::AuditReport;
use std::collections::BTreeSet;
use testkit::testbed::Testbed;

/// Compound pages of `order` with packed heads, in tables that are shared.
fn packed<'p>(model: &MemoryModel, ranges: &'p [PfnRange], order: Order) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::compound(order))
        .unwrap()
        .with_heads(Heads::Packed)
        .with_tables(Tables::Shared)
}

/// The number of the page of `order` that `frame` is part of among all places for heads: by halves of what
/// the model has room for, as in a heap.
fn place(model: &MemoryModel, frame: Pfn, order: Order) -> u64 {
    let mut size = 1;
    while size < model.all_frames().frames() {
        size *= 2;
    }
    let (mut index, mut start) = (1, 0);
    while size > order.frames() {
        size /= 2;
        index *= 2;
        if frame.get() >= start + size {
            (index, start) = (index + 1, start + size);
        }
    }
    index
}

/// The address of that place.
fn address(model: &MemoryModel, frame: Pfn, order: Order) -> VirtAddr {
    let base = model.heads().unwrap().start().get();
    VirtAddr::new(base + place(model, frame, order) * model.descriptor_bytes())
}

/// What `used`, ranges of whole pages of an order with packed heads, costs together. Tables are shared where
/// they can be.
fn report(kind: BackendKind, used: &[(PfnRange, Order)], tables: Tables) -> AuditReport {
    let model = kind.model();
    let page_bits = model.granule().shift();
    let index_bits = page_bits - 3;
    // Addresses in pages: of the vmemmap, and of places.
    let mut heads = BTreeSet::new();
    let mut spans = BTreeSet::new();
    let mut shared = BTreeSet::new();
    let mut private = BTreeSet::new();
    let mut orders = BTreeSet::new();
    let mut mapped_pages = 0;
    for (frames, order) in used {
        orders.insert(*order);
        let ends = [frames.start(), frames.last()];
        let [first, last] = ends.map(|frame| address(&model, frame, *order).get() >> page_bits);
        heads.extend(first..=last);
        let [first, last] =
            ends.map(|frame| model.descriptor_address(frame).unwrap().get() >> page_bits);
        mapped_pages += last - first + 1;
        for span in first >> index_bits..=last >> index_bits {
            spans.insert(span);
            let whole = first <= span << index_bits && ((span + 1) << index_bits) - 1 <= last;
            match whole && tables == Tables::Shared {
                true => shared.insert(*order),
                false => private.insert(span),
            };
        }
    }
    mapped_pages += heads.len() as u64;
    let of_heads: BTreeSet<u64> = heads.iter().map(|page| page >> index_bits).collect();
    private.extend(&of_heads);
    spans.extend(&of_heads);
    let levels = kind.table_levels().saturating_sub(1);
    let upper_tables = (1..levels).map(|level| {
        let above = spans.iter().map(|span| span >> (level * index_bits));
        above.collect::<BTreeSet<u64>>().len() as u64
    });
    AuditReport {
        descriptor_frames: (heads.len() + orders.len()) as u64,
        head_frames: heads.len() as u64,
        leaf_tables: match levels {
            0 => 0,
            _ => (private.len() + shared.len()) as u64,
        },
        upper_tables: upper_tables.sum(),
        mapped_pages,
        ..AuditReport::default()
    }
}

/// Every frame of the ends of `frames` is online as a part of a page of `order` with a packed head: all of
/// the vmemmap has one frame, read-only, and the heads are where they should be.
fn assert_packed(bed: &dyn Testbed<'_>, frames: PfnRange, order: Order) {
    let model = bed.model();
    let some = frames.frames().min(order.frames().max(1 << 12));
    let last = frames.split_at(frames.frames() - some).1;
    let ends = [frames.take_first(some).0, last.unwrap_or(frames)];
    let stubs = bed.holder_of(frames.start()).unwrap();
    for end in ends {
        let step = model.descriptors_per_page() / 2 + 1;
        for index in (0..end.frames()).step_by(step as usize) {
            let frame = end.start().saturating_add(index);
            let leaf = bed.leaf_of(frame).unwrap();
            assert!(!leaf.writable && leaf.tail, "{leaf:?}");
            assert_eq!(bed.holder_of(frame), Some(stubs));
            let head = frame.align_down(order);
            assert_eq!(bed.head_of(frame), Some(head), "of {frame}");
            let descriptor = bed.descriptor(frame).unwrap();
            assert_eq!(descriptor.order, order.get());
            assert!(descriptor.tail, "{frame}");
        }
        assert_heads(bed, end, order);
    }
}

/// The places of the pages of `order` that begin in `frames` have heads.
fn assert_heads(bed: &dyn Testbed<'_>, frames: PfnRange, order: Order) {
    let mut frame = frames.start();
    while frames.contains(frame) {
        let head = head_at(bed, address(&bed.model(), frame, order));
        assert_eq!(head, Some((order.get(), false)), "of {frame}");
        frame = frame.saturating_add(order.frames());
    }
}

/// The order of the descriptor at `at`, and whether the place is vacant, by the bytes of a `Page<Mask>`.
fn head_at(bed: &dyn Testbed<'_>, at: VirtAddr) -> Option<(u8, bool)> {
    let leaf = bed.leaf(at)?;
    assert!(leaf.owned && leaf.writable && !leaf.tail, "{leaf:?}");
    let granule = bed.model().granule();
    let page = leaf.frame_at(at, granule.shift()).base(granule).get();
    let start = page + (at.get() & (granule.bytes() - 1));
    let word = |index: u64| bed.memory().read_u64(PhysAddr::new(start + 8 * index));
    let (word, order) = (word(1)?, word(3)? as u8);
    assert!(word == !1 || word == 1, "{word:#x}");
    Some((order, word == 1))
}
