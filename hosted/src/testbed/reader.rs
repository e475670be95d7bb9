//! Reading page tables without their own code.

use crate::{Foreign, Machine, Power, RadixBackend, Sim, SimCpus};
use arch_sim::walker::{Scanned, Table, Translation, Walker};
use arch_sim::{Fault, FlatTable};
use mm_core::addr::{Order, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, Mapping, PageTable, Role};

/// A leaf, as a reader comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenLeaf {
    /// The first address that it translates.
    pub at: VirtAddr,
    /// Its size.
    pub order: Order,
    /// The first frame that it points at.
    pub frame: Pfn,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether it is for data that every address space sees: global, and never executed.
    pub kernel_data: bool,
    /// Whether it is this library's.
    pub owned: bool,
    /// Whether it says that other entries point at the frame too.
    pub tail: bool,
}

impl SeenLeaf {
    /// The frame that `at`, an address of the leaf, translates to on pages of 2^`shift` bytes.
    pub fn frame_at(&self, at: VirtAddr, shift: u32) -> Pfn {
        let offset = at.get() - self.at.get();
        self.frame.saturating_add(offset >> shift)
    }

    fn of_walk<F: EntryFormat>(translation: &Translation, raw: u64, order: Order) -> Self {
        Self {
            at: translation.span.start(),
            order,
            frame: translation.frame,
            writable: translation.writable,
            kernel_data: translation.global && !translation.executable,
            owned: raw & F::OWNED != 0,
            tail: raw & F::TAIL != 0,
        }
    }

    fn of_map(mapping: &Mapping) -> Self {
        Self {
            at: mapping.at,
            order: mapping.leaf.block.order(),
            frame: mapping.leaf.block.first(),
            writable: mapping.leaf.writable,
            kernel_data: true,
            owned: mapping.leaf.role != Role::Foreign,
            tail: mapping.leaf.role == Role::Tail,
        }
    }
}

/// A table below the root, as a reader comes to it: once for each link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenTable {
    /// Its frame.
    pub frame: Pfn,
    /// The addresses that it translates here.
    pub span: VirtRange,
    /// Whether its entries are leaves of base pages.
    pub leaf_table: bool,
}

/// What a reader comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenEntry {
    /// A link to a table.
    Table(SeenTable),
    /// A leaf.
    Leaf(SeenLeaf),
}

/// A backend whose page table can be read from outside: from bytes, where it has any.
pub trait Reader: Power {
    /// Shows every table below the root and every leaf for addresses of `range`, in the order of
    /// addresses.
    fn scan(
        machine: &Machine<Self>,
        table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    );

    /// The leaf that translates `at`.
    fn leaf(machine: &Machine<Self>, table: &Self::Table<'_>, at: VirtAddr) -> Option<SeenLeaf>;

    /// How many leaves and tables all CPUs have cached.
    fn cached(machine: &Machine<Self>) -> usize;

    /// A store at `at` by a CPU; `None` where there is none.
    fn store(machine: &Machine<Self>, at: VirtAddr) -> Option<Result<PhysAddr, Fault>>;

    /// Links tables of somebody else's, down to that of base pages for `at`. Says whether there was
    /// a place for them.
    fn plant_tables(state: &Self::State<'_>, at: VirtAddr) -> bool;
}

impl Reader for Sim {
    fn scan(
        _machine: &Machine<Self>,
        table: &FlatTable,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    ) {
        // The map itself: there is nothing behind it.
        let leaves = table.leaves().map(|mapping| SeenLeaf::of_map(&mapping));
        let within = |leaf: &SeenLeaf| range.contains(leaf.at);
        leaves
            .filter(within)
            .for_each(|leaf| visit(SeenEntry::Leaf(leaf)));
    }

    fn leaf(_machine: &Machine<Self>, table: &FlatTable, at: VirtAddr) -> Option<SeenLeaf> {
        table.lookup(at).as_ref().map(SeenLeaf::of_map)
    }

    fn cached(_machine: &Machine<Self>) -> usize {
        0
    }

    fn store(_machine: &Machine<Self>, _at: VirtAddr) -> Option<Result<PhysAddr, Fault>> {
        None
    }

    fn plant_tables(_state: &(), _at: VirtAddr) -> bool {
        false
    }
}

impl<R: RadixBackend> Reader for R {
    fn scan(
        machine: &Machine<Self>,
        _table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    ) {
        let memory = machine.memory();
        let granule = Self::MODEL.granule();
        R::walker().scan(memory, machine.root(), range, &mut |scanned| {
            visit(match scanned {
                Scanned::Table(Table {
                    frame, level, span, ..
                }) => SeenEntry::Table(SeenTable {
                    frame,
                    span,
                    leaf_table: level == 1,
                }),
                Scanned::Leaf(leaf) => {
                    let raw = memory.read_u64(leaf.entry).unwrap_or(0);
                    let order = leaf.order(granule);
                    SeenEntry::Leaf(SeenLeaf::of_walk::<R::Format>(&leaf, raw, order))
                }
            });
        });
    }

    fn leaf(machine: &Machine<Self>, _table: &Self::Table<'_>, at: VirtAddr) -> Option<SeenLeaf> {
        let memory = machine.memory();
        let leaf = R::walker().translate(memory, machine.root(), at).ok()?;
        let raw = memory.read_u64(leaf.entry)?;
        let order = leaf.order(Self::MODEL.granule());
        Some(SeenLeaf::of_walk::<R::Format>(&leaf, raw, order))
    }

    fn cached(machine: &Machine<Self>) -> usize {
        let all = machine.cpus().all().iter();
        all.map(|cpu| cpu.cached_leaves() + cpu.cached_tables())
            .sum()
    }

    fn store(machine: &Machine<Self>, at: VirtAddr) -> Option<Result<PhysAddr, Fault>> {
        machine.cpus().all().first().map(|cpu| cpu.store(at))
    }

    fn plant_tables(state: &Foreign<'_, Self>, at: VirtAddr) -> bool {
        state.link_tables(at)
    }
}
