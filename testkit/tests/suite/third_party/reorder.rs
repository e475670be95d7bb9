//! Changes of order on a page table of one's own, leaf by leaf, with frames of an allocator that does not
//! count.

use super::per_page::{Figures, PerPage, Stale};
use super::plain::Plain;
use super::{FEW_FRAMES, GRANULE, KeptCounts, keep, model, range};
use arch_sim::SimMemory;
use mm_core::addr::{NodeId, Order, PfnRange, VirtAddr};
use mm_core::descriptor::{Mask, Page, TailEncoding};
use mm_core::frame::{Counted, ReferenceCounts, SharedCounts, WordCounts};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::{Leaf, Replacement};
use mm_core::vmemmap::{AuditReport, AuditSlot, Described, FoldError, Vmemmap};
use std::collections::BTreeMap;

const NODE: NodeId = NodeId::new(0);
const TAILS: [Tails; 3] = [Tails::None, Tails::PerCompound, Tails::PerOrder];

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Two of the largest pages: each of 16 vmemmap pages.
fn memory() -> PfnRange {
    range(1 << 20, 2 << 12)
}

/// A kernel's own page table and allocator, and the library on top.
struct Own<C: ReferenceCounts + 'static> {
    table: PerPage,
    plain: &'static Plain,
    frames: &'static Counted<&'static Plain, C>,
    figures: Figures,
    vmemmap: Vmemmap<Page<Mask>, &'static Counted<&'static Plain, C>, &'static SimMemory>,
}

impl<C: ReferenceCounts + 'static> Own<C> {
    fn new(how: Replacement, huge: Option<Order>, counts: impl FnOnce(PfnRange) -> C) -> Self {
        let ram = range(0, 1 << 12);
        let (stale, figures) = (Stale::default(), Figures::default());
        let plain: &Plain = keep(Plain::new(ram, stale.clone()));
        let memory: &SimMemory = keep(SimMemory::new(GRANULE, &[ram]).unwrap());
        let frames: &Counted<&Plain, C> = keep(Counted::new(plain, counts(ram)));
        // SAFETY: 1: there is one table, one memory and one vmemmap. 2: the memory has all frames of it.
        // 3: the table is empty.
        let vmemmap = unsafe { Vmemmap::new(model(FEW_FRAMES), frames, memory) };
        Self {
            table: PerPage::new(how, GRANULE, huge, stale, figures.clone()),
            plain,
            frames,
            figures,
            vmemmap: vmemmap.unwrap(),
        }
    }

    fn pagemap<'p>(&self, ranges: &'p [PfnRange], of: u8, tails: Tails) -> DevPagemap<'p> {
        let geometry = Geometry::compound(order(of));
        let pagemap = DevPagemap::new(self.vmemmap.model(), ranges, geometry);
        pagemap.unwrap().with_tails(tails).with_piece(Piece::Range)
    }

    fn audit(&self) -> AuditReport {
        let mut scratch = vec![AuditSlot::default(); 1 << 12];
        let audit = self
            .vmemmap
            .audit(&self.table, &[self.frames], &mut scratch);
        audit.unwrap_or_else(|finding| panic!("{finding}"))
    }

    /// Each frame of `frames` is part of a page of `order`.
    fn assert_pages(&self, frames: PfnRange, order: Order) {
        for frame in frames {
            let described = self.vmemmap.descriptor(&self.table, frame).unwrap();
            let at = self.vmemmap.descriptor_address(frame).unwrap();
            let head = Mask::head_of(at, described.word());
            let first = frame.align_down(order);
            assert_eq!(described.order(), order, "{frame}");
            assert_eq!(
                Some(head),
                self.vmemmap.descriptor_address(first),
                "{frame}"
            );
            assert!(frame != first || matches!(described, Described::Own(_)));
        }
    }

    /// Fills the reserve with what is needed, and changes the order of `frames` while the allocator gives
    /// nothing.
    fn reorder(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Result<u64, FoldError> {
        let needed = self
            .vmemmap
            .reserve_needed(&self.table, pagemap, frames, order(12));
        let filled = self.vmemmap.fill_reserve(&mut self.table, NODE, needed);
        filled.map(drop)?;
        let reserve = self.vmemmap.reserve(NODE);
        assert!(reserve.frames >= needed.frames);
        assert_eq!(reserve.tables, 0, "no table is taken leaf by leaf");
        self.plain.left.set(Some(0));
        let done = self.vmemmap.reorder(&mut self.table, pagemap, frames);
        let asked = self.plain.left.replace(None);
        assert_eq!(asked, Some(0));
        let done = done.map_err(|stopped| stopped.error)?;
        assert_eq!(done.rest, None);
        Ok(done.flushes)
    }

    /// Nothing has come back while it was cached, or was exchanged where it may not be.
    fn assert_no_complaints(&self) {
        assert_eq!(self.plain.complaints.get(), 0);
        assert_eq!(self.figures.unbroken.get(), 0);
    }
}

