//! Devices whose descriptors lie in their own memory: compound pages share tails there too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod folding;
mod setup;
mod watched;

use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Backend, Machine, Sim, X86_64, X86_64La57};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::Descriptor;
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, FrameAllocator, InspectFrames, Released};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Piece, Tables, Tails};
use mm_core::paging::{PageTable, Role};
use mm_core::vmemmap::{AuditReport, Note, OfflineError, OnlineError, Plan, PlannedFrames};
use setup::{Array, assert_nothing_is_out, audit, holders_of, machine, pagemap, range, vmemmap};
use std::sync::atomic::Ordering;
use watched::Watched;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const NODE: NodeId = NodeId::new(0);
const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

/// A machine with one device that has the smallest altmap possible. Binds the names that are given.
macro_rules! device {
    ($ranges:expr, $align:expr, $tails:expr => $machine:ident, $table:ident, $vmemmap:ident, $altmap:ident, $pagemap:ident) => {
        let plain = pagemap::<B>($ranges, $align, $tails);
        let reserved = plain.altmap_needed().unwrap();
        let $machine = machine::<B>(&[reserved]);
        let mut $table = $machine.take_table().unwrap();
        let mut $vmemmap = vmemmap(&$machine);
        let $altmap = Watched::new(&$machine, reserved);
        let $pagemap = plain.with_altmap(&$altmap).unwrap();
    };
}

fn takes_the_fewest_subsections_for_16_gib<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 16 * GIB)];
    let cases = [
        (2 * MIB, Tails::PerCompound, 33, 16582, 0),
        (2 * MIB, Tails::PerOrder, 17, 8311, 1),
        (GIB, Tails::PerCompound, 9, 4096 + 30, 0),
        (GIB, Tails::PerOrder, 9, 4096 + 15, 1),
    ];
    for (align, tails, subsections, in_altmap, in_ram) in cases {
        device!(&ranges, align, tails => machine, table, vmemmap, altmap, plain);
        assert_eq!(altmap.reserved().frames(), subsections * 512);
        for piece in PIECES {
            let pagemap = plain.with_piece(piece);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            assert_eq!(region.tails(), tails);
            let used = subsections * 2 * MIB;
            let gap = (align == GIB).then(|| range::<B>(24 * GIB + used, GIB - used));
            let expected = gap.map(|frames| Note::AltmapGap { frames });
            assert!(region.notes().iter().eq(expected), "{:?}", region.notes());

            let report = audit(&vmemmap, &table, &machine, &[&altmap]);
            assert_eq!(altmap.altmap.in_use(), in_altmap);
            assert_eq!(report.descriptor_frames, in_altmap + in_ram);
            assert_eq!(report.mapped_pages, 65536);
            if B::HAS_TABLES {
                assert_eq!(report.leaf_tables, 128);
            }
            let tables = report.leaf_tables + report.upper_tables;
            assert_eq!(machine.frames().outstanding(), tables + in_ram);
            vmemmap.offline(&mut table, region);
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
        }
    }
}

fn shares_leaf_tables_too<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 4 * GIB)];
    // Leaf tables: 8 of the first GiB, one with each head, one for each tail frame.
    for (tails, own, in_ram) in [(Tails::PerCompound, 2, 0), (Tails::PerOrder, 1, 1)] {
        device!(&ranges, GIB, tails => machine, table, vmemmap, altmap, plain);
        for piece in PIECES {
            let pagemap = plain.with_piece(piece).with_tables(Tables::Shared);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            let report = audit(&vmemmap, &table, &machine, &[&altmap]);
            assert_eq!(report.descriptor_frames, 4096 + 3 * own + in_ram);
            if B::HAS_TABLES {
                assert_eq!(report.leaf_tables, 8 + 3 * own + in_ram);
            }
            assert_eq!(altmap.altmap.in_use(), 4096 + 3 * own);
            // A piece in the midst of shared tables, then the rest.
            let part = range::<B>(26 * GIB + 200 * MIB, 2 * MIB);
            vmemmap.depopulate(&mut table, &pagemap, part).unwrap();
            audit(&vmemmap, &table, &machine, &[&altmap]);
            vmemmap.offline(&mut table, region);
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
        }
    }
}

