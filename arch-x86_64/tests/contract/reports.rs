//! What is unmapped is reported leaf by leaf as it was there, in groups where it lies in groups.

use crate::machine::{Machine, NODE, Paging, at, for_both_formats, vmemmap};
use arch_sim::walker::Walker;
use core::convert::Infallible;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::paging::{
    GroupTails, Groups, Leaf, NoRecords, PageTable, Role, Run, RunSink, RunSource,
};

/// Frames that are numbers, one after the other, so that there are tables to write into.
struct Numbers;

impl RunSource for Numbers {
    type Error = Infallible;

    fn next_run(&mut self, _at: VirtAddr, pages: u64, _largest: Order) -> Result<Run, Infallible> {
        let frames = PfnRange::new(frame(7_000_000), pages).unwrap();
        Ok(Run::each(frames, Role::Descriptors))
    }

    fn return_unused(&mut self, _run: Run) {}
}

fn frame(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

/// The leaves that were reported, in the order of the reports, and by how many reports of groups.
#[derive(Default)]
struct Reported {
    leaves: Vec<Leaf>,
    runs: u64,
    groups: Vec<Groups>,
}

impl RunSink for Reported {
    fn run(&mut self, run: Run) {
        self.runs += 1;
        let leaf = |index| Leaf {
            block: run.block(index).unwrap(),
            ..run.leaf
        };
        self.leaves.extend((0..run.count).map(leaf));
    }

    // Spelled out, and not by what the library makes of groups.
    fn groups(&mut self, groups: Groups) {
        self.groups.push(groups);
        let mut next = groups.frames.start().get();
        let end = groups.frames.last().get() + 1;
        while next < end {
            self.leaves
                .push(Leaf::single(frame(next), Role::Descriptors));
            let tail = match groups.tails {
                GroupTails::Same(tail) => tail,
                GroupTails::Own => {
                    next += 1;
                    Leaf::single(frame(next), Role::Tail)
                }
            };
            let tails = std::iter::repeat_n(tail, groups.pages as usize - 1);
            self.leaves.extend(tails);
            next += 1;
        }
    }
}

fn unmap<F: Paging>(machine: &Machine<F>, range: VirtRange) -> Reported {
    let mut reported = Reported::default();
    // SAFETY: 1: nobody uses the addresses. 2: the range is whole pages.
    unsafe {
        machine
            .table()
            .unmap([range].into_iter(), &mut reported, &NoRecords)
    };
    reported
}

/// What an entry is before it is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Leaf(Leaf),
    /// Nothing.
    Hole,
    /// Not present, and not this library's.
    Other,
}

impl Slot {
    fn own(self) -> Option<Leaf> {
        match self {
            Self::Leaf(leaf) if leaf.role != Role::Foreign => Some(leaf),
            _ => None,
        }
    }

    fn entry<F: Paging>(self) -> u64 {
        match self {
            Self::Leaf(leaf) => F::leaf(leaf, F::LEVELS.len() - 1),
            Self::Hole => 0,
            Self::Other => 0x1234_5000,
        }
    }
}

/// A small generator, so that the test needs no crate.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Slots of one kind: groups, runs, holes.
    fn part(&mut self) -> Vec<Slot> {
        let first = 1000 + self.below(100_000);
        let pages = [2, 3, 8, 8, 8, 12][self.below(6) as usize];
        let count = 1 + self.below(5);
        let tail_frame = 900 + self.below(3);
        let writable = self.below(2) == 0;
        let tail = |number| Leaf {
            writable,
            ..Leaf::single(frame(number), Role::Tail)
        };
        let head = |number| Leaf::single(frame(number), Role::Descriptors);
        let groups = |stride: u64, tail: &dyn Fn(u64) -> Leaf| -> Vec<Slot> {
            let group = |group: u64| {
                let number = first + stride * group;
                let tails = std::iter::repeat_n(tail(number), pages - 1);
                std::iter::once(head(number)).chain(tails)
            };
            (0..count).flat_map(group).map(Slot::Leaf).collect()
        };
        match self.below(9) {
            0 | 1 => groups(1, &|_| tail(tail_frame)),
            2 | 3 => groups(2, &|head| Leaf::single(frame(head + 1), Role::Tail)),
            // Nearly groups: read-only tails of their own, heads with a gap, tails one frame further on.
            4 => groups(2, &|head| tail(head + 1)),
            5 => groups(2, &|_| tail(tail_frame)),
            6 => groups(3, &|number| tail(number + 2)),
            7 => (0..count * 8)
                .map(|index| Slot::Leaf(head(first + index)))
                .collect(),
            _ => vec![
                [Slot::Hole, Slot::Leaf(tail(tail_frame))][self.below(2) as usize];
                count as usize
            ],
        }
    }

    /// Something else in the place of `slot`.
    fn damaged(&mut self, slot: Slot, others: bool) -> Slot {
        let leaf = match slot {
            Slot::Leaf(leaf) => leaf,
            other => return other,
        };
        let number = leaf.block.first().get();
        Slot::Leaf(match self.below(if others { 7 } else { 5 }) {
            0 => return Slot::Hole,
            1 => Leaf {
                writable: !leaf.writable,
                ..leaf
            },
            2 => Leaf::single(frame(number + 1), leaf.role),
            3 => Leaf::single(frame(number), Role::Tail),
            4 => Leaf::single(frame(number), Role::Descriptors),
            5 => Leaf::single(frame(number), Role::Foreign),
            _ => return Slot::Other,
        })
    }

    /// 1024 slots, some of which are damaged.
    fn slots(&mut self) -> Vec<Slot> {
        let mut slots = Vec::new();
        while slots.len() < 1024 {
            slots.extend(self.part());
        }
        slots.truncate(1024);
        let others = self.below(2) == 0;
        for _ in 0..self.below(30) {
            let place = self.below(1024) as usize;
            slots[place] = self.damaged(slots[place], others);
        }
        slots
    }
}

