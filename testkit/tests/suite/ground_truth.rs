//! Every case that was measured on real Linux kernels costs the same here, on every backend with 4
//! KiB pages, for every piece.

use hosted::BackendKind;
use mm_core::addr::{PfnRange, PhysAddr};
use mm_core::pagemap::{DevPagemap, Geometry, Piece};
use mm_core::vmemmap::Note;
use testkit::testbed::Setup;
use testkit::{OnBackend, on_backends};

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

fn every_measured_case_costs_what_it_costs_on_linux(kind: BackendKind) {
    let model = kind.model();
    let cases = cases();
    assert_eq!(cases.len(), 29);
    for (line, case) in cases.iter().enumerate() {
        let range = |&(start, size): &(u64, u64)| {
            PfnRange::from_bytes(PhysAddr::new(start), size, model.granule()).unwrap()
        };
        let ranges: Vec<PfnRange> = case.ranges.iter().map(range).collect();
        let geometry = Geometry::from_bytes(case.align, model.granule()).unwrap();
        let pagemap = DevPagemap::new(&model, &ranges, geometry).unwrap();
        kind.testbed(&Setup::new(&ranges), |bed| {
            for piece in [Piece::Section, Piece::Range, Piece::Subsection] {
                let context = format!("line {}, {piece:?}", line + 2);
                let region = bed.online(&pagemap.with_piece(piece)).unwrap();
                let report = bed.audit();
                assert_eq!(report.mapped_pages, case.vmemmap_pages, "{context}");
                let frames = report.descriptor_frames;
                assert_eq!(frames, case.descriptor_frames, "{context}");
                // A huge leaf needs a piece that covers all of it. Ranges that have no place for
                // one miss none.
                let small_leaves = piece == Piece::Subsection && case.align == 4096;
                let missed = small_leaves && case.leaf_tables < case.vmemmap_pages / 512;
                let expected: &[Note] = match missed {
                    true => &[Note::PiecesSmallerThanHugeLeaf],
                    false => &[],
                };
                assert!(
                    region.notes().iter().eq(expected.iter().copied()),
                    "{context}"
                );
                if bed.has_tables() && !small_leaves {
                    assert_eq!(report.leaf_tables, case.leaf_tables, "{context}");
                }
                bed.offline(region);
            }
        });
    }
}

on_backends!(pages_of_4k: every_measured_case_costs_what_it_costs_on_linux);
