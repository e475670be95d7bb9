//! Churn: operations at random, hundreds of thousands of them, on any backend.
//!
//! ```text
//!   seed ──▶ World (a machine, memory, altmaps) ──▶ Churn ─┬─▶ the library on the backend
//!                                                          └─▶ Model: what every page is mapped to,
//!                                                              what it costs, what must be answered
//! ```
//!
//! [Scripts](crate::script) compare everything after each operation, and so do few. This does many:
//! after each operation it compares the answer, all counters, the frames that are out, and a few
//! pages of what was touched and of the rest; everything now and then. Whatever goes
//! wrong is noticed soon, with a seed that does it again.
//!
//! Every policy and operation takes part: base pages, huge leaves and compound pages of three
//! orders; tails per compound page and per order, private and shared tables, both nodes, altmaps;
//! pieces, fold, unfold, reshape, marks; pages that change their order, with a reserve; all of
//! these also beside readers; CPUs that cache; memory that runs out; wrong arguments; somebody else's mapping in the same tables.

mod checks;
mod devices;
mod fold;
mod frames;
mod frozen_change;
mod layout;
mod model;
mod online;
mod operations;
mod readers;
mod reorder;
mod targets;
mod world;

use crate::TestTable;
use crate::backend::chosen_backend;
use crate::script::Encoding;
use crate::threads::ThreadKernel;
use arch_sim::{SimFrames, SimMemory};
use fastrand::Rng;
use hosted::BackendKind;
use mm_core::addr::{Block, Pfn};
use mm_core::descriptor::{Mask, Page, Pointer, TailEncoding};
use mm_core::paging::{Leaf, PageTable, Role};
use mm_core::readers::Readers;
use mm_core::vmemmap::{AuditSlot, Region, Vmemmap};
use model::{Key, Model, Policy};
use rustc_hash::FxHashMap;
use world::{Altmap, World};

/// How many operations there are in a world.
const OPERATIONS: u64 = 4096;

/// How many there are in a world that comes from fuzzing.
const FUZZED_OPERATIONS: u64 = 256;

/// For how many pages of the window there is one operation more between two comparisons of
/// everything.
const PAGES_PER_OPERATION: u64 = 16;

/// A frame that nobody has, for foreign leaves: they are never followed.
const FOREIGN_FRAME: u64 = 1 << 27;

/// How often what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub operations: u64,
    /// Regions that came online.
    pub online: u64,
    /// Pieces that did.
    pub populated: u64,
    /// Of both, those with huge leaves.
    pub huge: u64,
    /// Of both, those with shared tables.
    pub shared_tables: u64,
    /// Of both, those with tails per order.
    pub per_order: u64,
    /// Of these, those with packed heads.
    pub packed: u64,
    /// Regions and pieces that went offline.
    pub offline: u64,
    /// Of both, those that were frozen first.
    pub frozen: u64,
    /// Of those that were to be frozen, those that were in use or not whole.
    pub busy: u64,
    /// Of both, those that were a part of a huge leaf or of a shared table.
    pub split_offline: u64,
    /// Of the regions, those that left a part, since there was no memory to split it.
    pub kept: u64,
    /// Compound pages that were folded.
    pub folded: u64,
    /// Compound pages that were unfolded.
    pub unfolded: u64,
    /// Huge leaves that unfolding made.
    pub joined: u64,
    /// Ranges that became pages of another order.
    pub reshaped: u64,
    /// Units that became pages of another order.
    pub reordered: u64,
    /// Changes of the order of a part of a page.
    pub reordered_parts: u64,
    /// Changes of order that stopped after some of their units.
    pub stopped: u64,
    /// Of the units, those whose pages were frozen first.
    pub reordered_frozen: u64,
    /// Folds, unfolds and reshapes of pages that were frozen first.
    pub changed_frozen: u64,
    /// Times that there was not enough in reserve.
    pub too_small: u64,
    /// Frames that were marked.
    pub marked: u64,
    /// Of the pieces and regions that came online, those whose frames were an altmap's.
    pub altmap: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations that lacked memory, changed nothing, and succeeded when there was some.
    pub undone: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.online += other.online;
        self.populated += other.populated;
        self.huge += other.huge;
        self.shared_tables += other.shared_tables;
        self.per_order += other.per_order;
        self.packed += other.packed;
        self.offline += other.offline;
        self.frozen += other.frozen;
        self.busy += other.busy;
        self.split_offline += other.split_offline;
        self.kept += other.kept;
        self.folded += other.folded;
        self.unfolded += other.unfolded;
        self.joined += other.joined;
        self.reshaped += other.reshaped;
        self.reordered += other.reordered;
        self.reordered_parts += other.reordered_parts;
        self.stopped += other.stopped;
        self.reordered_frozen += other.reordered_frozen;
        self.changed_frozen += other.changed_frozen;
        self.too_small += other.too_small;
        self.marked += other.marked;
        self.altmap += other.altmap;
        self.refused += other.refused;
        self.undone += other.undone;
    }
}

