//! What the device tree says of the CPUs, and of what starts and interrupts them (*Devicetree Specification*, "CPU nodes"; Linux's bindings
//! `arm/psci` and `interrupt-controller/arm,gic-v3`).

use crate::cpus::GicRegisters;
use device_tree::{Machine, Property, text};
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
    /// What the device tree says. `None` where it does not say what is needed, or has another interrupt controller than a GICv3.
    pub fn read(machine: &Machine<'_>) -> Option<Self> {
        let tree = &machine.tree;
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
        let mut processors = Self {
            conduit,
            gic: GicRegisters {
                distributor: machine.cells.place(places, 0)?,
                redistributors: machine.cells.place(places, 1)?,
            },
            affinities: [0; MOST_CPUS],
            used: 0,
            left_out: 0,
        };
        machine.cpus().for_each(|affinity| processors.add(affinity));
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
