//! Doing what a script says.

use super::ahead::Ahead;
use super::model::{Expected, Model, Tables};
use super::op::{Fault, One, Op, Request};
use super::oracle::{Oracle, OracleParts};
use super::readers::{Held, ScriptReaders};
use super::replay::Replay;
use super::scale::Scale;
use super::tally::Tally;
use super::trace::Traced;
use crate::{TestMachine, TestTable};
use arch_sim::{SimFrames, SimMemory};
use hosted::inspect::SeenEntry;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::frame::DeviceAltmap;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::vmemmap::{AuditSlot, Region, Vmemmap};
use std::ops::Range;

/// How often everything is compared in a narrow script, in operations.
const EVERYTHING: usize = 16;

/// What the interpreter borrows.
pub(super) struct Parts<'s> {
    pub(super) machine: &'s TestMachine,
    pub(super) frames: &'s Traced<'s, SimFrames>,
    /// By the number of the operation that may use it.
    pub(super) altmaps: &'s [Option<BothAltmaps<'s>>],
    pub(super) oracle: Option<&'s OracleParts>,
}

/// An altmap of the machine.
pub(super) type ScriptAltmap<'m> = DeviceAltmap<&'m SimMemory>;

/// The machine's altmap, and the oracle's over the same frames.
pub(super) struct BothAltmaps<'s> {
    pub(super) ours: Traced<'s, ScriptAltmap<'s>>,
    pub(super) theirs: Option<Replay>,
}

/// A region that is online, on the machine and with the oracle.
pub(super) struct Live<'s> {
    pub(super) ours: Region<'s>,
    pub(super) theirs: Option<Region<'s>>,
    /// What was asked for.
    pub(super) request: Request,
    pub(super) altmaps: Option<&'s BothAltmaps<'s>>,
}

impl<'s> Live<'s> {
    pub(super) fn pagemaps(&self) -> Pagemaps<'s> {
        Pagemaps {
            ours: *self.ours.pagemap(),
            theirs: self.theirs.as_ref().map(|region| *region.pagemap()),
        }
    }

    pub(super) fn meets(&self, frames: &[PfnRange]) -> bool {
        let mut live = self.ours.pagemap().ranges().iter();
        live.any(|live| frames.iter().any(|range| range.overlaps(*live)))
    }
}

/// The machine's pagemap, and the oracle's.
#[derive(Clone, Copy)]
pub(super) struct Pagemaps<'p> {
    pub(super) ours: DevPagemap<'p>,
    pub(super) theirs: Option<DevPagemap<'p>>,
}

/// The vmemmap on a machine.
pub(super) type MachineVmemmap<'s, E, R> =
    Vmemmap<Page<E>, &'s Traced<'s, SimFrames>, &'s SimMemory, R>;

/// A machine, the oracle and the model, in the middle of a script.
pub(super) struct Interpreter<'s, E: TailEncoding, R: ScriptReaders<'s, E>> {
    pub(super) parts: Parts<'s>,
    pub(super) table: TestTable<'s>,
    pub(super) vmemmap: MachineVmemmap<'s, E, R>,
    pub(super) oracle: Option<Oracle<'s, E, R>>,
    pub(super) model: Model,
    pub(super) regions: Vec<Live<'s>>,
    /// References that readers keep.
    pub(super) held: Vec<Held<'s, E>>,
    /// The first pages of foreign leaves.
    pub(super) planted: Vec<u64>,
    /// Whether allocations may fail.
    pub(super) armed: bool,
    /// Whether some heads may be packed.
    pub(super) packs: bool,
    pub(super) ahead: Ahead,
    window: PfnRange,
    pub(super) addresses: VirtRange,
    pub(super) scratch: Vec<AuditSlot>,
    pub(super) tally: Tally,
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    pub(super) fn new(
        parts: Parts<'s>,
        scale: Scale,
        window: PfnRange,
        foreign: PfnRange,
        readers: [Option<R>; 2],
    ) -> Result<Self, String> {
        let machine = parts.machine;
        let facts = machine.facts();
        let addresses = facts.model.descriptors(window);
        let addresses = addresses.ok_or("the window lies outside the model")?;
        // One of the CPUs caches whatever there is whenever it may: which one, the window decides.
        let ahead = Ahead::default();
        let large = Order::new(scale.large()).unwrap_or(Order::BASE);
        let eager = usize::from(window.start() == Pfn::ZERO || window.start().is_aligned(large));
        ahead.watch(machine, addresses, eager);
        let [ours, theirs] = readers;
        let ours = ours.ok_or("nobody says whether there are readers")?;
        // SAFETY: 1 to 3: the machine has one table, one memory, one vmemmap and one root of readers.
        let vmemmap = unsafe { ours.vmemmap(facts.model, parts.frames, machine.memory()) };
        let oracle = parts.oracle.zip(theirs);
        let oracle = oracle
            .map(|(parts, readers)| Oracle::new(machine.facts(), parts, readers))
            .transpose()?;
        let tables = Tables::new(facts.has_tables, &machine.table_spans());
        Ok(Self {
            table: machine.take_table(foreign).ok_or("the table is taken")?,
            vmemmap: vmemmap?,
            oracle,
            model: Model::new(scale, window, tables, R::READ),
            parts,
            regions: Vec::new(),
            held: Vec::new(),
            planted: Vec::new(),
            armed: false,
            packs: false,
            ahead,
            window,
            addresses,
            scratch: vec![AuditSlot::default(); if scale.is_wide() { 1 << 14 } else { 1 << 12 }],
            tally: Tally::default(),
        })
    }

