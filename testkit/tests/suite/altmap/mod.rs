//! Devices whose descriptors lie in their own memory: compound pages share tails there too.

mod costs;
mod counts;
mod folding;
mod huge_leaves;
mod order;
mod other;
mod refusals;

use hosted::BackendKind;
use mm_core::addr::{PfnRange, PhysAddr};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Piece};
use testkit::OnBackend;
use testkit::testbed::{SHARED_TAILS, Setup, TestAltmap, Testbed, pagemap};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

/// The frames of `bytes` bytes from `start` on.
fn range(model: &MemoryModel, start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, model.granule()).unwrap()
}

/// A device that has the smallest altmap possible.
fn with_device(
    kind: BackendKind,
    plain: DevPagemap<'_>,
    test: impl FnOnce(&mut dyn Testbed<'_>, DevPagemap<'_>, &dyn TestAltmap),
) {
    let reserved = plain.altmap_needed().unwrap();
    let setup = Setup::new(plain.ranges()).with_altmap(reserved);
    kind.testbed(&setup, |bed| {
        let altmap = bed.altmaps()[0];
        test(bed, plain.with_altmap(altmap).unwrap(), altmap);
    });
}
