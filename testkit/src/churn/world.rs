//! What a run borrows: a machine, the memory that comes online in it, and altmaps.

use super::layout::Layout;
use crate::TestMachine;
use crate::threads::{ThreadCpus, ThreadKernel};
use arch_sim::SimMemory;
use fastrand::Rng;
use hosted::{BackendKind, MachineConfig};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::frame::DeviceAltmap;
use mm_core::paging::Replacement;
use mm_core::readers::{OnlineEntry, Readers};

/// How many pagemaps' worth of memory there are besides the devices: small and large ones.
const SMALL: usize = 48;
const LARGE: usize = 6;

/// How many devices have an altmap.
const DEVICES: u64 = 4;

/// Vmemmap pages of a device.
const DEVICE_PAGES: u64 = 128;

/// Frames for tables of somebody else.
const FOREIGN_FRAMES: u64 = 16;

/// The altmap of a device.
pub(super) type Altmap<'w> = DeviceAltmap<&'w SimMemory>;

/// Memory that comes online as one pagemap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) ranges: [PfnRange; 1],
    /// The largest order that it is whole pages of.
    pub(super) order: Order,
}

/// A machine and its memory.
pub(super) struct World {
    pub(super) layout: Layout,
    pub(super) machine: TestMachine,
    /// CPUs by which readers translate.
    pub(super) cpus: ThreadCpus,
    online_map: Vec<OnlineEntry>,
    pub(super) memories: Vec<Memory>,
    pub(super) large_memories: Vec<Memory>,
    pub(super) devices: Vec<Memory>,
    /// All of it.
    pub(super) window: [PfnRange; 1],
    /// Frames that somebody else may make tables of.
    pub(super) foreign: PfnRange,
}

impl World {
    pub(super) fn new(kind: BackendKind, rng: &mut Rng) -> Result<Self, String> {
        let layout = Layout::of(&kind.facts(), rng.u64(..))?;
        let window = layout.window()?;
        let quarter = Pfn::new(layout.model.all_frames().frames() / 4);
        let foreign = quarter.and_then(|start| PfnRange::new(start, FOREIGN_FRAMES).ok());
        let foreign = foreign.ok_or("no frames for foreign tables")?;
        let devices = (0..DEVICES).map(|index| {
            let frames = layout.frames(index * DEVICE_PAGES, DEVICE_PAGES)?;
            Ok(memory(&layout, frames))
        });
        let devices: Vec<Memory> = devices.collect::<Result<_, String>>()?;
        let memories = (0..SMALL).map(|_| small_memory(&layout, rng));
        let memories = memories.collect::<Result<_, String>>()?;
        let large_memories = (0..LARGE as u64).map(|index| large_memory(&layout, index));
        let large_memories = large_memories.collect::<Result<_, String>>()?;
        let reserved = devices.iter().map(|device| reserved(&layout, device));
        let machine = TestMachine::new(
            kind,
            &MachineConfig {
                devices: vec![window, foreign],
                backed: reserved.chain([foreign]).collect(),
                ram_frames: 1 << 15,
                ..MachineConfig::default()
            },
        );
        let machine = machine.map_err(|error| error.to_string())?;
        // Without tables nobody translates: see `Churn::check_found`.
        let translated = match machine.facts().has_tables {
            true => kind,
            false => BackendKind::X86_64,
        };
        let rule = Replacement::Direct;
        let entries = 0..layout.model.online_entries();
        Ok(Self {
            layout,
            cpus: ThreadCpus::new(translated, machine.memory(), machine.root(), rule),
            online_map: entries.map(|_| OnlineEntry::new()).collect(),
            machine,
            memories,
            large_memories,
            devices,
            window: [window],
            foreign,
        })
    }

    /// An altmap for each device.
    /// Readers of what comes online here.
    pub(super) fn readers<'w>(
        &'w self,
        kernel: &'w ThreadKernel<'w>,
    ) -> Result<Readers<'w, ThreadKernel<'w>>, String> {
        let readers = Readers::new(self.layout.model, &self.online_map, kernel);
        readers.map_err(|error| error.to_string())
    }

    pub(super) fn altmaps(&self) -> Result<Vec<Altmap<'_>>, String> {
        let altmap = |device: &Memory| {
            let (memory, node) = (self.machine.memory(), NodeId::new(0));
            let reserved = reserved(&self.layout, device);
            // SAFETY: 1: the machine's memory, which nobody else uses. 2: it has these frames. 3 and
            // 4: there is one vmemmap, and one thread.
            let altmap = unsafe { DeviceAltmap::new(&self.layout.model, memory, reserved, node) };
            altmap.map_err(|error| error.to_string())
        };
        self.devices.iter().map(altmap).collect()
    }
}

/// What the altmap of `device` reserves: a subsection.
fn reserved(layout: &Layout, device: &Memory) -> PfnRange {
    let [range] = device.ranges;
    range.take_first(layout.model.subsection().frames()).0
}

fn memory(layout: &Layout, range: PfnRange) -> Memory {
    let orders = layout.orders.into_iter().rev();
    let mut fits = orders.filter(|order| range.is_aligned(*order));
    Memory {
        ranges: [range],
        order: fits.next().unwrap_or(Order::BASE),
    }
}

/// Somewhere behind the devices, mostly where others are.
fn small_memory(layout: &Layout, rng: &mut Rng) -> Result<Memory, String> {
    let [small, medium, _] = layout.orders.map(|order| layout.pages_of_order(order));
    let (unit, most) = match rng.u8(..8) {
        0..=3 => (small, 6),
        4..=6 => (layout.subsection, 8),
        _ => (medium, 2),
    };
    let first = layout.device_pages().next_multiple_of(unit);
    let units = (layout.pages() - first) / unit;
    let near = (2 * medium / unit).clamp(1, units);
    let skip = match rng.u8(..24) {
        0 => rng.u64(..units),
        _ => rng.u64(..near),
    };
    let length = rng.u64(1..=most).min(units - skip);
    let frames = layout.frames(first + skip * unit, length * unit)?;
    Ok(memory(layout, frames))
}

/// A whole leaf table's worth behind the devices, or several.
fn large_memory(layout: &Layout, index: u64) -> Result<Memory, String> {
    let (first, tables) = match index {
        0..=2 => (1 + index, 1),
        3 => (1, 2),
        _ => (2, 2),
    };
    let frames = layout.frames(first * layout.table, tables * layout.table)?;
    Ok(memory(layout, frames))
}