    pub(super) fn scale(&self) -> Scale {
        self.model.scale
    }

    /// Does `op`, the operation with this number, on all three, and compares.
    pub(super) fn step(&mut self, number: usize, op: &'s Op) -> Result<(), String> {
        let shared = self.model.tables.shared();
        match op {
            Op::Online(request) => {
                let altmaps = self.parts.altmaps.get(number).and_then(Option::as_ref);
                self.bring_online(request, altmaps)?;
            }
            Op::Populate(request, piece, by_region) => {
                self.populate(request, *piece, *by_region)?;
            }
            Op::Depopulate(request, piece, by_region) => {
                self.take_offline(request, *piece, *by_region)?;
            }
            Op::Shrink { region, piece } => self.shrink(*region, *piece)?,
            Op::Offline(index) => self.offline(*index)?,
            Op::Fold(fold) => self.change(fold)?,
            Op::Reorder(reorder) => self.reorder(reorder)?,
            Op::Fill(node, wanted) => self.fill(NodeId::new(*node), *wanted)?,
            Op::EmptyReserve => self.empty_reserve()?,
            Op::Hold(one) => R::hold(self, *one)?,
            Op::GiveBack(index) => self.give_back(*index),
            Op::Freeze { at, pages, ending } => R::freeze(self, *at, *pages, *ending)?,
            Op::Mark(one, node) => self.mark(*one, *node)?,
            Op::Unmark(one) => self.unmark(*one)?,
            Op::Write(one, value) => self.write(*one, *value)?,
            Op::Fault(fault) => self.arm(*fault),
            Op::Plant { page, huge } => self.map_foreign(*page, *huge)?,
            Op::PlantTables { page } => self.link_foreign_tables(*page)?,
            Op::Uproot(index) => self.unmap_foreign(*index),
            Op::Prune => self.prune(),
            Op::Access { one, cpu, store } => self.access(*one, *cpu, *store)?,
            Op::Speculate => self.speculate_all(),
        }
        self.tally.shared += u64::from(self.model.tables.shared() > shared);
        let everything = self.scale().is_wide() || number % EVERYTHING == EVERYTHING - 1;
        self.check(everything)
    }

