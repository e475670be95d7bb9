//! Freezing and thawing the pages of a range, head by head.

use crate::addr::{Pfn, PfnRange};
use crate::readers::{CountReferences, Kernel, Reader};

/// Freezes each page of `frames`, whole pages that are online, except for what is `reserved`, if it has
/// `references` references. If one has others nothing is frozen, and its first frame is the error.
pub(super) fn freeze_pages<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    references: u32,
) -> Result<(), Pfn> {
    let freeze = |head: &D| head.try_freeze(references);
    let Some(busy) = for_each_page(reader, frames, reserved, freeze) else {
        return Ok(());
    };
    let before = busy.get() - frames.start().get();
    if let Some(frozen) = frames.split_at(before).0 {
        thaw_pages(reader, frozen, reserved, references);
    }
    Err(busy)
}

/// Gives each page of `frames`, which are frozen except for what is `reserved`, `references` references.
pub(super) fn thaw_pages<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    references: u32,
) {
    for_each_page(reader, frames, reserved, |head| {
        // SAFETY: 1: the caller has frozen them. 2: it says how many there are.
        unsafe { head.unfreeze(references) };
        true
    });
}

/// Shows the head of each page of `frames`, whole pages that are online, except for what is
/// `reserved`, until that says false. Returns the first frame of the page where it did.
fn for_each_page<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    frames: PfnRange,
    reserved: Option<PfnRange>,
    mut visit: impl FnMut(&D) -> bool,
) -> Option<Pfn> {
    let mut rest = Some(frames);
    while let Some(pages) = rest {
        let first = pages.start();
        if let Some(reserved) = reserved.filter(|reserved| reserved.contains(first)) {
            let end = reserved.last().get() - first.get() + 1;
            rest = pages.split_at(end).1;
            continue;
        }
        // SAFETY: 1: the caller has the memory online, and nobody takes it offline meanwhile.
        let head = unsafe { reader.descriptor_of(first) };
        let order = head.order();
        if !visit(&head) {
            return Some(first);
        }
        rest = pages.split_at(order.frames()).1;
    }
    None
}
