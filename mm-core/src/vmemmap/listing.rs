//! Lists the pages of memory that is online: what they are stands in tables and descriptors.

use super::Vmemmap;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::{Heads, Tables, Tails};
use crate::paging::{PageTable, Role, Visit};
use crate::readers::ReadersOf;
use core::fmt;
use core::ops::ControlFlow;

/// A page that is online, and how its descriptors are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPage {
    /// Its first frame.
    pub first: Pfn,
    /// Its order; [`Order::BASE`] for a page by itself.
    pub order: Order,
    /// Where its head is.
    pub heads: Heads,
    /// What its tails share.
    pub tails: Tails,
    /// What its tables share.
    pub tables: Tables,
}

/// The pages of memory that is online, in the order of frames. See [`Vmemmap::pages`].
pub struct Pages<'v, D, A, M, R, P> {
    vmemmap: &'v Vmemmap<D, A, M, R>,
    table: &'v P,
    rest: Option<PfnRange>,
}

impl<D, A, M, R, P> fmt::Debug for Pages<'_, D, A, M, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The pages of `frames` that are online, the first one whole even if only its end is in `frames`.
    /// It walks the page table for each of them, and once for each hole. What is not online, and what an
    /// altmap reserves, is skipped.
    pub fn pages<'v, P: PageTable>(
        &'v self,
        table: &'v P,
        frames: PfnRange,
    ) -> Pages<'v, D, A, M, R, P> {
        Pages {
            vmemmap: self,
            table,
            rest: Some(frames),
        }
    }

    /// The page that `frame`, which is online and reserved by no altmap, is part of.
    fn listed_page<P: PageTable>(&self, table: &P, frame: Pfn) -> Option<ListedPage> {
        let described = self.descriptor(table, frame)?;
        let order = described.order();
        let first = frame.align_down(order);
        let page = PfnRange::new(first, order.frames()).ok()?;
        let is_packed = D::Encoding::is_stub(described.word())
            // Its first frame is described by the head itself.
            || frame == first && self.is_packed(table, first, order);
        let heads = match is_packed {
            true => Heads::Packed,
            false => Heads::InPlace,
        };
        let (tails, tables) = match self.model.descriptors(page) {
            Some(range) if order > self.model.vmemmap_page_order() || heads == Heads::Packed => {
                policies(table, range)
            }
            _ => (Tails::None, Tables::Private),
        };
        Some(ListedPage {
            first,
            order,
            heads,
            tails,
            tables,
        })
    }
}

/// How `range`, the vmemmap of a compound page, is mapped.
fn policies<P: PageTable>(table: &P, range: VirtRange) -> (Tails, Tables) {
    let mut found = (Tails::None, Tables::Private);
    let _ = table.visit(range, &mut |visit| {
        let (run, tables) = match visit {
            Visit::Leaves { run, .. } => (run, Tables::Private),
            Visit::SharedTable { run, .. } => (run, Tables::Shared),
            Visit::Table { .. } => return ControlFlow::Continue(()),
        };
        if run.leaf.role == Role::Tail {
            found.0 = match run.leaf.writable {
                true => Tails::PerCompound,
                false => Tails::PerOrder,
            };
        }
        found.1 = tables;
        // The first table has the head, if that is in place, and is private.
        match tables {
            Tables::Shared => ControlFlow::Break(()),
            Tables::Private => ControlFlow::Continue(()),
        }
    });
    found
}

/// The first address of `range` that a leaf of this library's maps. By a visit, which passes over what is not
/// mapped at once, and not by a look-up for each entry that says so.
fn first_mapped<P: PageTable>(table: &P, range: VirtRange) -> Option<VirtAddr> {
    let mut first = None;
    let _ = table.visit(range, &mut |visit| {
        first = match visit {
            Visit::Leaves { at, run } if run.leaf.role != Role::Foreign => Some(at),
            Visit::SharedTable { at, .. } => Some(at),
            Visit::Leaves { .. } | Visit::Table { .. } => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(())
    });
    first
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf, P: PageTable> Iterator
    for Pages<'_, D, A, M, R, P>
{
    type Item = ListedPage;

    fn next(&mut self) -> Option<ListedPage> {
        let granule = self.vmemmap.model.granule();
        loop {
            let rest = self.rest?;
            let frame = rest.start();
            if let Some(page) = self.vmemmap.listed_page(self.table, frame) {
                let before = frame.get() - page.first.get();
                self.rest = rest.split_at(page.order.frames() - before).1;
                return Some(page);
            }
            // To what is mapped next, or to the next vmemmap page of what is reserved or foreign.
            let range = self.vmemmap.model.descriptors(rest)?;
            let at = range.start();
            let next = match first_mapped(self.table, range)?.max(at) {
                next if next > at => next,
                _ => VirtAddr::new(at.get() | (granule.bytes() - 1)).checked_add(1)?,
            };
            let bytes = next.get().saturating_sub(at.get());
            let frames = bytes.div_ceil(self.vmemmap.model.descriptor_bytes());
            self.rest = rest.split_at(frames).1;
        }
    }
}