    /// Takes everything offline, and checks that nothing is left.
    pub(super) fn finish(mut self) -> Result<Tally, String> {
        self.check(true)?;
        self.give_all_back();
        self.compare_contents()?;
        self.arm(Fault::None);
        self.empty_reserve()?;
        while !self.regions.is_empty() {
            self.offline(0)?;
            self.check(self.scale().is_wide())?;
        }
        let ranges = [self.window];
        let pagemap = DevPagemap::new(&self.parts.machine.model(), &ranges, Geometry::BASE_PAGES);
        let pagemap = pagemap.map_err(|error| error.to_string())?;
        for piece in self.pieces_online() {
            let gone = self.vmemmap.depopulate(&mut self.table, &pagemap, piece);
            let gone = gone.map_err(|error| format!("{piece} at the end: {error}"))?;
            if gone.marked != self.model.take_piece(piece) {
                return Err(format!("{gone:?} at the end"));
            }
        }
        while !self.planted.is_empty() {
            self.unmap_foreign(0);
        }
        self.prune();
        // Tables that only foreign leaves were left in go with the next that comes and goes there.
        let order = Order::new(self.scale().table_order()).unwrap_or(Order::BASE);
        let all = DevPagemap::new(
            &self.parts.machine.model(),
            &ranges,
            Geometry::compound(order),
        );
        let all = all.map_err(|error| error.to_string())?;
        let region = self.vmemmap.online(&mut self.table, &all);
        let region = region.map_err(|error| format!("all at the end: {error}"))?;
        let gone = self
            .vmemmap
            .offline(&mut self.table, region)
            .map_err(|error| error.to_string())?;
        self.prune();
        self.is_empty(gone.marked)?;
        Ok(self.tally)
    }

    /// What the library has online, in runs of pages.
    fn pieces_online(&self) -> Vec<PfnRange> {
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for (number, page) in self.model.mapped_in(self.model.all_pages()) {
            match (page.is_ours(), pages_last(&mut pieces)) {
                (false, _) => {}
                (true, Some(last)) if last.end == number => last.end += 1,
                (true, _) => pieces.push(number..number + 1),
            }
        }
        let scale = self.scale();
        pieces
            .iter()
            .filter_map(|pages| scale.frames(pages))
            .collect()
    }

    /// The region that has an altmap and some of `frames`.
    pub(super) fn with_altmap(&self, frames: PfnRange) -> Option<&Live<'s>> {
        let mut live = self.regions.iter();
        live.find(|live| live.altmaps.is_some() && live.meets(&[frames]))
    }

    /// How many frames of altmaps are out.
    pub(super) fn out_of_altmaps(&self) -> u64 {
        let all = self.parts.altmaps.iter().flatten();
        all.map(|both| both.ours.allocator().in_use()).sum()
    }

    /// The frame that the reader of bytes sees at each of `pages`, one after the other.
    pub(super) fn seen(&self, pages: &Range<u64>) -> Vec<Option<u64>> {
        let scale = self.scale();
        let mut seen = vec![None; (pages.end - pages.start) as usize];
        let Some(range) = self.range_of(pages) else {
            return seen;
        };
        self.table.scan(range, &mut |entry| {
            let SeenEntry::Leaf(leaf) = entry else {
                return;
            };
            let first = scale.page_at(leaf.at);
            for index in 0..leaf.order.frames() {
                let place = (first + index).checked_sub(pages.start);
                let place = place.and_then(|place| seen.get_mut(place as usize));
                if let Some(place) = place {
                    *place = Some(leaf.frame.get() + index);
                }
            }
        });
        seen
    }

    /// The addresses of `pages`.
    pub(super) fn range_of(&self, pages: &Range<u64>) -> Option<VirtRange> {
        let bytes = (pages.end - pages.start) * self.scale().page_bytes();
        VirtRange::new(self.scale().address(pages.start), bytes).ok()
    }

    /// The number of a page of the window.
    pub(super) fn number(&self, page: u64) -> u64 {
        self.window.start().get() / self.scale().per_page + page
    }

    /// The page that `one` is about, and its frame.
    pub(super) fn frame(&self, one: One) -> Result<(u64, Pfn), String> {
        let page = self.number(one.page);
        let mapped = |page: &u64| self.model.page(*page).is_some();
        let all = self.model.all_pages();
        let next = (page..all.end).chain(all.start..page).find(mapped);
        let page = next.filter(|_| one.aims).unwrap_or(page);
        let frame = Pfn::new(page * self.scale().per_page + one.index);
        Ok((page, frame.ok_or("no such frame")?))
    }

    /// What `expected` says, as an address.
    pub(super) fn at(&self, expected: Expected) -> Option<mm_core::addr::VirtAddr> {
        match expected {
            Expected::Refused(_, Some(page)) => Some(self.scale().address(page)),
            _ => None,
        }
    }
}

fn pages_last(pieces: &mut [Range<u64>]) -> Option<&mut Range<u64>> {
    pieces.last_mut()
}