/// Does `operations` operations on `backend`, with `encoding`: those that follow from `seed`.
///
/// # Errors
///
/// What did not hold, and the seed and number of operations that show it again.
pub fn run(
    backend: BackendKind,
    encoding: Encoding,
    seed: u64,
    operations: u64,
) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut left = operations;
    let mut seeds = Rng::with_seed(seed);
    while left > 0 {
        let seed = seeds.u64(..);
        let count = left.min(OPERATIONS);
        let one = run_world(backend, encoding, seed, count);
        tally.add(&one.map_err(|error| format!("{} (world {seed:#x}): {error}", backend.name()))?);
        left -= count;
    }
    Ok(tally)
}

/// Does `operations` operations in one world, that of `seed`; as [`run`] does with each of its
/// worlds.
///
/// # Errors
///
/// What did not hold, and after which operation.
pub fn run_world(
    backend: BackendKind,
    encoding: Encoding,
    seed: u64,
    operations: u64,
) -> Result<Tally, String> {
    match encoding {
        Encoding::Pointer => churn::<Pointer>(backend, seed, operations),
        Encoding::Mask => churn::<Mask>(backend, seed, operations),
    }
}

/// Does 256 operations in the world that the first eight of `bytes` are the seed of, on the backend
/// and with the encoding that the ninth chooses. Too few bytes do nothing.
///
/// # Errors
///
/// As for [`run_world`].
pub fn run_any(bytes: &[u8]) -> Result<Tally, String> {
    let Some((seed, rest)) = bytes.split_first_chunk::<8>() else {
        return Ok(Tally::default());
    };
    let choice = rest.first().copied().unwrap_or(0);
    let encoding = match choice % 2 {
        0 => Encoding::Pointer,
        _ => Encoding::Mask,
    };
    let seed = u64::from_le_bytes(*seed);
    run_world(chosen_backend(choice), encoding, seed, FUZZED_OPERATIONS)
}

/// See [`run_world`].
fn churn<E: TailEncoding>(kind: BackendKind, seed: u64, operations: u64) -> Result<Tally, String> {
    let mut rng = Rng::with_seed(seed);
    let world = World::new(kind, &mut rng)?;
    let altmaps = world.altmaps()?;
    let kernel = ThreadKernel::new(&world.cpus);
    let readers = world.readers(&kernel)?;
    let mut churn = Churn::<E>::new(&world, &altmaps, readers, rng)?;
    let between = world.layout.pages() / PAGES_PER_OPERATION;
    for index in 0..operations {
        churn
            .act()
            .and_then(|()| churn.check(index % between == between - 1))
            .map_err(|error| format!("operation {index}, {:?}: {error}", churn.act))?;
    }
    churn.finish()
}

/// A region that is online.
struct Live<'w> {
    region: Region<'w>,
    policy: Policy,
}