fn begins_with_base_pages_and_goes_on_with_compound_pages<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 3 * GIB), range::<B>(8 * GIB, GIB)];
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        device!(&ranges, GIB, tails => machine, table, vmemmap, altmap, pagemap);
        let order = pagemap.geometry().order();
        let base_pages = range::<B>(24 * GIB, GIB);
        assert_eq!(pagemap.base_pages(), Some(base_pages));
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let seen = |frame| {
            let descriptor = vmemmap.descriptor(&table, frame).unwrap();
            let head = vmemmap.head_of(&table, frame).unwrap();
            (descriptor.order(), descriptor.is_tail(), head)
        };
        for index in (0..base_pages.frames()).step_by(61) {
            let frame = base_pages.start().checked_add(index).unwrap();
            assert_eq!(seen(frame), (Order::BASE, false, frame));
        }
        for compound in [25 * GIB, 26 * GIB, 8 * GIB] {
            let head = range::<B>(compound, GIB).start();
            for index in [0, 1, 63, 64, 511, 512, 100_000, 262_143] {
                let frame = head.checked_add(index).unwrap();
                assert_eq!(seen(frame), (order, index > 0, head));
            }
        }
        // Every base page has a frame of its own, and no frame but the shared tail is RAM.
        let own = holders_of::<_, B>(&table, base_pages);
        assert_eq!(own.len(), 4096);
        assert!(own.iter().all(|(_, role)| *role == Role::Descriptors));
        for range in ranges {
            let mut holders = holders_of::<_, B>(&table, range);
            holders.retain(|(frame, _)| !altmap.contains(*frame));
            assert_eq!(holders.len(), usize::from(tails == Tails::PerOrder));
        }
        vmemmap.offline(&mut table, region);
        assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
    }
}

/// What tables say, read byte by byte.
fn hardware_sees_the_reserved_part_describe_itself<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 256 * MIB)];
    device!(&ranges, 2 * MIB, Tails::PerCompound => machine, table, vmemmap, altmap, pagemap);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let reserved = altmap.reserved();
    for index in 0..reserved.frames() / 64 {
        let described = reserved.start().checked_add(64 * index).unwrap();
        let at = B::MODEL.descriptor_address(described).unwrap();
        let expected = reserved.start().checked_add(index);
        let found = table.lookup(at).unwrap();
        assert_eq!(Some(found.leaf.block.first()), expected);
        if B::HAS_TABLES {
            let translation = B::translate(&machine, at).unwrap();
            assert_eq!(Some(translation.frame), expected);
        }
    }
    vmemmap.offline(&mut table, region);
}

fn counts_lie_in_the_descriptors_of_the_reserved_part<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 64 * MIB)];
    device!(&ranges, 2 * MIB, Tails::PerCompound => machine, table, vmemmap, altmap, pagemap);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let reserved = altmap.reserved();
    let mut by_count = [0; 9];
    for index in 0..reserved.frames() {
        let frame = reserved.start().checked_add(index).unwrap();
        let descriptor = vmemmap.descriptor(&table, frame).unwrap();
        let count = descriptor.references().load(Ordering::Relaxed);
        assert_eq!(altmap.altmap.references(frame), Some(count.into()));
        by_count[count as usize] += 1;
    }
    // 8 holders and 31 heads, and as many tail frames, mapped 7 times each.
    assert_eq!(by_count, [512 - 70, 8 + 31, 0, 0, 0, 0, 0, 31, 0]);
    vmemmap.offline(&mut table, region);
}

/// A machine's vmemmap, table and allocators, to let fail what can.
struct Bench<'a, 'm, B: Backend> {
    machine: &'m Machine<B>,
    table: &'a mut B::Table<'m>,
    vmemmap: &'a mut Array<'m>,
    altmaps: [&'a Watched<'m>; 2],
}

impl<B: Backend> Bench<'_, '_, B> {
    fn audit(&self) -> AuditReport {
        audit(self.vmemmap, self.table, self.machine, &self.altmaps)
    }

