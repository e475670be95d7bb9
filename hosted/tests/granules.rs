//! What memory costs on every granule, against closed formulas over page size, range and compound
//! size.
//!
//! Descriptors are read back byte by byte, through the walker that shares no code with the engine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Backend, Machine, MachineConfig, MachineError};
use mm_core::addr::{Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::descriptor::{Mask, Page, TailEncoding};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Piece, Tails, TailsFallback};
use mm_core::vmemmap::{AuditReport, AuditSlot, Note, OnlineError, Vmemmap};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DESCRIPTOR: u64 = 64;
const PIECES: [Piece; 3] = [Piece::Section, Piece::Range, Piece::Subsection];

/// What is brought online: where, how much, in pages of which size.
#[derive(Clone, Copy, Debug)]
struct Case {
    start: u64,
    bytes: u64,
    align: u64,
}

const fn case(start: u64, bytes: u64, align: u64) -> Case {
    Case {
        start,
        bytes,
        align,
    }
}

/// A granule, as far as the formulas need it.
#[derive(Clone, Copy, Debug)]
struct Costs {
    page: u64,
}

impl Costs {
    /// The memory that one vmemmap page describes.
    fn per_vmemmap_page(self) -> u64 {
        self.page * (self.page / DESCRIPTOR)
    }

    /// The vmemmap pages of one compound page.
    fn pages_of(self, align: u64) -> u64 {
        align.div_ceil(self.per_vmemmap_page())
    }

    /// Whether a compound page has fewer frames than vmemmap pages when it takes `frames`.
    fn saves(self, align: u64, frames: u64) -> bool {
        align > self.page && self.pages_of(align) > frames
    }

    /// The frames of base-page vmemmap.
    fn all_pages(self, case: Case) -> u64 {
        case.bytes / self.per_vmemmap_page()
    }

    /// How many tables, each with the vmemmap of 2^`span` bytes of addresses, `case` touches.
    fn tables(self, case: Case, span: u32) -> u64 {
        let offset = |at: u64| at / self.page * DESCRIPTOR;
        let last = offset(case.start + case.bytes) - 1;
        (last >> span) - (offset(case.start) >> span) + 1
    }

    /// The address bits that the tables of each level translate, leaf tables first, the root left
    /// out.
    fn spans(self) -> impl Iterator<Item = u32> {
        let page_bits = self.page.ilog2();
        let index_bits = page_bits - 3;
        (1..)
            .map(move |level| page_bits + level * index_bits)
            .take_while(|span| *span < 48)
    }

    /// The figures without huge leaves, with `frames` frames for descriptors.
    fn report(self, case: Case, frames: u64) -> AuditReport {
        let tables: Vec<u64> = self.spans().map(|span| self.tables(case, span)).collect();
        AuditReport {
            descriptor_frames: frames,
            leaf_tables: tables[0],
            upper_tables: tables[1..].iter().sum(),
            mapped_pages: self.all_pages(case),
            mark_frames: 0,
        }
    }
}

struct Outcome {
    report: AuditReport,
    notes: Vec<Note>,
}

