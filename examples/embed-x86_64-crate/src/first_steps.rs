//! The first steps on what `glue.rs` has: descriptors of RAM, two devices, a fold, an audit.

use crate::glue::{Embedded, LIVE};
use boot_x86_64::println;
use mm_core::addr::{Granule, PfnRange, PhysAddr};
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::vmemmap::AuditSlot;

/// Descriptors of all RAM, with frames from the memory map: `hand_over` comes after this.
pub fn bring_ram_online(kernel: &mut Embedded, ram: &[PfnRange]) {
    let (vmemmap, mut table) = kernel.parts();
    let model = *vmemmap.model();
    for range in model.whole_subsections(ram.iter().copied()) {
        let pagemap = DevPagemap::of_range(&model, range, Geometry::BASE_PAGES).expect("RAM");
        // The region is not needed: RAM stays online.
        let _region = vmemmap.online(&mut table, &pagemap).expect("RAM online");
    }
}

/// A device in pages of 2 MiB, and one in base pages that is folded to such pages; both go offline again.
/// Nothing is there: only descriptors are.
pub fn run(kernel: &mut Embedded) {
    let gib_at =
        |gib: u64| PfnRange::from_bytes(PhysAddr::new(gib << 30), 1 << 30, Granule::Size4K);
    let (first, second) = (gib_at(64).expect("frames"), gib_at(66).expect("frames"));
    let huge = Geometry::from_bytes(2 << 20, Granule::Size4K).expect("a power of two");

    let frames = kernel.frames;
    let (vmemmap, mut table) = kernel.parts();
    let model = *vmemmap.model();

    let in_huge_pages = DevPagemap::of_range(&model, first, huge)
        .expect("a request")
        .with_tails(Tails::PerOrder);
    let first_region = vmemmap.online(&mut table, &in_huge_pages).expect("online");
    let in_base_pages = DevPagemap::of_range(&model, second, Geometry::BASE_PAGES)
        .expect("a request")
        .with_huge_leaves(false);
    let second_region = vmemmap.online(&mut table, &in_base_pages).expect("online");
    for note in first_region
        .notes()
        .iter()
        .chain(second_region.notes().iter())
    {
        println!("otherwise than asked: {note}");
    }
    println!(
        "two devices online: {} frames",
        vmemmap.stats().ram_frames()
    );

    let frame = first.start().saturating_add(700);
    // SAFETY: 1: it is online on the tables that this CPU translates by.
    let head = unsafe { LIVE.head_of(frame) }.expect("a head");
    println!("the head of frame {frame} is {head}");

    let to_huge_pages = DevPagemap::of_range(&model, second, huge).expect("a request");
    let folded = vmemmap
        .fold(&mut table, &to_huge_pages, second)
        .expect("folded");
    println!(
        "{} pages folded: {} frames",
        folded.changed,
        vmemmap.stats().ram_frames()
    );

    let mut scratch = [AuditSlot::default(); 256];
    let report = vmemmap
        .audit(&table, &[frames], &mut scratch)
        .expect("a clean audit");
    println!("audit: clean, {} frames", report.frames());

    vmemmap.offline(&mut table, second_region).expect("offline");
    vmemmap.offline(&mut table, first_region).expect("offline");
    println!("offline again: {} frames", vmemmap.stats().ram_frames());
}