    /// Brings `pagemap` online and offline, with `limit` told how many allocations are let through,
    /// one more each time, until it succeeds. How many failures there were, and how many frames
    /// of RAM and of the second altmap it took then.
    fn fail_each(
        &mut self,
        pagemap: &DevPagemap<'_>,
        kind: ErrorKind,
        limit: impl Fn(Option<u64>),
    ) -> (u64, u64, u64) {
        let before = self.audit();
        let ram = self.machine.frames().outstanding();
        let mut failures = 0;
        loop {
            limit(Some(failures));
            let result = self.vmemmap.online(self.table, pagemap);
            limit(None);
            match result {
                Ok(region) => {
                    let taken = self.machine.frames().outstanding() - ram;
                    let in_altmap = self.altmaps[1].altmap.in_use();
                    self.audit();
                    self.vmemmap.offline(self.table, region);
                    assert_eq!(self.audit(), before);
                    return (failures, taken, in_altmap);
                }
                Err(error) => assert_eq!(error.kind(), kind, "{error}"),
            }
            failures += 1;
            assert_eq!(self.audit(), before);
            assert_eq!(self.machine.frames().outstanding(), ram);
            let altmap = self.altmaps[1];
            assert_eq!(altmap.undescribed(), Some(altmap.reserved()));
        }
    }
}

fn every_failed_allocation_leaves_everything_as_it_was<B: Backend>() {
    let near = [range::<B>(0, 64 * MIB)];
    let ranges = [range::<B>(64 * MIB, 192 * MIB)];
    let cases = [
        (2 * MIB, Tails::PerCompound),
        (2 * MIB, Tails::PerOrder),
        (64 * MIB, Tails::PerCompound),
        (4 * KIB, Tails::None),
    ];
    for (align, tails) in cases {
        let neighbour = pagemap::<B>(&near, 2 * MIB, Tails::PerCompound);
        let device = pagemap::<B>(&ranges, align, tails);
        let reserved = [neighbour, device].map(|one| one.altmap_needed().unwrap());
        let machine = machine::<B>(&reserved);
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap(&machine);
        let altmaps = reserved.map(|reserved| Watched::new(&machine, reserved));
        let neighbour = neighbour.with_altmap(&altmaps[0]).unwrap();
        let device = device.with_altmap(&altmaps[1]).unwrap();
        let other = vmemmap.online(&mut table, &neighbour).unwrap();
        let mut bench = Bench {
            machine: &machine,
            table: &mut table,
            vmemmap: &mut vmemmap,
            altmaps: [&altmaps[0], &altmaps[1]],
        };
        for piece in PIECES {
            let device = device.with_piece(piece).with_huge_leaves(false);
            let frames = machine.frames();
            let limit_ram = |left| match left {
                Some(left) => frames.fail_after(left),
                None => frames.no_more_faults(),
            };
            let (failures, ram, _) = bench.fail_each(&device, ErrorKind::OutOfFrames, limit_ram);
            assert_eq!(failures, ram);

            let left = &altmaps[1].left;
            let limit = |granted: Option<u64>| left.set(granted.unwrap_or(u64::MAX));
            let (failures, _, used) = bench.fail_each(&device, ErrorKind::AltmapExhausted, limit);
            assert_eq!(failures, used - altmaps[1].holders);
        }
        vmemmap.offline(&mut table, other);
        let after = audit(&vmemmap, &table, &machine, &[&altmaps[0], &altmaps[1]]);
        assert_eq!(after, AuditReport::default());
    }
}

