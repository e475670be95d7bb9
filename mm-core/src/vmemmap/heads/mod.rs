//! Packed heads: the pages of an array that has the heads of compound pages side by side.
//!
//! ```text
//!   vmemmap   | stubs of a page    | stubs of a page    | ...          all one frame, read-only
//!                       \                    \
//!   heads     ...  | none | head | head | none | ... |  ...            a page has many places
//! ```
//!
//! - A head is there from the moment that the first frame of its page comes online until that frame goes
//!   offline: as in place, where it is in that frame's vmemmap page. A place without one says so by its word.
//! - A page of places is mapped with the first head in it, and unmapped with the last one. Its entry owns the
//!   one reference of its frame. Compound pages that come online by themselves share it with their neighbours,
//!   and large ones of several orders may share one.
//! - Its frame is RAM, like that of stubs, if what it describes reaches beyond the pagemap; otherwise it comes from the
//!   pagemap's altmap, if there is one (`altmap`).
//! - Places that a range has to itself need not be looked at: a page in the middle of them is the range's alone.
//! - Heads are mapped before the stubs that lead to them. They are unmapped when those are, and flushed.
//!
//! - Where pages [change their order](super::reorder), new heads are there before the exchange (`change`), and old
//!   ones stay until nobody can have found them before: one more grace period (`old`). Meanwhile they are frozen,
//!   and no stub leads there.
//!
//! A place that has no head is used by nobody but who holds the vmemmap's lock: no stub leads there. So it is
//! written to like a frame that is not mapped yet.

mod altmap;
mod change;
mod find;
mod map;
mod needed;
mod old;
mod remove;

pub(super) use needed::heads_needed;
pub use old::{OldHeads, QuiescentHeads};

use super::Vmemmap;
use super::error::OnlineError;
use super::image::Image;
use crate::addr::{NodeId, Order, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, Initial, Part, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::model::MemoryModel;
use crate::pagemap::{DevPagemap, Heads};
use crate::paging::PageTable;
use crate::readers::ReadersOf;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Checks that the heads of `pagemap` can be where it says.
    pub(super) fn check_heads(&self, pagemap: &DevPagemap<'_>) -> Result<(), OnlineError> {
        if pagemap.heads().0 == Heads::InPlace {
            return Ok(());
        }
        let order = pagemap.geometry().order();
        if !D::Encoding::HAS_STUBS {
            return Err(OnlineError::NoStubs);
        }
        match self.model.can_pack_heads(order) {
            true => Ok(()),
            false => Err(OnlineError::NoPlaceForHeads { order }),
        }
    }

    /// The addresses of heads, if any is mapped there.
    fn heads_in_use<P: PageTable>(&self, table: &P) -> Option<VirtRange> {
        match self.places {
            Places::Unmapped => None,
            Places::MayBeMapped => {
                let heads = self.model.heads()?;
                table.first_in_use(heads).map(|_| heads)
            }
        }
    }

    /// The same. Where none is, nobody has to look again before there is one.
    pub(super) fn look_for_heads<P: PageTable>(&mut self, table: &P) -> Option<VirtRange> {
        let heads = self.heads_in_use(table);
        if heads.is_none() {
            self.places = Places::Unmapped;
        }
        heads
    }

    /// The indices of `places` in `page`, a page of them that has some: the first, and the one behind the last.
    fn indices_in(&self, page: VirtRange, places: VirtRange) -> (u64, u64) {
        let bytes = self.model.descriptor_bytes();
        let of_page = |at: VirtAddr| at.get().saturating_sub(page.start().get()) / bytes;
        let last = places.last().min(page.last());
        (of_page(places.start()), of_page(last) + 1)
    }
}

/// Whether pages of places are mapped, as far as it is known without a look into the page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// This value has mapped none, or has seen that there is none any more.
    Unmapped,
    /// It has mapped some, or another value may have.
    MayBeMapped,
}

/// Where frames and tables for places come from, and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlacesFrom {
    Allocator,
    /// Of the pagemap's node.
    Reserve,
}

/// A place that has no head.
fn vacant<D: Descriptor>() -> Image<D> {
    Image::new(Initial {
        part: Part::Tail,
        order: Order::BASE,
        word: D::Encoding::vacant_word(),
        node: NodeId::new(0),
    })
}

/// The pages that `places` are in.
fn pages_of(model: &MemoryModel, places: VirtRange) -> Option<VirtRange> {
    let in_page = model.granule().bytes() - 1;
    let start = VirtAddr::new(places.start().get() & !in_page);
    VirtRange::between(start, VirtAddr::new(places.last().get() | in_page))
}
