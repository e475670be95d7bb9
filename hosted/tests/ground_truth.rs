//! Every case that was measured on real Linux kernels costs the same here, on every backend with 4
//! KiB pages, for every piece.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::{Backend, BackendKind, Machine, MachineConfig, WithBackend};
use mm_core::addr::{Granule, PfnRange, PhysAddr};
use mm_core::descriptor::Page;
use mm_core::pagemap::{DevPagemap, Geometry, Piece};
use mm_core::vmemmap::{AuditReport, AuditSlot, Note, Vmemmap};

const CASES: &str = include_str!("data/linux_ground_truth.csv");
const MIB: u64 = 1 << 20;

struct Case {
    ranges: Vec<(u64, u64)>,
    align: u64,
    vmemmap_pages: u64,
    descriptor_frames: u64,
    leaf_tables: u64,
}

fn cases() -> Vec<Case> {
    let lines = CASES.lines().skip(1);
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        let range = |text: &str| {
            let (start, size) = text.split_once('+').unwrap();
            let mib = |text: &str| text.parse::<u64>().unwrap() * MIB;
            (mib(start), mib(size))
        };
        Case {
            ranges: fields[0].split(';').map(range).collect(),
            align: match fields[1] {
                "4K" => 4096,
                "2M" => 2 * MIB,
                "1G" => 1024 * MIB,
                other => panic!("align {other}"),
            },
            vmemmap_pages: number(2),
            descriptor_frames: number(3),
            leaf_tables: number(4),
        }
    };
    lines.map(parse).collect()
}

struct Online<'c>(&'c Case, Piece);

impl WithBackend for Online<'_> {
    type Output = (&'static str, bool, AuditReport, Vec<Note>);

    fn with<B: Backend>(self) -> Self::Output {
        let Online(case, piece) = self;
        let granule = B::MODEL.granule();
        let ranges: Vec<PfnRange> = case
            .ranges
            .iter()
            .map(|&(start, size)| {
                PfnRange::from_bytes(PhysAddr::new(start), size, granule).unwrap()
            })
            .collect();
        let machine = Machine::<B>::new(&MachineConfig {
            devices: ranges.clone(),
            ..MachineConfig::default()
        })
        .unwrap();
        let mut table = machine.take_table().unwrap();
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        let vmemmap =
            unsafe { Vmemmap::<Page, _, _>::new(B::MODEL, machine.frames(), machine.memory()) };
        let mut vmemmap = vmemmap.unwrap();
        let geometry = Geometry::from_bytes(case.align, granule).unwrap();
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, geometry)
            .unwrap()
            .with_piece(piece);
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let notes: Vec<Note> = region.notes().iter().collect();
        let mut scratch = vec![AuditSlot::default(); 1 << 17];
        let report = vmemmap
            .audit(&table, &[machine.frames()], &mut scratch)
            .unwrap();
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
        let after = vmemmap
            .audit(&table, &[machine.frames()], &mut scratch)
            .unwrap();
        assert_eq!(after, AuditReport::default());
        assert!(machine.violations().is_empty(), "{}", machine.violations());
        (B::NAME, B::HAS_TABLES, report, notes)
    }
}

/// The backends whose pages are as large as those that were measured.
fn backends() -> impl Iterator<Item = BackendKind> {
    let all = BackendKind::ALL.into_iter();
    all.filter(|backend| backend.model().granule() == Granule::Size4K)
}

#[test]
fn every_measured_case_costs_what_it_costs_on_linux() {
    let cases = cases();
    assert_eq!(cases.len(), 29);
    assert!(
        backends()
            .map(BackendKind::name)
            .eq(["sim", "x86_64", "x86_64-la57", "aarch64-4k"])
    );
    for (line, case) in cases.iter().enumerate() {
        for piece in [Piece::Section, Piece::Range, Piece::Subsection] {
            // A huge leaf needs a piece that covers all of it.
            let small_leaves = piece == Piece::Subsection && case.align == 4096;
            for backend in backends() {
                let (name, has_tables, report, notes) = backend.run(Online(case, piece));
                let context = format!("line {} {name} {piece:?}", line + 2);
                assert_eq!(report.mapped_pages, case.vmemmap_pages, "{context}");
                assert_eq!(
                    report.descriptor_frames, case.descriptor_frames,
                    "{context}"
                );
                // Ranges that have no place for a huge leaf miss none.
                let missed = small_leaves && case.leaf_tables < case.vmemmap_pages / 512;
                let expected: &[Note] = match missed {
                    true => &[Note::PiecesSmallerThanHugeLeaf],
                    false => &[],
                };
                assert_eq!(notes, expected, "{context}");
                if has_tables && !small_leaves {
                    assert_eq!(report.leaf_tables, case.leaf_tables, "{context}");
                }
                if !has_tables {
                    assert_eq!(report.leaf_tables + report.upper_tables, 0, "{context}");
                }
            }
        }
    }
}
