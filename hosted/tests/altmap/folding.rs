//! Folding memory whose descriptors lie in an altmap.

use crate::setup::{assert_nothing_is_out, audit, machine, pagemap, range, vmemmap};
use crate::watched::Watched;
use crate::{GIB, KIB, MIB};
use hosted::{AArch64_4K, Backend, Sim, X86_64, X86_64La57};
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::Tails;
use mm_core::vmemmap::FoldError;

/// Brought online as base pages, folded as compound pages of 2 MiB, and unfolded.
fn frames_come_from_and_go_back_to_the_altmap<B: Backend>(huge: bool, tails: Tails) {
    let ranges = [range::<B>(24 * GIB, GIB)];
    let base_pages = pagemap::<B>(&ranges, 4 * KIB, Tails::None).with_huge_leaves(huge);
    // Blocks need a little more than single frames.
    let reserved = range::<B>(24 * GIB, 32 * MIB);
    let machine = machine::<B>(&[reserved]);
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let altmap = Watched::new(&machine, reserved);
    let base_pages = base_pages.with_altmap(&altmap).unwrap();
    let compound = pagemap::<B>(&ranges, 2 * MIB, tails).with_huge_leaves(huge);
    let compound = compound.with_altmap(&altmap).unwrap();
    let rest = range::<B>(24 * GIB + 32 * MIB, GIB - 32 * MIB);

    let region = vmemmap.online(&mut table, &base_pages).unwrap();
    let before = audit(&vmemmap, &table, &machine, &[&altmap]);
    let (out, ram) = (altmap.altmap.in_use(), machine.frames().outstanding());
    for everything in [ranges[0], range::<B>(24 * GIB + 30 * MIB, 4 * MIB)] {
        let refused = vmemmap.fold(&mut table, &compound, everything);
        assert_eq!(refused.err(), Some(FoldError::Reserved { reserved }));
        let refused = vmemmap.unfold(&mut table, &compound, everything);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overlap);
        let refused = vmemmap.reshape(&table, &compound, everything);
        assert_eq!(refused, Err(FoldError::Reserved { reserved }));
    }

    let folded = vmemmap.fold(&mut table, &compound, rest).unwrap();
    assert_eq!(folded.changed, 496);
    let own = if tails == Tails::PerOrder { 1 } else { 2 };
    audit(&vmemmap, &table, &machine, &[&altmap]);
    assert_eq!(altmap.altmap.in_use(), altmap.holders + 496 * own);
    let tables = audit(&vmemmap, &table, &machine, &[&altmap]).leaf_tables;
    if B::HAS_TABLES {
        assert_eq!(tables, 8);
    }

    let unfolded = vmemmap.unfold(&mut table, &compound, rest).unwrap();
    assert_eq!(unfolded.changed, 496);
    let after = audit(&vmemmap, &table, &machine, &[&altmap]);
    assert_eq!(after.descriptor_frames, before.descriptor_frames);
    assert_eq!(altmap.altmap.in_use(), out);
    assert_eq!(machine.frames().outstanding(), ram);
    assert!(altmap.undescribed().is_none());
    let _ = vmemmap.offline(&mut table, region);
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

/// An altmap that is just large enough for what is folded cannot hold what is unfolded.
fn an_altmap_that_is_too_small_to_unfold_says_so<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, GIB)];
    let plain = pagemap::<B>(&ranges, 2 * MIB, Tails::PerCompound);
    let reserved = plain.altmap_needed().unwrap();
    let machine = machine::<B>(&[reserved]);
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let altmap = Watched::new(&machine, reserved);
    let pagemap = plain.with_altmap(&altmap).unwrap();
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let before = audit(&vmemmap, &table, &machine, &[&altmap]);
    let rest = range::<B>(25 * GIB - 512 * MIB, 512 * MIB);
    let refused = vmemmap.unfold(&mut table, &pagemap, rest);
    assert_eq!(refused.err(), Some(FoldError::AltmapExhausted { reserved }));
    assert_eq!(audit(&vmemmap, &table, &machine, &[&altmap]), before);
    let _ = vmemmap.offline(&mut table, region);
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

#[test]
fn fold_gives_frames_to_the_altmap_and_unfold_takes_them() {
    for huge in [false, true] {
        for tails in [Tails::PerCompound, Tails::PerOrder] {
            frames_come_from_and_go_back_to_the_altmap::<Sim>(huge, tails);
            frames_come_from_and_go_back_to_the_altmap::<X86_64>(huge, tails);
            frames_come_from_and_go_back_to_the_altmap::<X86_64La57>(huge, tails);
            frames_come_from_and_go_back_to_the_altmap::<AArch64_4K>(huge, tails);
        }
    }
}

#[test]
fn unfold_that_lacks_altmap_frames_changes_nothing() {
    an_altmap_that_is_too_small_to_unfold_says_so::<Sim>();
    an_altmap_that_is_too_small_to_unfold_says_so::<X86_64>();
    an_altmap_that_is_too_small_to_unfold_says_so::<AArch64_4K>();
}
