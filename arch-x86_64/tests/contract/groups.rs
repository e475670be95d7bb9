//! Groups are entered as the runs that they stand for.

use crate::machine::{Machine, NODE, Paging, for_both_formats, vmemmap};
use core::convert::Infallible;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::paging::{
    GroupTails, Groups, Leaf, MapError, MapStopped, NoRecords, PageTable, Role, Run, RunSource,
};
use std::collections::VecDeque;

/// Frames that are numbers: what is left of some groups, as groups or as the same runs.
struct Numbers {
    groups: VecDeque<Groups>,
    /// Whether groups are given as such.
    by_group: bool,
    runs: VecDeque<Run>,
    returned: Vec<Run>,
}

impl Numbers {
    fn new(groups: &[Groups], by_group: bool) -> Self {
        Self {
            groups: groups.iter().copied().collect(),
            by_group,
            runs: VecDeque::new(),
            returned: Vec::new(),
        }
    }
}

impl RunSource for Numbers {
    type Error = Infallible;

    fn next_run(&mut self, _at: VirtAddr, pages: u64, _largest: Order) -> Result<Run, Infallible> {
        if self.runs.is_empty() {
            self.runs.extend(self.groups.pop_front().unwrap().runs());
        }
        let run = self.runs.pop_front().unwrap();
        assert!(run.pages() <= pages);
        Ok(run)
    }

    fn next_groups(&mut self, _at: VirtAddr, _pages: u64) -> Result<Option<Groups>, Infallible> {
        Ok(match self.by_group && self.runs.is_empty() {
            true => self.groups.pop_front(),
            false => None,
        })
    }

    fn return_unused(&mut self, run: Run) {
        self.returned.push(run);
    }
}

fn frames(first: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(first).unwrap(), count).unwrap()
}

/// 20 leaves of groups with one tail, and 21 of groups with tails of their own.
fn some_groups() -> [Groups; 2] {
    let tail = Leaf {
        writable: false,
        ..Leaf::single(Pfn::new(99).unwrap(), Role::Tail)
    };
    [
        Groups {
            frames: frames(1000, 5),
            tails: GroupTails::Same(tail),
            pages: 4,
        },
        Groups {
            frames: frames(2000, 6),
            tails: GroupTails::Own,
            pages: 7,
        },
    ]
}

fn map<F: Paging>(
    machine: &Machine<F>,
    at: u64,
    pages: u64,
    source: &mut Numbers,
) -> Result<(), MapStopped<Infallible>> {
    let range = vmemmap::<F>(at, pages);
    // SAFETY: 1: the frames are numbers, which nobody follows. 2: the table is this test's.
    unsafe { machine.table().map_runs(range, NODE, source, &NoRecords) }
}

/// Maps `pages` pages from a source that has one leaf, for which the engine makes a table, and then `refused`. All of that goes back, and the leaf is mapped.
fn stopped_behind_one_leaf<F: Paging>(
    machine: &Machine<F>,
    refused: Groups,
    pages: u64,
) -> MapError {
    let one = Groups {
        frames: frames(500, 1),
        pages: 1,
        ..some_groups()[0]
    };
    let mut source = Numbers::new(&[one, refused], true);
    let MapStopped::Table { at, error } = map(machine, 0, pages, &mut source).unwrap_err();
    assert_eq!(at, vmemmap::<F>(1, 1).start());
    assert_eq!(source.returned, refused.runs().collect::<Vec<_>>());
    let (mapped, _) = machine.read(vmemmap::<F>(0, pages));
    assert_eq!(mapped.len(), 1);
    error
}

for_both_formats! {
    fn entries_are_those_of_the_runs<F>() {
        let read = |by_group: bool| {
            let machine = Machine::<F>::new();
            // Into a table that is made for them, and into one that CPUs may be walking.
            for at in [0, 100] {
                let mut source = Numbers::new(&some_groups(), by_group);
                map(&machine, at, 41, &mut source).unwrap();
                assert!(source.groups.is_empty() && source.returned.is_empty());
            }
            machine.read(vmemmap::<F>(0, 512))
        };
        let (mapped, tables) = read(true);
        assert_eq!(mapped.len(), 82);
        assert_eq!((mapped, tables), read(false));
    }

    fn what_does_not_fit_goes_back_whole<F>() {
        for live in [false, true] {
            let machine = Machine::<F>::new();
            if live {
                let mut source = Numbers::new(&some_groups()[..1], true);
                map(&machine, 100, 20, &mut source).unwrap();
            }
            let groups = some_groups()[0];
            let stopped = stopped_behind_one_leaf(&machine, groups, 20);
            assert!(matches!(stopped, MapError::Unsupported { .. }));
        }
    }

    fn groups_for_which_there_is_no_table_go_back<F>() {
        let machine = Machine::<F>::new();
        let all = some_groups();
        // There are tables above, and a table for other leaves.
        map(&machine, 512, 41, &mut Numbers::new(&all, true)).unwrap();
        machine.frames.fail_after(0);
        let mut source = Numbers::new(&all, true);
        let stopped = map(&machine, 0, 41, &mut source).unwrap_err();
        assert_eq!(stopped.at(), vmemmap::<F>(0, 1).start());
        assert!(matches!(stopped, MapStopped::Table { error: MapError::OutOfFrames(_), .. }));
        assert_eq!(source.returned, all[0].runs().collect::<Vec<_>>());
        assert_eq!(source.groups, [all[1]]);
        assert!(machine.read(vmemmap::<F>(0, 512)).0.is_empty());
    }

    fn a_frame_out_of_reach_goes_back<F>() {
        let beyond = Groups {
            frames: frames(Pfn::MAX.get() - 1, 2),
            ..some_groups()[0]
        };
        let stopped = stopped_behind_one_leaf(&Machine::<F>::new(), beyond, 9);
        assert!(matches!(stopped, MapError::FrameOutOfReach(_)));
    }
}