fn one_subsection_less_is_exhausted_and_leaves_everything_as_it_was<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 16 * GIB)];
    let cases = [
        (2 * MIB, Tails::PerCompound),
        (2 * MIB, Tails::PerOrder),
        (GIB, Tails::PerCompound),
        (4 * KIB, Tails::None),
    ];
    for (align, tails) in cases {
        let plain = pagemap::<B>(&ranges, align, tails);
        let needed = plain.altmap_needed().unwrap();
        let small = needed.split_at(needed.frames() - 512).0.unwrap();
        let machine = machine::<B>(&[needed]);
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap(&machine);
        {
            let altmap = Watched::new(&machine, small);
            let pagemap = plain.with_altmap(&altmap).unwrap();
            let refused = vmemmap.online(&mut table, &pagemap);
            let exhausted = OnlineError::AltmapExhausted { reserved: small };
            assert_eq!(refused.err(), Some(exhausted));
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
        }
        let altmap = Watched::new(&machine, needed);
        let pagemap = plain.with_altmap(&altmap).unwrap();
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        audit(&vmemmap, &table, &machine, &[&altmap]);
        vmemmap.offline(&mut table, region);
        assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
    }
}

/// `count` indices in an order that has no pattern to speak of.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed | 1;
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

fn pieces_go_in_any_order_behind_the_reserved_part<B: Backend>() {
    let ranges = [
        range::<B>(24 * GIB, 192 * MIB),
        range::<B>(8 * GIB, 128 * MIB),
    ];
    for (align, tails) in [
        (64 * MIB, Tails::PerCompound),
        (64 * MIB, Tails::PerOrder),
        (2 * MIB, Tails::PerCompound),
        (4 * KIB, Tails::None),
    ] {
        device!(&ranges, align, tails => machine, table, vmemmap, altmap, plain);
        let pagemap = plain.with_piece(Piece::Subsection);
        let kept = altmap.reserved();
        let (reserved, others): (Vec<PfnRange>, Vec<PfnRange>) = pagemap
            .pieces()
            .partition(|piece| kept.contains_range(*piece));
        let (first, last) = (reserved[0], reserved[reserved.len() - 1]);
        for seed in 1..4 {
            for piece in &reserved {
                // Neither another piece nor a later one of the reserved part comes before its
                // start.
                let rest = altmap.undescribed().unwrap();
                for early in [others[0], others[others.len() - 1], last] {
                    if early != *piece {
                        let refused = vmemmap.populate(&mut table, &pagemap, early);
                        assert_eq!(refused, Err(OnlineError::ReservedFirst { rest }));
                    }
                }
                vmemmap.populate(&mut table, &pagemap, *piece).unwrap();
                audit(&vmemmap, &table, &machine, &[&altmap]);
            }
            for index in shuffled(others.len(), seed) {
                let piece = others[index];
                vmemmap.populate(&mut table, &pagemap, piece).unwrap();
                audit(&vmemmap, &table, &machine, &[&altmap]);
            }
            let again = vmemmap.populate(&mut table, &pagemap, first);
            assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyOnline);

            for index in shuffled(others.len(), seed + 77) {
                let before = audit(&vmemmap, &table, &machine, &[&altmap]);
                for early in &reserved {
                    let refused = vmemmap.depopulate(&mut table, &pagemap, *early);
                    assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfOrder);
                }
                let after = audit(&vmemmap, &table, &machine, &[&altmap]);
                assert_eq!(after, before);
                let piece = others[index];
                vmemmap.depopulate(&mut table, &pagemap, piece).unwrap();
            }
            assert_eq!(altmap.altmap.in_use(), altmap.holders);
            if first != last {
                let refused = vmemmap.depopulate(&mut table, &pagemap, first);
                let online = ranges[0].split_at(512).1.unwrap();
                assert_eq!(refused, Err(OfflineError::ReservedLast { online }));
                vmemmap.depopulate(&mut table, &pagemap, last).unwrap();
                audit(&vmemmap, &table, &machine, &[&altmap]);
                vmemmap.populate(&mut table, &pagemap, last).unwrap();
            }
            for piece in reserved.iter().rev() {
                vmemmap.depopulate(&mut table, &pagemap, *piece).unwrap();
                audit(&vmemmap, &table, &machine, &[&altmap]);
            }
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
        }
    }
}