/// A world, the library at work in it, and the model, in the middle of things.
struct Churn<'w, E: TailEncoding> {
    world: &'w World,
    altmaps: &'w [Altmap<'w>],
    rng: Rng,
    table: TestTable<'w>,
    vmemmap: Vmemmap<Page<E>, &'w SimFrames, &'w SimMemory, Readers<'w, ThreadKernel<'w>>>,
    model: Model,
    regions: Vec<Live<'w>>,
    /// The region of each device with an altmap, if it came online as one.
    device_regions: Vec<Option<Live<'w>>>,
    /// The frames of tails, as they were seen.
    tail_frames: FxHashMap<Key, Pfn>,
    /// Pages that the last operation was about.
    touched: std::ops::Range<u64>,
    /// Whether heads are packed where tails are shared by all pages of an order.
    packs: bool,
    /// Whether allocations may fail.
    armed: bool,
    /// What is being done.
    act: String,
    scratch: Vec<AuditSlot>,
    tally: Tally,
}

impl<'w, E: TailEncoding> Churn<'w, E> {
    fn new(
        world: &'w World,
        altmaps: &'w [Altmap<'w>],
        readers: Readers<'w, ThreadKernel<'w>>,
        mut rng: Rng,
    ) -> Result<Self, String> {
        let machine = &world.machine;
        machine.cpus().watch_frees(machine.frames());
        let taken = machine.take_table(world.foreign);
        let mut table = taken.ok_or("the table is taken")?;
        let mut model = Model::new(world.layout, machine.facts().has_tables);
        // Of the world, and not one of its numbers: what other worlds do stays the same.
        let packs = E::SAME_FOR_ALL && rng.clone().fork().bool();
        if rng.u8(..3) == 0 {
            let page = (world.layout.foreign_table() + 1) * world.layout.table - 1;
            let frame = Pfn::new(FOREIGN_FRAME + page).ok_or("no such frame")?;
            let leaf = Leaf {
                block: Block::single(frame),
                role: Role::Foreign,
                writable: true,
            };
            if !table.map_foreign(world.layout.address(page), leaf) {
                return Err("there is no place for a foreign leaf".into());
            }
            model.map_foreign(page);
        }
        // SAFETY: 1: the machine has one table, one memory and one vmemmap. 2: the root is new.
        let vmemmap = unsafe { Vmemmap::with_readers(readers, machine.frames(), machine.memory()) };
        Ok(Self {
            world,
            altmaps,
            rng,
            table,
            vmemmap: vmemmap.map_err(|error| error.to_string())?,
            model,
            regions: Vec::new(),
            device_regions: world.devices.iter().map(|_| None).collect(),
            tail_frames: FxHashMap::default(),
            touched: 0..1,
            packs,
            armed: false,
            act: String::new(),
            scratch: vec![AuditSlot::default(); 1 << 13],
            tally: Tally::default(),
        })
    }

    /// Compares the counts and a few pages with the model, or everything.
    fn check(&mut self, everything: bool) -> Result<(), String> {
        self.tally.operations += 1;
        self.check_counts()?;
        self.forget_tails();
        if everything {
            return self.check_all();
        }
        let touched = self.touched.clone();
        let ends = [touched.start, touched.end - 1];
        let within = [self.rng.u64(touched.clone()), self.rng.u64(touched)];
        let around = [
            (ends[1] + 1) % self.world.layout.pages(),
            ends[0].saturating_sub(1),
            self.rng.u64(..self.world.layout.pages()),
        ];
        for page in ends.into_iter().chain(within).chain(around) {
            self.check_page(page)?;
            self.check_found(page)?;
        }
        self.check_listed_around(ends[0])?;
        self.check_listed_around(around[0])
    }

    /// Forgets the frames of tails that are no more.
    fn forget_tails(&mut self) {
        let model = &self.model;
        self.tail_frames.retain(|key, _| model.has_tail(key));
    }

    /// Takes everything offline, and checks that nothing is left.
    fn finish(mut self) -> Result<Tally, String> {
        self.check_all()?;
        self.disarm();
        while !self.regions.is_empty() {
            self.offline()?;
        }
        self.devices_offline()?;
        self.rest_offline()?;
        self.empty_reserve()?;
        self.check_counts()?;
        self.check_all()?;
        let out = self.world.machine.frames().outstanding();
        match (out, self.table.first_in_use(self.addresses()?)) {
            (0, _) => Ok(self.tally),
            (out, at) => Err(format!("{out} frames are left at the end, {at:?} in use")),
        }
    }
}