/// Brings `case` online, compares every sampled descriptor, takes it offline, and looks for what is
/// left.
fn online<B: Backend, E: TailEncoding>(case: Case, tails: Tails, piece: Piece) -> Outcome {
    let granule = B::MODEL.granule();
    let range = PfnRange::from_bytes(PhysAddr::new(case.start), case.bytes, granule).unwrap();
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![range],
        ..MachineConfig::default()
    })
    .unwrap();
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap =
        unsafe { Vmemmap::<Page<E>, _, _>::new(B::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap = vmemmap.unwrap();
    let ranges = [range];
    let geometry = Geometry::from_bytes(case.align, granule).unwrap();
    let pagemap = DevPagemap::new(&B::MODEL, &ranges, geometry)
        .unwrap()
        .with_tails(tails)
        .with_piece(piece);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let notes = region.notes().iter().collect();
    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    let report = vmemmap
        .audit(&table, &[machine.frames()], &mut scratch)
        .unwrap();
    for frame in sample(case, granule.bytes()) {
        let frame = Pfn::new(frame).unwrap();
        let head = frame.get() / (case.align >> granule.shift()) * (case.align >> granule.shift());
        let head = Pfn::new(head).unwrap();
        assert_eq!(vmemmap.head_of(&table, frame), Some(head), "{case:?}");
        let (word, order) = bytes_of(&machine, frame);
        assert_eq!(order, geometry.order().get(), "{case:?} {frame}");
        assert_eq!(word == E::head_word(), frame == head, "{case:?} {frame}");
        if !E::SAME_FOR_ALL && frame != head {
            let base = B::MODEL.config().vmemmap_base.get();
            assert_eq!(word, base + head.get() * DESCRIPTOR + 1, "{case:?} {frame}");
        }
    }
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
    let after = vmemmap
        .audit(&table, &[machine.frames()], &mut scratch)
        .unwrap();
    assert_eq!(after, AuditReport::default());
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    Outcome { report, notes }
}

/// Frames of a few compound pages: the first and last ones of the range and of what each vmemmap
/// page and each leaf table describes nearby.
fn sample(case: Case, page: u64) -> BTreeSet<u64> {
    let (first, end) = (case.start / page, (case.start + case.bytes) / page);
    let compound = case.align / page;
    let edges = [page / DESCRIPTOR, page / 8 * (page / DESCRIPTOR), compound];
    let near = [
        first,
        first + compound,
        (first + end) / 2,
        end - compound,
        end,
    ];
    let numbers = near.iter().flat_map(|at| {
        let around = edges.iter().flat_map(move |edge| {
            let boundary = at / edge * edge;
            [
                boundary.wrapping_sub(1),
                boundary,
                boundary + 1,
                boundary + edge,
            ]
        });
        around.chain([at.wrapping_sub(1), *at, at + 1])
    });
    numbers
        .filter(|number| (first..end).contains(number))
        .collect()
}

/// Word and order of the descriptor of `frame`, as the CPU would read them.
fn bytes_of<B: Backend>(machine: &Machine<B>, frame: Pfn) -> (u64, u8) {
    let at = B::MODEL.config().vmemmap_base.get() + frame.get() * DESCRIPTOR;
    let at = VirtAddr::new(at);
    let leaf = B::translate(machine, at).unwrap();
    assert!(leaf.global && !leaf.executable);
    let physical = leaf.address(at, B::MODEL.granule()).get();
    let read = |offset| {
        let word = machine.memory().read_u64(PhysAddr::new(physical + offset));
        word.unwrap()
    };
    (read(8), read(24) as u8)
}

/// Compound pages that share tails, at ranges that start and end within leaf tables and within
/// sections.
fn tails_cost_two_frames_for_each_compound_page<B: Backend>(cases: &[Case]) {
    let costs = Costs {
        page: B::MODEL.granule().bytes(),
    };
    for &case in cases {
        assert!(costs.saves(case.align, 2), "{case:?}");
        let pages = case.bytes / case.align;
        for piece in PIECES {
            let outcome =
                online::<B, mm_core::descriptor::Pointer>(case, Tails::PerCompound, piece);
            assert_eq!(outcome.report, costs.report(case, 2 * pages), "{case:?}");
            assert_eq!(outcome.notes, []);
            let outcome = online::<B, Mask>(case, Tails::PerOrder, piece);
            assert_eq!(outcome.report, costs.report(case, pages + 1), "{case:?}");
            assert_eq!(outcome.notes, []);
        }
    }
}

/// Compound pages with so few descriptors that a tail frame of their own saves nothing.
fn small_compound_pages_are_populated_as_base_pages<B: Backend>(cases: &[Case]) {
    let costs = Costs {
        page: B::MODEL.granule().bytes(),
    };
    for &case in cases {
        assert!(!costs.saves(case.align, 2), "{case:?}");
        let fallback = Note::Tails(TailsFallback::NothingToSave {
            order: mm_core::addr::Order::from_bytes(case.align, B::MODEL.granule()).unwrap(),
            vmemmap_pages: costs.pages_of(case.align),
        });
        for piece in PIECES {
            let outcome =
                online::<B, mm_core::descriptor::Pointer>(case, Tails::PerCompound, piece);
            let expected = costs.report(case, costs.all_pages(case));
            assert_eq!(outcome.report, expected, "{case:?}");
            assert_eq!(outcome.notes, [fallback], "{case:?}");
        }
    }
}

/// Two vmemmap pages save one frame where the tail is everybody's.
fn two_vmemmap_pages_are_worth_a_tail_that_all_share<B: Backend>() {
    let costs = Costs {
        page: B::MODEL.granule().bytes(),
    };
    let align = 2 * costs.per_vmemmap_page();
    let case = case(24 * GIB, 8 * align, align);
    let outcome = online::<B, Mask>(case, Tails::PerOrder, Piece::Section);
    assert_eq!(outcome.report, costs.report(case, 8 + 1));
    assert_eq!(outcome.notes, []);
}

#[test]
fn natural_compound_pages_cost_two_frames_each_on_every_granule() {
    tails_cost_two_frames_for_each_compound_page::<AArch64_4K>(&[
        case(24 * GIB, GIB, 2 * MIB),
        case(24 * GIB + 2 * MIB, 126 * MIB, 2 * MIB),
        case(24 * GIB, 4 * GIB, GIB),
    ]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_16K>(&[
        case(24 * GIB, 4 * GIB, 32 * MIB),
        case(24 * GIB + 32 * MIB, 96 * MIB, 32 * MIB),
        // Across a boundary of leaf tables.
        case(32 * GIB - 64 * MIB, GIB, 32 * MIB),
        case(24 * GIB, 16 * GIB, GIB),
        case(29 * GIB, 7 * GIB, GIB),
        // The least that saves something.
        case(24 * GIB, 256 * MIB, 16 * MIB),
    ]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_64K>(&[
        case(512 * GIB, 16 * GIB, 512 * MIB),
        case(512 * GIB - GIB, 2 * GIB + 512 * MIB, 512 * MIB),
        case(512 * GIB, 64 * GIB, 16 * GIB),
        case(512 * GIB - 32 * GIB, 64 * GIB, 16 * GIB),
        case(24 * GIB, 2 * GIB, 256 * MIB),
    ]);
}

#[test]
fn compound_pages_larger_than_what_a_leaf_table_describes_share_one_tail_frame() {
    tails_cost_two_frames_for_each_compound_page::<AArch64_4K>(&[case(0, 4 * GIB, 2 * GIB)]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_16K>(&[
        case(0, 64 * GIB, 16 * GIB),
        case(TIB, TIB, TIB),
    ]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_64K>(&[case(TIB, TIB, TIB)]);
}

#[test]
fn the_first_and_the_last_memory_of_the_model_comes_online() {
    let last = (1 << 48) - GIB;
    let last_large = (1 << 48) - 16 * GIB;
    tails_cost_two_frames_for_each_compound_page::<AArch64_4K>(&[
        case(0, GIB, GIB),
        case(last, GIB, GIB),
    ]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_16K>(&[
        case(0, GIB, GIB),
        case(last, GIB, GIB),
    ]);
    tails_cost_two_frames_for_each_compound_page::<AArch64_64K>(&[
        case(0, 16 * GIB, 16 * GIB),
        case(last_large, 16 * GIB, 16 * GIB),
    ]);
}

#[test]
fn compound_pages_with_two_vmemmap_pages_or_fewer_are_populated_as_base_pages_and_reported() {
    // Several heads in each vmemmap page, one, and one in every other.
    small_compound_pages_are_populated_as_base_pages::<AArch64_4K>(&[
        case(24 * GIB, 64 * MIB, 8 << 10),
        case(24 * GIB + 2 * MIB, 62 * MIB, 64 << 10),
        case(24 * GIB, 64 * MIB, 256 << 10),
        case(24 * GIB, 64 * MIB, 512 << 10),
    ]);
    small_compound_pages_are_populated_as_base_pages::<AArch64_16K>(&[
        case(24 * GIB, GIB, 32 << 10),
        case(24 * GIB + 4 * MIB, 132 * MIB, 2 * MIB),
        case(24 * GIB, GIB, 4 * MIB),
        // A subsection is half of such a page.
        case(24 * GIB + 8 * MIB, 248 * MIB, 8 * MIB),
    ]);
    small_compound_pages_are_populated_as_base_pages::<AArch64_64K>(&[
        case(24 * GIB, 4 * GIB, 128 << 10),
        case(24 * GIB + 64 * MIB, 960 * MIB, 2 * MIB),
        case(24 * GIB, 4 * GIB, 64 * MIB),
        case(24 * GIB + 128 * MIB, 4 * GIB, 128 * MIB),
    ]);
}

#[test]
fn two_vmemmap_pages_are_worth_a_tail_of_the_order() {
    two_vmemmap_pages_are_worth_a_tail_that_all_share::<AArch64_4K>();
    two_vmemmap_pages_are_worth_a_tail_that_all_share::<AArch64_16K>();
    two_vmemmap_pages_are_worth_a_tail_that_all_share::<AArch64_64K>();
}

/// With 16 KiB pages a huge leaf describes 8 GiB, 64 sections: pieces of sections have no place for
/// one.
#[test]
fn base_pages_get_huge_leaves_only_where_a_piece_covers_all_that_one_describes() {
    let costs = Costs { page: 16 << 10 };
    let page = costs.page;
    let base = |case, piece| online::<AArch64_16K, Mask>(case, Tails::PerCompound, piece);
    let reported = [Note::Tails(TailsFallback::BasePages)];
    let too_small = [reported[0], Note::PiecesSmallerThanHugeLeaf];

    // Two whole leaves: no leaf table.
    let whole = case(24 * GIB, 16 * GIB, page);
    let outcome = base(whole, Piece::Range);
    let expected = costs.report(whole, costs.all_pages(whole));
    let no_leaf_tables = AuditReport {
        leaf_tables: 0,
        ..expected
    };
    assert_eq!(
        (outcome.report, outcome.notes),
        (no_leaf_tables, reported.to_vec())
    );
    for piece in [Piece::Section, Piece::Subsection] {
        let outcome = base(whole, piece);
        assert_eq!(
            (outcome.report, outcome.notes),
            (expected, too_small.to_vec())
        );
    }

    // One whole leaf in the middle, and a table at each end.
    let ragged = case(24 * GIB - 4 * MIB, 8 * GIB + 132 * MIB, page);
    let outcome = base(ragged, Piece::Range);
    let expected = costs.report(ragged, costs.all_pages(ragged));
    let two_leaf_tables = AuditReport {
        leaf_tables: 2,
        ..expected
    };
    assert_eq!(expected.leaf_tables, 3);
    assert_eq!(
        (outcome.report, outcome.notes),
        (two_leaf_tables, reported.to_vec())
    );

    // No whole leaf: nothing is missed, whatever the pieces.
    let small = case(28 * GIB, 8 * GIB, page);
    for piece in PIECES {
        let outcome = base(small, piece);
        let expected = costs.report(small, costs.all_pages(small));
        assert_eq!(
            (outcome.report, outcome.notes),
            (expected, reported.to_vec())
        );
    }
}

#[test]
fn base_pages_of_64_kib_cost_a_frame_for_each_vmemmap_page() {
    let costs = Costs { page: 64 << 10 };
    for (start, bytes) in [(24 * GIB, 4 * GIB), (512 * GIB - 64 * MIB, 192 * MIB)] {
        let case = case(start, bytes, costs.page);
        for piece in PIECES {
            let outcome = online::<AArch64_64K, Mask>(case, Tails::PerCompound, piece);
            assert_eq!(outcome.report, costs.report(case, costs.all_pages(case)));
            assert_eq!(outcome.notes, [Note::Tails(TailsFallback::BasePages)]);
        }
    }
}

fn every_failed_allocation_leaves_everything_as_it_was<B: Backend>(case: Case) {
    let granule = B::MODEL.granule();
    let ranges = [PfnRange::from_bytes(PhysAddr::new(case.start), case.bytes, granule).unwrap()];
    let machine = Machine::<B>::new(&MachineConfig {
        devices: ranges.to_vec(),
        ..MachineConfig::default()
    })
    .unwrap();
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap =
        unsafe { Vmemmap::<Page, _, _>::new(B::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap = vmemmap.unwrap();
    let geometry = Geometry::from_bytes(case.align, granule).unwrap();
    let pagemap = DevPagemap::new(&B::MODEL, &ranges, geometry).unwrap();
    let root = |machine: &Machine<B>| machine.memory().page_bytes(machine.root());
    let before = root(&machine);
    let mut failures = 0;
    let region = loop {
        machine.frames().fail_after(failures);
        let online = vmemmap.online(&mut table, &pagemap);
        machine.frames().no_more_faults();
        match online {
            Ok(region) => break region,
            Err(OnlineError::OutOfFrames(_)) => failures += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!(machine.frames().outstanding(), 0);
        assert_eq!(root(&machine), before);
    };
    assert_eq!(failures, machine.frames().outstanding());
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

#[test]
fn every_failed_allocation_leaves_everything_as_it_was_on_every_granule() {
    let across = case(32 * GIB - 256 * MIB, 512 * MIB, 32 * MIB);
    every_failed_allocation_leaves_everything_as_it_was::<AArch64_16K>(across);
    let across = case(512 * GIB - GIB, 2 * GIB, 512 * MIB);
    every_failed_allocation_leaves_everything_as_it_was::<AArch64_64K>(across);
    let across = case(24 * GIB + 126 * MIB, 4 * MIB, 2 * MIB);
    every_failed_allocation_leaves_everything_as_it_was::<AArch64_4K>(across);
}

fn ram_lies_where_no_device_does<B: Backend>() {
    let granule = B::MODEL.granule();
    let all = B::MODEL.all_frames();
    assert_eq!(all.last(), B::LAST_FRAME);
    let device =
        |start: u64, bytes| PfnRange::from_bytes(PhysAddr::new(start), bytes, granule).unwrap();
    for devices in [
        vec![device(0, 1 << 47)],
        vec![device(1 << 47, 1 << 47)],
        vec![device(0, TIB), device(2 * TIB, (1 << 48) - 2 * TIB)],
    ] {
        let machine = Machine::<B>::new(&MachineConfig {
            devices: devices.clone(),
            ..MachineConfig::default()
        });
        let machine = machine.unwrap();
        for chunk in machine.memory().chunks() {
            assert!(chunk.last() <= B::LAST_FRAME);
            assert!(!devices.iter().any(|device| device.overlaps(chunk)));
        }
    }
    let everything = Machine::<B>::new(&MachineConfig {
        devices: vec![all],
        ..MachineConfig::default()
    });
    assert!(matches!(everything, Err(MachineError::NoRoomForRam { .. })));
}

#[test]
fn ram_lies_where_no_device_does_on_every_granule() {
    ram_lies_where_no_device_does::<AArch64_4K>();
    ram_lies_where_no_device_does::<AArch64_16K>();
    ram_lies_where_no_device_does::<AArch64_64K>();
}

#[test]
fn ranges_are_whole_subsections_of_the_granule() {
    fn refused<B: Backend>(start: u64, bytes: u64, unit: u64) {
        let granule = B::MODEL.granule();
        let ranges = [PfnRange::from_bytes(PhysAddr::new(start), bytes, granule).unwrap()];
        let refusal = DevPagemap::new(&B::MODEL, &ranges, Geometry::BASE_PAGES).unwrap_err();
        let PagemapError::Misaligned { order, .. } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!(order.bytes(granule), Some(unit));
    }
    refused::<AArch64_4K>(MIB, 2 * MIB, 2 * MIB);
    refused::<AArch64_16K>(2 * MIB, 4 * MIB, 4 * MIB);
    refused::<AArch64_16K>(4 * MIB, 6 * MIB, 4 * MIB);
    refused::<AArch64_64K>(32 * MIB, 64 * MIB, 64 * MIB);
    assert_eq!(
        Geometry::from_bytes(4096, AArch64_16K::MODEL.granule()),
        None
    );
}