fn a_piece_with_the_reserved_part_and_more_goes_offline_as_one<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 256 * MIB)];
    device!(&ranges, 2 * MIB, Tails::PerCompound => machine, table, vmemmap, altmap, plain);
    let pagemap = plain.with_piece(Piece::Section);
    let pieces: Vec<PfnRange> = pagemap.pieces().collect();
    assert_eq!(pieces.len(), 2);
    for piece in &pieces {
        vmemmap.populate(&mut table, &pagemap, *piece).unwrap();
    }
    let refused = vmemmap.depopulate(&mut table, &pagemap, pieces[0]);
    let online = pieces[1];
    assert_eq!(refused, Err(OfflineError::ReservedLast { online }));
    for piece in pieces.iter().rev() {
        vmemmap.depopulate(&mut table, &pagemap, *piece).unwrap();
    }
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

fn two_devices_keep_to_their_own_altmaps<B: Backend>() {
    // They share a leaf table.
    let ranges = [
        [range::<B>(24 * GIB, 64 * MIB)],
        [range::<B>(24 * GIB + 64 * MIB, 192 * MIB)],
    ];
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let plain = [0, 1].map(|one: usize| {
            pagemap::<B>(&ranges[one], 2 * MIB, tails).with_piece(Piece::Subsection)
        });
        let reserved = plain.map(|plain| plain.altmap_needed().unwrap());
        let machine = machine::<B>(&reserved);
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap(&machine);
        let altmaps = reserved.map(|reserved| Watched::new(&machine, reserved));
        let both = [&altmaps[0], &altmaps[1]];
        let devices = [0, 1].map(|one: usize| plain[one].with_altmap(both[one]).unwrap());
        let pieces = devices.map(|device| device.pieces().collect::<Vec<PfnRange>>());
        for index in 0..pieces[1].len() {
            for (device, pieces) in devices.iter().zip(&pieces) {
                if let Some(piece) = pieces.get(index) {
                    vmemmap.populate(&mut table, device, *piece).unwrap();
                    audit(&vmemmap, &table, &machine, &both);
                }
            }
        }
        for (altmap, ranges) in altmaps.iter().zip(&ranges) {
            for (frame, role) in holders_of::<_, B>(&table, ranges[0]) {
                let shared = tails == Tails::PerOrder && role == Role::Tail;
                assert_eq!(altmap.contains(frame), !shared);
            }
        }
        let used = altmaps[1].altmap.in_use();
        for piece in pieces[0].iter().rev() {
            vmemmap.depopulate(&mut table, &devices[0], *piece).unwrap();
            audit(&vmemmap, &table, &machine, &both);
        }
        let in_use = both.map(|altmap| altmap.altmap.in_use());
        assert_eq!(in_use, [0, used]);
        // The first comes again beside the second, which then goes before it.
        let region = vmemmap.online(&mut table, &devices[0]).unwrap();
        for piece in pieces[1].iter().rev() {
            vmemmap.depopulate(&mut table, &devices[1], *piece).unwrap();
        }
        audit(&vmemmap, &table, &machine, &both);
        vmemmap.offline(&mut table, region);
        let after = audit(&vmemmap, &table, &machine, &both);
        assert_eq!(after, AuditReport::default());
    }
}

fn base_pages_have_huge_leaves_from_the_altmap<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 16 * GIB)];
    device!(&ranges, 4 * KIB, Tails::None => machine, table, vmemmap, altmap, pagemap);
    assert_eq!(altmap.reserved().frames(), 128 * 512);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    assert!(region.notes().is_empty(), "{:?}", region.notes());
    let report = audit(&vmemmap, &table, &machine, &[&altmap]);
    assert_eq!((report.descriptor_frames, report.leaf_tables), (65536, 0));
    // The reserved part is two sections, each described by one leaf: the first two blocks.
    let at = B::MODEL.descriptor_address(ranges[0].start()).unwrap();
    let leaf = table.lookup(at).unwrap().leaf;
    assert_eq!(leaf.block.first(), ranges[0].start());
    assert_eq!(Some(leaf.block.order()), table.huge_leaf());
    assert_eq!(altmap.altmap.references(leaf.block.first()), Some(1));
    assert_eq!(machine.frames().outstanding(), report.upper_tables);
    vmemmap.offline(&mut table, region);
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

