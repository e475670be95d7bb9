//! Whole operations on a simulated machine: sizes and policies in turn, several times, and the medians.

use super::counts::of_policy;
use super::options::Extent;
use arch_sim::{SimFrames, SimMemory};
use benches::{Stopwatch, median};
use figures::{Change, Operation, Pages, Piece, Tables, Tails};
use hosted::{Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{NodeId, Order, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{Reserve, Vmemmap};
use std::time::Duration;

const GIB: u64 = 1 << 30;

/// Frames of RAM on each of two nodes: 32 GiB together, of which what is touched is real.
const RAM_FRAMES: u64 = 1 << 22;

/// Memory that comes online, and what else is done with it before it goes.
#[derive(Clone, Copy, Debug)]
struct Work {
    pages: Pages,
    tails: Tails,
    tables: Tables,
    piece: Piece,
    gib: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// Folded and unfolded. It is online in base pages before.
    Fold,
    /// Pages of 1 GiB are split into these and merged. It is online in pages of 1 GiB before.
    Reorder,
}

const fn online(pages: Pages, tails: Tails, tables: Tables, piece: Piece, gib: u64) -> Work {
    Work {
        pages,
        tails,
        tables,
        piece,
        gib,
        then: Then::Nothing,
    }
}

/// How much memory, in GiB, by the smallest pages that it is used in: up to 64 TiB, or what costs some 4 GiB of
/// the host's memory.
struct Sizes {
    /// 64 KiB at most, for each GiB.
    pages_1g: &'static [u64],
    /// 2 or 4 MiB.
    pages_2m: &'static [u64],
    /// 16 MiB.
    base_pages: &'static [u64],
}

impl Sizes {
    const fn of(extent: Extent) -> Self {
        match extent {
            Extent::Test => Self {
                pages_1g: &[1],
                pages_2m: &[1],
                base_pages: &[1],
            },
            Extent::Quick => Self {
                pages_1g: &[1, 64, 1 << 10, 8 << 10, 64 << 10],
                pages_2m: &[1, 16, 64],
                base_pages: &[1, 4],
            },
            Extent::Full => Self {
                pages_1g: &[1, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10],
                pages_2m: &[1, 16, 64, 256, 1 << 10],
                base_pages: &[1, 4, 16, 64],
            },
        }
    }
}

/// From little to much.
fn all(extent: Extent) -> Vec<Work> {
    use Pages::{Size1G, Size2M, Size4K};
    use Tails::{None, PerCompound, PerOrder};
    let (section, range) = (Piece::Section, Piece::Range);
    let mut all = Vec::new();
    let of = Sizes::of(extent);
    for &gib in of.pages_1g {
        all.push(online(Size1G, PerOrder, Tables::Shared, range, gib));
        if extent == Extent::Quick && gib > 8 << 10 {
            continue;
        }
        all.push(online(Size1G, PerOrder, Tables::Shared, section, gib));
        all.push(online(Size1G, PerCompound, Tables::Shared, section, gib));
        all.push(online(Size1G, PerOrder, Tables::Private, section, gib));
        all.push(online(Size1G, PerCompound, Tables::Private, section, gib));
    }
    for &gib in of.pages_2m {
        all.push(online(Size2M, PerOrder, Tables::Private, section, gib));
        all.push(online(Size2M, PerCompound, Tables::Private, section, gib));
    }
    for &gib in of.base_pages {
        all.push(online(Size4K, None, Tables::Private, section, gib));
    }
    for (pages, tables) in [(Size2M, Tables::Private), (Size1G, Tables::Shared)] {
        for &gib in of.base_pages {
            let then = Then::Fold;
            let work = online(pages, PerOrder, tables, range, gib);
            all.push(Work { then, ..work });
        }
    }
    for (pages, sizes) in [(Size2M, of.pages_2m), (Size4K, of.base_pages)] {
        for &gib in sizes {
            let then = Then::Reorder;
            let work = online(pages, PerOrder, Tables::Shared, range, gib);
            all.push(Work { then, ..work });
        }
    }
    all
}

/// What one operation took, and how many frames were out after it.
type Step = (Change, Duration, u64);

struct Bed<'m> {
    table: <X86_64 as Backend>::Table<'m>,
    vmemmap: Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>,
    frames: &'m SimFrames,
}

impl Bed<'_> {
    fn step<T>(&mut self, change: Change, work: impl FnOnce(&mut Self) -> T) -> (T, Step) {
        let start = Stopwatch::start();
        let done = std::hint::black_box(work(self));
        let time = start.elapsed();
        let out = self.frames.outstanding() - self.vmemmap.stats().reserve_frames;
        (done, (change, time, out))
    }

    fn round(&mut self, work: &Work) -> Vec<Step> {
        let range = PfnRange::from_bytes(PhysAddr::new(0), work.gib * GIB, X86_64::MODEL.granule());
        let ranges = [range.unwrap()];
        let of = |pages, tails| of_policy(&ranges, pages, tails, work.tables, work.piece);
        let target = match work.pages {
            Pages::Size4K => of(work.pages, Tails::None),
            pages => of(pages, work.tails),
        };
        let before = match work.then {
            Then::Nothing => target,
            Then::Fold => of(Pages::Size4K, Tails::None),
            Then::Reorder => of(Pages::Size1G, work.tails),
        };
        let (before, target) = match work.then {
            Then::Nothing => (before, target),
            // Leaves of 2 MiB would be split on the way there, and not be there on the way back.
            _ => (
                before.with_huge_leaves(false),
                target.with_huge_leaves(false),
            ),
        };
        let (region, first) = self.step(Change::Online, |bed| {
            bed.vmemmap.online(&mut bed.table, &before).unwrap()
        });
        let between = match work.then {
            Then::Nothing => Vec::new(),
            Then::Fold => self.fold(&target, ranges[0]),
            Then::Reorder => self.reorder(&before, &target, ranges[0]),
        };
        let ((), last) = self.step(Change::Offline, |bed| {
            bed.vmemmap.offline(&mut bed.table, region).unwrap();
        });
        match work.then {
            Then::Nothing => vec![first, last],
            _ => between,
        }
    }

    fn fold(&mut self, target: &DevPagemap<'_>, all: PfnRange) -> Vec<Step> {
        let (folded, there) = self.step(Change::Fold, |bed| {
            bed.vmemmap
                .fold(&mut bed.table, target, all)
                .unwrap()
                .changed
        });
        let (unfolded, back) = self.step(Change::Unfold, |bed| {
            bed.vmemmap
                .unfold(&mut bed.table, target, all)
                .unwrap()
                .changed
        });
        assert_eq!(folded, unfolded);
        vec![there, back]
    }

    fn reorder(&mut self, from: &DevPagemap<'_>, to: &DevPagemap<'_>, all: PfnRange) -> Vec<Step> {
        let largest = Order::from_bytes(GIB, X86_64::MODEL.granule()).unwrap();
        let there = self.vmemmap.reserve_needed(&self.table, to, all, largest);
        let back = self.vmemmap.reserve_needed(&self.table, from, all, largest);
        let both = Reserve {
            frames: there.frames + back.frames,
            tables: there.tables + back.tables,
            huge_leaves: 0,
        };
        let filled = self
            .vmemmap
            .fill_reserve(&mut self.table, NodeId::new(0), both);
        filled.map(drop).unwrap();
        let (_, there) = self.step(Change::Split, |bed| {
            bed.vmemmap
                .reorder(&mut bed.table, to, all)
                .unwrap()
                .flushes
        });
        let (_, back) = self.step(Change::Merge, |bed| {
            bed.vmemmap
                .reorder(&mut bed.table, from, all)
                .unwrap()
                .flushes
        });
        self.vmemmap.empty_reserve(&mut self.table);
        vec![there, back]
    }
}

