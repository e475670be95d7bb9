//! What firmware says in the device tree: where RAM is, which of it is the device's, in which mode to run, and which harts there are.
//!
//! The kernel's arguments, which are `/chosen/bootargs` there:
//!
//! | argument | means |
//! |---|---|
//! | `mode=sv39`, `sv48` or `sv57` | how the harts translate |
//! | `device=SIZE`, as in 4096M | how much of the top of RAM is the device's |
//! | `dump` | have the machine dumped with memory online, and nothing else |

use crate::paging::{GRANULE, Mode};
use core::ops::Range;
use device_tree::{BootError, Machine, mebibytes, number_at};
use experiment::{MOST_CPUS, MemoryMap};

/// Without translation all physical memory is where it is. More than any machine has.
pub const MAPPED: Range<u64> = 0..1 << 56;

/// What was said.
#[derive(Clone, Copy, Debug)]
pub struct BootInformation {
    /// In which mode to run.
    pub mode: Mode,
    /// RAM, and the device's memory.
    pub map: MemoryMap,
    /// Whether the machine is to be dumped.
    pub dump: bool,
    /// The harts.
    pub harts: Harts,
}

/// The harts of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Harts {
    /// How often the time goes up in a second.
    pub ticks_per_second: u64,
    ids: [u64; MOST_CPUS],
    used: usize,
    left_out: usize,
}

impl Harts {
    fn read(machine: &Machine<'_>) -> Option<Self> {
        let frequency = machine.tree.find(b"cpus", b"timebase-frequency")?;
        let mut harts = Self {
            ticks_per_second: number_at(frequency, 0, (frequency.len() / 4) as u32)?,
            ids: [0; MOST_CPUS],
            used: 0,
            left_out: 0,
        };
        for id in machine.cpus() {
            match harts.ids.get_mut(harts.used) {
                Some(place) => {
                    *place = id;
                    harts.used += 1;
                }
                None => harts.left_out += 1,
            }
        }
        Some(harts)
    }

    /// By which number firmware knows each.
    pub fn ids(&self) -> &[u64] {
        self.ids.get(..self.used).unwrap_or_default()
    }

    /// How many there was no room for.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
}

impl BootInformation {
    /// Reads it. `address` is that of the device tree.
    ///
    /// # Errors
    ///
    /// [`BootError`].
    ///
    /// # Safety
    ///
    /// 1. There is no translation, and nobody writes to the device tree.
    pub unsafe fn read(address: u64) -> Result<Self, BootError> {
        // SAFETY: 1: duty 1.
        let machine = unsafe { Machine::at(address, MAPPED) }?;
        let arguments = Arguments::parse(machine.arguments()?)?;
        Ok(Self {
            mode: arguments.mode,
            dump: arguments.dump,
            map: machine.memory(GRANULE, arguments.device_bytes)?,
            harts: Harts::read(&machine).ok_or(BootError::NoDeviceTree)?,
        })
    }
}

/// The kernel's arguments.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    mode: Mode,
    device_bytes: u64,
    dump: bool,
}

impl Arguments {
    fn parse(text: &str) -> Result<Self, BootError> {
        let (mut mode, mut device_bytes, mut dump) = (None, None, false);
        for argument in text.split_ascii_whitespace() {
            match argument.split_once('=') {
                Some(("mode", "sv39")) => mode = Some(Mode::Sv39),
                Some(("mode", "sv48")) => mode = Some(Mode::Sv48),
                Some(("mode", "sv57")) => mode = Some(Mode::Sv57),
                Some(("device", size)) => device_bytes = mebibytes(size),
                None if argument == "dump" => dump = true,
                _ => return Err(BootError::Arguments),
            }
        }
        Ok(Self {
            mode: mode.ok_or(BootError::Arguments)?,
            device_bytes: device_bytes.ok_or(BootError::Arguments)?,
            dump,
        })
    }
}