/// Writes `slots`, with whatever the hardware may have set, into tables that are there for them.
fn write<F: Paging>(machine: &Machine<F>, slots: &[Slot], random: &mut Random) {
    let range = vmemmap::<F>(0, slots.len() as u64);
    // SAFETY: 1: the frames are numbers, which nobody follows. 2: the table is this test's.
    unsafe {
        machine
            .table()
            .map_runs(range, NODE, &mut Numbers, &NoRecords)
    }
    .unwrap();
    for (page, slot) in slots.iter().enumerate() {
        let entry = slot.entry::<F>();
        let status = if entry & 1 == 0 {
            0
        } else {
            random.below(4) << 5
        };
        machine.write_entry(at::<F>(page as u64), 1, entry | status);
    }
}

for_both_formats! {
    fn each_leaf_is_reported_once_as_it_was<F>() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut in_groups = 0;
        for _ in 0..60 {
            let machine = Machine::<F>::new();
            let slots = random.slots();
            write(&machine, &slots, &mut random);
            // A part of it first, and then all that is left.
            let first = random.below(1024);
            let count = 1 + random.below(1024 - first);
            for (first, count) in [(first, count), (0, 1024)] {
                let part = vmemmap::<F>(first, count);
                let before: Vec<_> = (0..1024).map(|page| look(&machine, page)).collect();
                let expected = (first..first + count).filter_map(|page| {
                    before[page as usize].and(slots[page as usize].own())
                });
                let expected: Vec<_> = expected.collect();
                let reported = unmap(&machine, part);
                assert_eq!(reported.leaves, expected);
                in_groups += reported.groups.len();
                for page in 0..1024 {
                    let goes = (first..first + count).contains(&page);
                    let stays = before[page as usize].filter(|_| !goes || slots[page as usize].own().is_none());
                    assert_eq!(look(&machine, page), stays, "{page}");
                }
            }
            machine.assert_no_violations();
        }
        assert!(in_groups > 1000, "{in_groups}");
    }

    fn a_table_of_groups_is_one_report<F>() {
        for own in [false, true] {
            for pages in [2, 4, 8, 16, 512] {
                let machine = Machine::<F>::new();
                let each = 1 + u64::from(own);
                let tail = Leaf { writable: false, ..Leaf::single(frame(99), Role::Tail) };
                let slots = (0..512).map(|page| {
                    let head = 5000 + page / pages * each;
                    Slot::Leaf(match (page % pages, own) {
                        (0, _) => Leaf::single(frame(head), Role::Descriptors),
                        (_, true) => Leaf::single(frame(head + 1), Role::Tail),
                        (_, false) => tail,
                    })
                });
                write(&machine, &slots.collect::<Vec<_>>(), &mut Random(7));
                let reported = unmap(&machine, vmemmap::<F>(0, 512));
                let all = Groups {
                    frames: PfnRange::new(frame(5000), 512 / pages * each).unwrap(),
                    tails: if own { GroupTails::Own } else { GroupTails::Same(tail) },
                    pages,
                };
                assert_eq!((reported.groups, reported.runs), (vec![all], 0));
                assert_eq!(machine.outstanding(), 0);
            }
        }
    }

    fn a_table_that_its_first_entries_tell_of_is_one_report_and_nothing_is_told_of_an_entry_that_is_not_so<F>() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let beginnings = [0, 1, 2, 3, 7, 8, 9, 10, 15, 16, 17];
        for kind in 0..5 {
            let whole = whole_table(kind);
            assert_eq!(reported::<F>(&whole, &mut random), 1, "kind {kind}");
            let others = (0..8).map(|_| random.below(512)).collect::<Vec<_>>();
            for place in beginnings.into_iter().chain(others).chain([510, 511]) {
                let mut slots = whole.clone();
                slots[place as usize] = random.damaged(slots[place as usize], true);
                reported::<F>(&slots, &mut random);
            }
        }
    }

    fn no_leaf_behind_the_last_frame_is_reported_of_groups<F>() {
        let machine = Machine::<F>::new();
        write(&machine, &[Slot::Hole; 512], &mut Random(7));
        let leaf = |number, role| F::leaf(Leaf::single(frame(number), role), F::LEVELS.len() - 1);
        let (last, tail) = (F::LAST_FRAME.get(), leaf(99, Role::Tail));
        for page in 0..512 {
            let head = leaf(last - 30, Role::Descriptors) + page / 8 * F::FRAME_STEP;
            machine.write_entry(at::<F>(page), 1, if page % 8 == 0 { head } else { tail });
        }
        let reported = unmap(&machine, vmemmap::<F>(0, 512));
        assert!(reported.groups.iter().all(|groups| groups.frames.last().get() <= last));
        assert_eq!(machine.outstanding(), 0);
    }

    fn groups_end_where_frames_end<F>() {
        let machine = Machine::<F>::new();
        let last = F::LAST_FRAME.get();
        let [head, tail] = [last - 1, last].map(frame);
        let head = F::leaf(Leaf::single(head, Role::Descriptors), F::LEVELS.len() - 1);
        let tail = F::leaf(Leaf::single(tail, Role::Tail), F::LEVELS.len() - 1);
        write(&machine, &[Slot::Hole; 4], &mut Random(7));
        let behind = 2 * F::FRAME_STEP;
        for (page, entry) in [head, tail, head + behind, tail + behind].into_iter().enumerate() {
            machine.write_entry(at::<F>(page as u64), 1, entry);
        }
        let reported = unmap(&machine, vmemmap::<F>(0, 4));
        assert_eq!(reported.groups.first().map(Groups::leaves), Some(2));
    }
}