fn machine() -> Machine<X86_64> {
    Machine::new(&MachineConfig {
        devices: vec![X86_64::MODEL.all_frames()],
        ram_frames: RAM_FRAMES,
        ..MachineConfig::default()
    })
    .unwrap()
}

fn with_bed<T>(machine: &Machine<X86_64>, work: impl FnOnce(&mut Bed<'_>) -> T) -> T {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(X86_64::MODEL, machine.frames(), machine.memory()) };
    work(&mut Bed {
        table: machine.take_table().unwrap(),
        vmemmap: vmemmap.unwrap(),
        frames: machine.frames(),
    })
}

/// The operations, those on untouched memory first.
pub(crate) fn measure(extent: Extent) -> Vec<Operation> {
    let all = all(extent);
    let mut operations = Vec::new();
    for work in &all {
        // A machine of its own has memory that nobody has touched. What goes offline was touched when it came online.
        let steps = with_bed(&machine(), |bed| bed.round(work));
        let cold = steps.iter().filter(|step| step.0 != Change::Offline);
        operations.extend(cold.map(|step| of_steps(work, true, [step])));
    }
    let machine = machine();
    with_bed(&machine, |bed| {
        let rounds = match extent {
            Extent::Test => 1,
            Extent::Quick => 5,
            Extent::Full => 15,
        };
        let mut taken: Vec<Vec<Vec<Step>>> = all.iter().map(|_| Vec::new()).collect();
        for turn in 0..=rounds {
            for (work, taken) in all.iter().zip(&mut taken) {
                let steps = bed.round(work);
                // The first one touches the memory.
                if turn > 0 {
                    taken.push(steps);
                }
            }
        }
        for (work, taken) in all.iter().zip(&taken) {
            for index in 0..2 {
                let steps = taken.iter().map(|steps| &steps[index]);
                operations.push(of_steps(work, false, steps));
            }
        }
    });
    operations
}

fn of_steps<'s>(
    work: &Work,
    cold: bool,
    steps: impl IntoIterator<Item = &'s Step, IntoIter: Clone>,
) -> Operation {
    let steps = steps.into_iter();
    let ns = median(steps.clone().map(|step| step.1)).as_secs_f64() * 1e9;
    let (operation, _, frames) = *steps.clone().next().unwrap();
    Operation {
        operation,
        case: work.pages,
        tails: work.tails,
        tables: work.tables,
        piece: work.piece,
        gib: work.gib,
        cold,
        ns,
        ns_per_page: ns / (work.gib * GIB / work.pages.bytes()) as f64,
        frames,
    }
}
