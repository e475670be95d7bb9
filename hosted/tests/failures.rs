//! Every allocation fails once, in every geometry and next to every kind of neighbour: an error,
//! everything as before down to the bytes of the tables, and the same call then succeeds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::script::tables;
use hosted::{Foreign, Machine, MachineConfig, RadixBackend, SimCpus, X86_64, X86_64La57, watch};
use mm_core::addr::{Order, Pfn, PfnRange, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::error::ErrorKind;
use mm_core::frame::DeviceAltmap;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::{AuditSlot, Note, Notes, OnlineError, Region, Vmemmap};

const SUBSECTION: u64 = 512;
const SECTION: u64 = 1 << 15;
const GIB: u64 = 1 << 18;
const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

fn range(start: u64, frames: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
}

/// Around the end of the first section of the second GiB, and one section of the third: two leaf
/// tables each, or a huge leaf.
fn small_ranges() -> Vec<PfnRange> {
    vec![
        range(GIB + SECTION - 4 * SUBSECTION, 7 * SUBSECTION),
        range(2 * GIB, SECTION),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Neighbour {
    None,
    /// Somebody else's page, in what becomes the same leaf table.
    ForeignLeaf,
    /// Somebody else's tables, with nothing in them.
    EmptyTable,
    /// Another region, in the same leaf table.
    Region,
}

const NEIGHBOURS: [Neighbour; 4] = [
    Neighbour::None,
    Neighbour::ForeignLeaf,
    Neighbour::EmptyTable,
    Neighbour::Region,
];

#[derive(Clone, Debug)]
struct Case {
    ranges: Vec<PfnRange>,
    order: u8,
    tails: Tails,
    tables: Tables,
    huge: bool,
    piece: Piece,
    /// Populated in these pieces, one call each, instead of online as a whole.
    calls: Vec<PfnRange>,
    neighbour: Neighbour,
    /// How many subsections the altmap has, if there is one.
    altmap: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Failing {
    AllFrom(u64),
    Only(u64),
}

type ReservedAltmap<'m> = DeviceAltmap<Page<Mask>, &'m SimMemory>;

fn device_altmap<B: RadixBackend>(machine: &Machine<B>, reserved: PfnRange) -> ReservedAltmap<'_> {
    let (memory, node) = (machine.memory(), Machine::<B>::NODES[0]);
    // SAFETY: 1 to 4: the machine has memory there, for this altmap alone, one vmemmap and one
    // thread.
    unsafe { DeviceAltmap::new(&B::MODEL, memory, reserved, node) }.unwrap()
}

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

struct Bench<'m, B: RadixBackend> {
    machine: &'m Machine<B>,
    table: B::Table<'m>,
    vmemmap: Array<'m>,
    altmap: Option<&'m ReservedAltmap<'m>>,
    addresses: VirtRange,
}

/// Everything that has to be as before.
type State = (std::collections::BTreeMap<u64, Vec<u8>>, u64, u64);

enum Gain<'p> {
    Region(Region<'p>),
    Piece(Notes),
}

impl<'m, B: RadixBackend> Bench<'m, B> {
    fn state(&self) -> State {
        let altmap = self.altmap.map_or(0, ReservedAltmap::in_use);
        let tables = tables(self.machine, self.addresses);
        (tables, self.machine.frames().outstanding(), altmap)
    }

    fn call<'p>(
        &mut self,
        pagemap: &DevPagemap<'p>,
        piece: Option<PfnRange>,
    ) -> Result<Gain<'p>, OnlineError> {
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        match piece {
            None => vmemmap.online(table, pagemap).map(Gain::Region),
            Some(piece) => vmemmap.populate(table, pagemap, piece).map(Gain::Piece),
        }
    }

    /// Does all calls of `case`, with `failing` armed until the first failure. Says whether there
    /// was one.
    fn attempt(&mut self, case: &Case, pagemap: &DevPagemap<'_>, failing: Failing) -> bool {
        let frames = self.machine.frames();
        let start = self.state();
        match failing {
            Failing::AllFrom(n) => frames.fail_after(n),
            Failing::Only(n) => frames.fail_nth(n),
        }
        let calls: Vec<Option<PfnRange>> = match case.calls.is_empty() {
            true => vec![None],
            false => case.calls.iter().copied().map(Some).collect(),
        };
        let before_first = frames.allocations();
        let mut failed = false;
        let mut regions = Vec::new();
        let mut notes = Vec::new();
        for call in &calls {
            let before = self.state();
            let outcome = match self.call(pagemap, *call) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfFrames, "{case:?} {failing:?}");
                    assert!(self.state() == before, "{case:?} {failing:?}: changed");
                    failed = true;
                    frames.no_more_faults();
                    self.call(pagemap, *call)
                }
                Ok(gain) => Ok(gain),
            };
            match outcome {
                Ok(Gain::Region(region)) => {
                    notes.push(*region.notes());
                    regions.push(region);
                }
                Ok(Gain::Piece(noted)) => notes.push(noted),
                Err(error) => panic!("{case:?} {failing:?}: does not succeed afterwards: {error}"),
            }
        }
        let done = frames.allocations() - before_first;
        let (Failing::AllFrom(n) | Failing::Only(n)) = failing;
        frames.no_more_faults();
        if !failed && done > n {
            // Only for want of a block may it go on, and it says so.
            let says_so = |note| matches!(note, Note::HugeLeavesUnavailable { leaves: 1 });
            let noted = notes.iter().any(|notes| notes.iter().any(says_so));
            assert!(
                noted,
                "{case:?} {failing:?}: an allocation failed and nothing was said"
            );
            failed = true;
        }
        for cpu in self.machine.cpus().all() {
            cpu.fill(self.addresses);
        }
        for region in regions {
            self.vmemmap.offline(&mut self.table, region);
        }
        for piece in &case.calls {
            let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
            vmemmap.depopulate(table, pagemap, *piece).unwrap();
        }
        assert!(
            self.state() == start,
            "{case:?} {failing:?}: not all is gone"
        );
        let violations = self.machine.violations();
        assert!(violations.is_empty(), "{case:?} {failing:?}: {violations}");
        failed
    }
}

