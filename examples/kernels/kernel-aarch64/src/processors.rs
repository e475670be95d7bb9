//! What the device tree says of the CPUs, and of what starts and interrupts them (*Devicetree Specification*, "CPU nodes"; Linux's bindings
//! `arm/psci` and `interrupt-controller/arm,gic-v3`).

use crate::cpus::GicRegisters;
use crate::device_tree::{DeviceTree, Property, number_at, text};
use experiment::MOST_CPUS;

/// How firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// By HVC.
    Hvc,
    /// By SMC.
    Smc,
}

/// The CPUs of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// How firmware is asked to start one.
    pub conduit: Conduit,
    /// What one interrupts another by.
    pub gic: GicRegisters,
    affinities: [u64; MOST_CPUS],
    used: usize,
    left_out: usize,
}

impl Processors {
    /// What `tree` says, whose root has so many cells for an address and for a size. `None` where it does not say what is needed, or has
    /// another interrupt controller than a GICv3.
    pub fn read(tree: &DeviceTree<'_>, (address_cells, size_cells): (u32, u32)) -> Option<Self> {
        let conduit = match tree.find(b"psci", b"method").and_then(text)? {
            b"hvc" => Conduit::Hvc,
            b"smc" => Conduit::Smc,
            _ => return None,
        };
        let is_gic = |found: &Property<'_>| {
            found.name == b"compatible" && text(found.value) == Some(b"arm,gic-v3")
        };
        let gic = tree.properties().find(is_gic)?;
        let places = tree.find(gic.node, b"reg")?;
        let address_bytes = 4 * address_cells as usize;
        let entry_bytes = address_bytes + 4 * size_cells as usize;
        let place = |index: usize| {
            let at = index * entry_bytes;
            let start = number_at(places, at, address_cells)?;
            Some((start, number_at(places, at + address_bytes, size_cells)?))
        };
        let mut processors = Self {
            conduit,
            gic: GicRegisters {
                distributor: place(0)?,
                redistributors: place(1)?,
            },
            affinities: [0; MOST_CPUS],
            used: 0,
            left_out: 0,
        };
        let is_cpu = |found: &Property<'_>| {
            found.depth == 2 && found.node.starts_with(b"cpu@") && found.name == b"reg"
        };
        for cpu in tree.properties().filter(is_cpu) {
            processors.add(number_at(cpu.value, 0, (cpu.value.len() / 4) as u32)?);
        }
        Some(processors)
    }

    /// Adds the CPU with `affinity`. Those that there is no room for are counted.
    fn add(&mut self, affinity: u64) {
        match self.affinities.get_mut(self.used) {
            Some(place) => {
                *place = affinity;
                self.used += 1;
            }
            None => self.left_out += 1,
        }
    }

    /// Their affinities, as in MPIDR_EL1.
    pub fn affinities(&self) -> &[u64] {
        self.affinities.get(..self.used).unwrap_or_default()
    }

    /// How many there was no room for.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
}