/// A table whose first entries tell of all others: equal ones, the same behind another, a run, groups of eight.
fn whole_table(kind: u64) -> Vec<Slot> {
    let head = |number| Leaf::single(frame(number), Role::Descriptors);
    let tail = |number| Leaf::single(frame(number), Role::Tail);
    let leaf = |page: u64| match (kind, page % 8) {
        (0, _) => tail(99),
        (1, _) => [tail(99), head(5000)][usize::from(page == 0)],
        (2, _) => head(5000 + page),
        (3, 0) => head(5000 + page / 8),
        (3, _) => tail(99),
        (_, 0) => head(5000 + page / 8 * 2),
        _ => tail(5001 + page / 8 * 2),
    };
    (0..512).map(|page| Slot::Leaf(leaf(page))).collect()
}

/// Unmaps a table with `slots`, checks what is reported, and what is left, and answers how many runs and groups
/// were.
fn reported<F: Paging>(slots: &[Slot], random: &mut Random) -> u64 {
    let machine = Machine::<F>::new();
    write(&machine, slots, random);
    let reported = unmap(&machine, vmemmap::<F>(0, slots.len() as u64));
    let expected: Vec<_> = slots.iter().filter_map(|slot| slot.own()).collect();
    assert_eq!(reported.leaves, expected);
    for (page, slot) in slots.iter().enumerate() {
        let left = look(&machine, page as u64);
        let stays = slot.own().is_none() && *slot != Slot::Hole;
        assert_eq!(left.is_some(), stays, "{page}");
    }
    machine.assert_no_violations();
    reported.runs + reported.groups.len() as u64
}

/// The entry for a page, if it is not zero, and there is a table for it.
fn look<F: Paging>(machine: &Machine<F>, page: u64) -> Option<u64> {
    let walk = F::WALKER.walk(&machine.memory, machine.root, at::<F>(page));
    let is_there = walk.tables.iter().any(|table| table.level == 1);
    is_there
        .then(|| machine.read_entry(at::<F>(page), 1))
        .filter(|entry| *entry != 0)
}