fn huge_leaves_that_cannot_describe_themselves_are_reported<B: Backend>() {
    // The reserved part has room for what a huge leaf describes, but does not start at a multiple
    // of that.
    let ranges = [range::<B>(24 * GIB + 64 * MIB, 17 * GIB - 64 * MIB)];
    device!(&ranges, 4 * KIB, Tails::None => machine, table, vmemmap, altmap, pagemap);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let notes: Vec<Note> = region.notes().iter().collect();
    let [Note::HugeLeavesUnavailable { leaves }] = notes[..] else {
        panic!("{notes:?}");
    };
    // That one, and those for which base pages have left no whole block.
    assert!((1..=3).contains(&leaves), "{leaves}");
    let report = audit(&vmemmap, &table, &machine, &[&altmap]);
    assert_eq!(report.descriptor_frames, altmap.altmap.in_use());
    if B::HAS_TABLES {
        assert!(report.leaf_tables <= leaves + 3, "{report:?}");
    }
    vmemmap.offline(&mut table, region);
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

fn an_altmap_that_does_not_fit_is_refused_by_name<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 2 * GIB)];
    let machine = machine::<B>(&[]);
    let plain = pagemap::<B>(&ranges, GIB, Tails::PerCompound);
    let whole = Watched::new(&machine, ranges[0]);
    let too_much = Watched::new(&machine, range::<B>(24 * GIB, GIB + 2 * MIB));
    for altmap in [&whole, &too_much] {
        let expected = PagemapError::NoCompoundPage {
            reserved: altmap.reserved().frames(),
            range: ranges[0],
        };
        assert_eq!(plain.with_altmap(altmap).err(), Some(expected));
    }
    let elsewhere = Watched::new(&machine, range::<B>(25 * GIB, 2 * MIB));
    let expected = PagemapError::AltmapElsewhere {
        reserved: elsewhere.reserved(),
        range: ranges[0],
    };
    assert_eq!(plain.with_altmap(&elsewhere).err(), Some(expected));
    // Base pages may describe themselves and nothing else.
    let base_pages = pagemap::<B>(&ranges, 4 * KIB, Tails::None);
    assert!(base_pages.with_altmap(&whole).is_ok());
}

fn plans_say_where_base_pages_end<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 2 * GIB)];
    let machine = machine::<B>(&[]);
    let altmap = Watched::new(&machine, range::<B>(24 * GIB, 18 * MIB));
    let plain = pagemap::<B>(&ranges, GIB, Tails::PerCompound);
    let pagemap = plain.with_altmap(&altmap).unwrap();
    let plan = Plan::new(&pagemap, ranges[0], Order::new(9)).unwrap();
    let head = range::<B>(25 * GIB, GIB).start();
    let runs: Vec<_> = plan
        .map(|run| (run.pages, run.order.get(), run.frames))
        .collect();
    assert_eq!(
        runs,
        [
            (72, 0, PlannedFrames::Own),
            (4024, 0, PlannedFrames::Own),
            (1, 18, PlannedFrames::Own),
            (4095, 18, PlannedFrames::Tail { head }),
        ]
    );
}

fn a_frame_that_is_kept_over_offline_is_not_handed_out_twice<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, 64 * MIB)];
    device!(&ranges, 2 * MIB, Tails::PerCompound => machine, table, vmemmap, altmap, pagemap);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let kept = altmap.allocate(Order::BASE, NODE).unwrap();
    vmemmap.offline(&mut table, region);
    let refused = vmemmap.online(&mut table, &pagemap).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::AltmapExhausted);
    assert_eq!(altmap.altmap.in_use(), 1);
    assert_eq!(machine.frames().outstanding(), 0);
    // SAFETY: 1 and 2: allocated above and used by nobody.
    match unsafe { altmap.altmap.release(kept, 1) } {
        Released::Last(block) => altmap.altmap.free(block),
        Released::Shared => panic!("one reference"),
    }
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    audit(&vmemmap, &table, &machine, &[&altmap]);
    vmemmap.offline(&mut table, region);
    assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
}