fn fail_everywhere<B: RadixBackend>(case: &Case) {
    let start = case.ranges[0].start().get();
    let reserved = range(start, case.altmap.unwrap_or(1) * SUBSECTION);
    let foreign_frames = range(1 << 27, 64);
    let window = range(0, 4 * GIB);
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![window, foreign_frames],
        backed: vec![reserved, foreign_frames],
        ram_frames: 1 << 17,
    })
    .unwrap();
    let altmap = device_altmap(&machine, reserved);
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) };
    let addresses = B::MODEL.descriptors(window).unwrap();
    watch(&machine, addresses);
    let mut bench = Bench {
        machine: &machine,
        table: machine.take_table().unwrap(),
        vmemmap: vmemmap.unwrap(),
        altmap: case.altmap.map(|_| &altmap),
        addresses,
    };

    // The subsection before the first range.
    let first = case.ranges[0].start().get();
    let next_door = [range(first - SUBSECTION, SUBSECTION)];
    let at = B::MODEL.descriptor_address(next_door[0].start()).unwrap();
    let foreign = Foreign::new(&machine, foreign_frames);
    let mut neighbour = None;
    match case.neighbour {
        Neighbour::None => {}
        Neighbour::ForeignLeaf => assert!(foreign.map(at, Pfn::new(7).unwrap(), Order::BASE)),
        Neighbour::EmptyTable => assert!(foreign.link_tables(at)),
        Neighbour::Region => {
            let pagemap = DevPagemap::new(&B::MODEL, &next_door, Geometry::BASE_PAGES).unwrap();
            let region = bench.vmemmap.online(&mut bench.table, &pagemap).unwrap();
            neighbour = Some(region);
        }
    }

    let geometry = Geometry::compound(Order::new(case.order).unwrap());
    let pagemap = DevPagemap::new(&B::MODEL, &case.ranges, geometry)
        .unwrap()
        .with_tails(case.tails)
        .with_tables(case.tables)
        .with_huge_leaves(case.huge)
        .with_piece(case.piece);
    let pagemap = match case.altmap {
        Some(_) => pagemap.with_altmap(&altmap).unwrap(),
        None => pagemap,
    };
    let mut failures = 0;
    for n in 0.. {
        let all = bench.attempt(case, &pagemap, Failing::AllFrom(n));
        let only = bench.attempt(case, &pagemap, Failing::Only(n));
        failures += u64::from(all) + u64::from(only);
        if !all && !only {
            break;
        }
        assert!(n < 1 << 12, "{case:?}: no number of frames is enough");
    }
    assert!(failures >= 2, "{case:?}: nothing has failed");
    if let Some(region) = neighbour {
        bench.vmemmap.offline(&mut bench.table, region);
    }
    foreign.unmap(at);
    foreign.prune();
    let mut scratch = vec![AuditSlot::default(); 1 << 12];
    let report = bench
        .vmemmap
        .audit(&bench.table, &[machine.frames(), &altmap], &mut scratch);
    assert_eq!(report.unwrap().frames(), 0);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty());
}

fn case(order: u8, piece: Piece, neighbour: Neighbour) -> Case {
    let ranges = match order {
        18 => vec![range(3 * GIB, GIB), range(GIB, GIB)],
        _ => small_ranges(),
    };
    Case {
        ranges,
        order,
        tails: if order == 0 {
            Tails::None
        } else {
            Tails::PerCompound
        },
        tables: Tables::Private,
        huge: true,
        piece,
        calls: Vec::new(),
        neighbour,
        altmap: None,
    }
}

fn on_both(case: &Case) {
    // What lies next door is no matter of levels.
    match case.neighbour {
        Neighbour::None | Neighbour::ForeignLeaf => fail_everywhere::<X86_64>(case),
        Neighbour::EmptyTable => fail_everywhere::<X86_64La57>(case),
        Neighbour::Region => {
            fail_everywhere::<X86_64>(case);
            fail_everywhere::<X86_64La57>(case);
        }
    }
}