/// From each policy to each other one, whole and in part, and back.
fn orders_change_leaf_by_leaf<C: KeptCounts + 'static>(how: Replacement) {
    let ranges = [memory()];
    for (from, to) in [
        (Tails::PerCompound, Tails::PerOrder),
        (Tails::PerOrder, Tails::PerCompound),
    ]
    .into_iter()
    .chain(TAILS.map(|tails| (tails, tails)))
    {
        let mut own = Own::new(how, None, C::of);
        let before = own.pagemap(&ranges, 12, from);
        let region = own.vmemmap.online(&mut own.table, &before).unwrap();
        let report = own.audit();
        for (small, part) in [
            (9, memory()),
            (8, range(1 << 20, 1 << 9)),
            (0, range(1 << 20, 256)),
        ] {
            let after = own.pagemap(&ranges, small, to);
            own.reorder(&after, part).unwrap();
            own.assert_pages(part, order(small));
            own.audit();
            let back = own.pagemap(&ranges, 12, from);
            own.reorder(&back, memory()).unwrap();
            own.assert_pages(memory(), order(12));
            own.vmemmap.empty_reserve(&mut own.table);
            assert_eq!(own.audit(), report, "{from:?} {to:?} {small}");
        }
        own.vmemmap.offline(&mut own.table, region).unwrap();
        assert_eq!(own.audit(), AuditReport::default());
        assert!(own.table.leaves.is_empty());
        own.assert_no_complaints();
    }
}

#[test]
fn orders_change_on_a_page_table_of_ones_own() {
    for how in [Replacement::Direct, Replacement::BreakBeforeMake] {
        orders_change_leaf_by_leaf::<WordCounts<'static>>(how);
        orders_change_leaf_by_leaf::<SharedCounts<'static>>(how);
    }
}

/// `refuse` is refused with `error`, and nothing has changed.
fn assert_refused<C: ReferenceCounts + 'static>(
    own: &mut Own<C>,
    after: &DevPagemap<'_>,
    error: FoldError,
) {
    let leaves: BTreeMap<VirtAddr, Leaf> = own.table.leaves.clone();
    let report = own.audit();
    assert_eq!(own.reorder(after, memory()), Err(error));
    assert_eq!(own.table.leaves, leaves);
    own.vmemmap.empty_reserve(&mut own.table);
    assert_eq!(own.audit(), report);
    own.assert_pages(memory(), order(12));
    own.assert_no_complaints();
}

#[test]
fn a_page_table_that_exchanges_nothing_is_left_alone() {
    let ranges = [memory()];
    let mut own = Own::new(Replacement::Refused, None, WordCounts::of);
    let before = own.pagemap(&ranges, 12, Tails::PerOrder);
    let after = own.pagemap(&ranges, 9, Tails::PerOrder);
    let region = own.vmemmap.online(&mut own.table, &before).unwrap();
    assert_refused(&mut own, &after, FoldError::Refused);
    own.vmemmap.offline(&mut own.table, region).unwrap();
}

#[test]
fn a_huge_leaf_that_cannot_be_split_is_left_alone() {
    let ranges = [memory()];
    for how in [Replacement::Direct, Replacement::BreakBeforeMake] {
        let mut own = Own::new(how, Some(order(4)), WordCounts::of);
        let before = own.pagemap(&ranges, 12, Tails::None);
        let after = own.pagemap(&ranges, 9, Tails::PerOrder);
        let region = own.vmemmap.online(&mut own.table, &before).unwrap();
        let (&at, leaf) = own.table.leaves.first_key_value().unwrap();
        assert_eq!(leaf.block.order(), order(4));
        assert_refused(&mut own, &after, FoldError::SplitsHugeLeaf { at });
        // What shares nothing needs no split.
        let apart = own.pagemap(&ranges, 9, Tails::None);
        own.reorder(&apart, memory()).unwrap();
        own.assert_pages(memory(), order(9));
        own.vmemmap.empty_reserve(&mut own.table);
        own.vmemmap.offline(&mut own.table, region).unwrap();
        own.assert_no_complaints();
    }
}

/// With room for the counts of so few shared frames, tail frames of more pages are refused.
#[test]
fn what_cannot_be_counted_is_refused() {
    let ranges = [memory()];
    let counts = |_| SharedCounts::new(keep([0; 4]));
    let mut own = Own::new(Replacement::Direct, None, counts);
    let before = own.pagemap(&ranges, 12, Tails::PerOrder);
    let region = own.vmemmap.online(&mut own.table, &before).unwrap();
    let after = own.pagemap(&ranges, 10, Tails::PerCompound);
    let leaves = own.table.leaves.clone();
    let report = own.audit();
    let refused = own.reorder(&after, range(1 << 20, 1 << 12)).unwrap_err();
    assert!(
        matches!(refused, FoldError::Uncounted { .. }),
        "{refused:?}"
    );
    assert_eq!(own.table.leaves, leaves);
    own.vmemmap.empty_reserve(&mut own.table);
    assert_eq!(own.audit(), report);
    own.assert_no_complaints();
    own.vmemmap.offline(&mut own.table, region).unwrap();
}