/// Compound pages of eight vmemmap pages, whatever the granule.
fn works_with_the_subsections_of_each_granule<B: Backend>() {
    let model = B::MODEL;
    let order = Order::new(model.vmemmap_page_order().get() + 3).unwrap();
    let frames = |count: u64| count * order.frames();
    let start = Pfn::new(frames(1 << 10)).unwrap();
    let ranges = [PfnRange::new(start, frames(600)).unwrap()];
    for (tails, own, in_ram) in [(Tails::PerCompound, 2, 0), (Tails::PerOrder, 1, 1)] {
        let plain = DevPagemap::new(&model, &ranges, Geometry::compound(order))
            .unwrap()
            .with_tails(tails);
        let reserved = plain.altmap_needed().unwrap();
        let machine = machine::<B>(&[reserved]);
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap(&machine);
        let altmap = Watched::new(&machine, reserved);
        let pagemap = plain.with_altmap(&altmap).unwrap();
        let base_pages = pagemap.base_pages().unwrap();
        let compound = 600 - base_pages.frames() / order.frames();
        for piece in PIECES {
            let pagemap = pagemap.with_piece(piece);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            audit(&vmemmap, &table, &machine, &[&altmap]);
            let needed = (600 - compound) * 8 + compound * own;
            assert_eq!(altmap.altmap.in_use(), needed);
            let fewer = reserved.frames() - model.subsection().frames();
            assert!(needed > fewer || fewer.is_multiple_of(order.frames()));
            for frame in [start, base_pages.last()] {
                assert_eq!(vmemmap.head_of(&table, frame), Some(frame));
            }
            let head = base_pages.last().checked_add(1).unwrap();
            let last = head.checked_add(frames(1) - 1).unwrap();
            assert_eq!(vmemmap.head_of(&table, last), Some(head));
            vmemmap.offline(&mut table, region);
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);

            let mut failures = 0;
            machine.frames().fail_after(failures);
            while let Err(error) = vmemmap.online(&mut table, &pagemap).map(|region| {
                machine.frames().no_more_faults();
                vmemmap.offline(&mut table, region);
            }) {
                assert_eq!(error.kind(), ErrorKind::OutOfFrames);
                failures += 1;
                machine.frames().no_more_faults();
                assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
                machine.frames().fail_after(failures);
            }
            assert_nothing_is_out(&vmemmap, &table, &machine, &altmap);
            assert!(!B::HAS_TABLES || failures > in_ram);
        }
    }
}

#[test]
fn works_with_16k_and_64k_pages() {
    works_with_the_subsections_of_each_granule::<AArch64_16K>();
    works_with_the_subsections_of_each_granule::<AArch64_64K>();
}

macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        mod altmap {
            use super::{AArch64_4K, Sim, X86_64, X86_64La57};
            $(#[test]
            fn $test() {
                super::$test::<Sim>();
                super::$test::<X86_64>();
                super::$test::<X86_64La57>();
                super::$test::<AArch64_4K>();
            })*
        }
    };
}

on_each_backend!(
    takes_the_fewest_subsections_for_16_gib,
    shares_leaf_tables_too,
    begins_with_base_pages_and_goes_on_with_compound_pages,
    hardware_sees_the_reserved_part_describe_itself,
    counts_lie_in_the_descriptors_of_the_reserved_part,
    every_failed_allocation_leaves_everything_as_it_was,
    one_subsection_less_is_exhausted_and_leaves_everything_as_it_was,
    pieces_go_in_any_order_behind_the_reserved_part,
    a_piece_with_the_reserved_part_and_more_goes_offline_as_one,
    two_devices_keep_to_their_own_altmaps,
    base_pages_have_huge_leaves_from_the_altmap,
    huge_leaves_that_cannot_describe_themselves_are_reported,
    an_altmap_that_does_not_fit_is_refused_by_name,
    plans_say_where_base_pages_end,
    a_frame_that_is_kept_over_offline_is_not_handed_out_twice,
    works_with_the_subsections_of_each_granule,
);