#[test]
fn base_pages_by_huge_leaves_leave_nothing_behind() {
    for neighbour in NEIGHBOURS {
        on_both(&case(0, Piece::Section, neighbour));
    }
    on_both(&case(0, Piece::Range, Neighbour::Region));
}

#[test]
fn base_pages_leave_nothing_behind() {
    for (index, neighbour) in NEIGHBOURS.into_iter().enumerate() {
        on_both(&Case {
            huge: false,
            ranges: small_ranges().into_iter().take(1).collect(),
            ..case(0, PIECES[index % 3], neighbour)
        });
    }
}

#[test]
fn compound_pages_of_2_mib_leave_nothing_behind() {
    for neighbour in NEIGHBOURS {
        on_both(&case(9, Piece::Section, neighbour));
    }
    on_both(&case(9, Piece::Range, Neighbour::Region));
    let first = small_ranges().into_iter().take(1).collect();
    on_both(&Case {
        ranges: first,
        ..case(9, Piece::Subsection, Neighbour::Region)
    });
}

#[test]
fn compound_pages_of_1_gib_leave_nothing_behind() {
    for piece in [Piece::Section, Piece::Range] {
        for neighbour in NEIGHBOURS {
            on_both(&case(18, piece, neighbour));
        }
    }
}

#[test]
fn tails_per_order_and_shared_tables_leave_nothing_behind() {
    for piece in [Piece::Section, Piece::Range] {
        for neighbour in NEIGHBOURS {
            for (tails, order) in [
                (Tails::PerOrder, 9),
                (Tails::PerOrder, 18),
                (Tails::PerCompound, 18),
            ] {
                on_both(&Case {
                    tails,
                    tables: Tables::Shared,
                    ..case(order, piece, neighbour)
                });
            }
        }
    }
}

#[test]
fn pieces_one_by_one_leave_earlier_pieces_alone() {
    let sections = |first: u64| -> Vec<PfnRange> {
        let order = [3, 0, 7, 1, 2, 6, 5, 4];
        let piece = |index: &u64| range(first + index * SECTION, SECTION);
        order.iter().map(piece).collect()
    };
    for neighbour in NEIGHBOURS {
        on_both(&Case {
            ranges: vec![range(2 * GIB, GIB)],
            calls: sections(2 * GIB),
            ..case(18, Piece::Section, neighbour)
        });
        let [first, second] = small_ranges()[..] else {
            panic!("two ranges")
        };
        let (low, high) = first.split_at(3 * SUBSECTION);
        for order in [0, 9] {
            on_both(&Case {
                calls: [high, low].into_iter().flatten().chain([second]).collect(),
                ..case(order, Piece::Section, neighbour)
            });
        }
    }
}

#[test]
fn an_altmap_gets_its_frames_back_when_ram_for_tables_runs_out() {
    for huge in [true, false] {
        for neighbour in NEIGHBOURS {
            on_both(&Case {
                altmap: Some(4),
                huge,
                ..case(9, Piece::Section, neighbour)
            });
        }
    }
}

/// From one subsection to one too few.
fn exhaust<B: RadixBackend>(ranges: &[PfnRange], huge: bool) {
    let pages: u64 = ranges.iter().map(|range| range.frames() / 64).sum();
    for subsections in 1..pages.div_ceil(SUBSECTION) {
        let reserved = range(ranges[0].start().get(), subsections * SUBSECTION);
        let window = range(0, 4 * GIB);
        let machine = Machine::<B>::new(&MachineConfig {
            devices: vec![window],
            backed: vec![reserved],
            ram_frames: 1 << 14,
        })
        .unwrap();
        let addresses = B::MODEL.descriptors(window).unwrap();
        watch(&machine, addresses);
        let altmap = device_altmap(&machine, reserved);
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        let vmemmap: Result<Array<'_>, _> =
            unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) };
        let mut vmemmap = vmemmap.unwrap();
        let mut table = machine.take_table().unwrap();
        let before = tables(&machine, addresses);
        let pagemap = DevPagemap::new(&B::MODEL, ranges, Geometry::BASE_PAGES).unwrap();
        let with_altmap = pagemap.with_altmap(&altmap).unwrap();
        let refused = vmemmap.online(&mut table, &with_altmap.with_huge_leaves(huge));
        let refused = refused.map(drop).unwrap_err();
        assert_eq!(refused, OnlineError::AltmapExhausted { reserved });
        assert_eq!(altmap.in_use(), 0);
        assert_eq!(machine.frames().outstanding(), 0);
        assert!(before == tables(&machine, addresses));
        assert!(machine.violations().is_empty(), "{}", machine.violations());
        // From RAM, the same memory comes online.
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

#[test]
fn an_altmap_of_any_size_that_is_too_small_leaves_nothing_behind() {
    let ranges = [
        range(GIB + SECTION - 4 * SUBSECTION, 7 * SUBSECTION),
        range(2 * GIB, 4 * SECTION),
    ];
    exhaust::<X86_64>(&ranges, false);
    exhaust::<X86_64>(&ranges, true);
    exhaust::<X86_64La57>(&ranges, true);
}
