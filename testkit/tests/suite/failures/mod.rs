//! Every allocation of every operation fails once, next to every kind of neighbour, while CPUs cache
//! all they can: an error, everything as before, and the same call then succeeds at the same cost.

mod altmap;
mod folding;
mod marks;
mod offline;
mod online;
mod pieces;

use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use testkit::OnBackend;
use testkit::testbed::{Neighbour, SHARED_TAILS, Setup, Sizes, Testbed, pagemap};

/// The leaf table that describes the start of the memory under test.
const TABLE: u64 = 8;

/// Memory under test, with somebody next door: in what becomes the same leaf table, or, where a
/// huge leaf takes all that a table maps, before it.
#[derive(Clone, Copy, Debug)]
struct Place {
    sizes: Sizes,
    neighbour: Neighbour,
}

impl Place {
    fn new(kind: BackendKind, neighbour: Neighbour) -> Self {
        let sizes = Sizes::of(kind.model());
        Self { sizes, neighbour }
    }

    /// Where the neighbour lives.
    fn next_door(self) -> PfnRange {
        match self.neighbour {
            Neighbour::ForeignHugeLeaf => self.sizes.blocks(self.sizes.table(), TABLE - 1, 1),
            _ => {
                let table = self.sizes.blocks(self.sizes.table(), TABLE, 1);
                table.take_first(self.sizes.small().frames()).0
            }
        }
    }

    /// `count` blocks of `order`, from the first multiple of it behind the neighbour on.
    fn first(self, order: Order, count: u64) -> PfnRange {
        let first = self.next_door().last().get() + 1;
        let first = first.div_ceil(order.frames());
        self.sizes.blocks(order, first, count)
    }

    /// Two blocks of the smallest compound pages on each side of the end of a leaf table further
    /// up.
    fn across(self) -> PfnRange {
        let small = self.sizes.small();
        let end = (TABLE + 6) << (self.sizes.table().get() - small.get());
        self.sizes.blocks(small, end - 2, 4)
    }

    /// What machine it takes: all tables around are watched.
    fn setup(self) -> Setup {
        let window = self.sizes.blocks(self.sizes.table(), TABLE - 1, 16);
        Setup::new(&[window]).with_cpus_that_cache(window)
    }

    /// Runs `test` next to the neighbour.
    fn run(self, kind: BackendKind, setup: &Setup, test: impl FnOnce(&mut dyn Testbed<'_>)) {
        kind.testbed(setup, |bed| {
            let tenant = self.neighbour.move_in(bed, self.next_door());
            test(bed);
            tenant.move_out(bed);
        });
    }
}

/// The neighbours for tests that take much memory: with 64K pages a huge leaf has 512 MiB of
/// descriptors.
fn few_neighbours(sizes: Sizes) -> &'static [Neighbour] {
    match sizes.entries() > 1 << 12 {
        true => &[Neighbour::ForeignHugeLeaf],
        false => &Neighbour::ALL,
    }
}
