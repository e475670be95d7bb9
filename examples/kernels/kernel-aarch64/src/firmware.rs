//! What the emulator says: where RAM is, which of it is the device's, with which granule to run, and which CPUs there are.
//!
//! For an ELF image the device tree lies at the start of RAM (QEMU, "Arm 'virt' generic virtual platform", "Hardware configuration information for
//! bare-metal programming"); for others X0 has its address.
//!
//! The kernel's arguments, which are `/chosen/bootargs` there:
//!
//! | argument | means |
//! |---|---|
//! | `granule=4K`, `16K` or `64K` | the size of pages in the upper half |
//! | `device=SIZE`, as in 4096M | how much of the top of RAM is the device's |
//! | `dump` | have the machine dumped with memory online, and nothing else |

use crate::boot::{IDENTITY_END, IDENTITY_START};
use crate::processors::Processors;
use device_tree::{BootError, Machine, mebibytes};
use experiment::MemoryMap;
use mm_core::addr::Granule;

/// What was said.
#[derive(Clone, Copy, Debug)]
pub struct BootInformation {
    /// With which granule to run.
    pub granule: Granule,
    /// RAM, and the device's memory, in pages of that granule.
    pub map: MemoryMap,
    /// Whether the machine is to be dumped.
    pub dump: bool,
    /// The CPUs, if they can be started and interrupted.
    pub processors: Option<Processors>,
}

impl BootInformation {
    /// Reads it. `address` is that of the device tree, or 0 where nothing was said.
    ///
    /// # Errors
    ///
    /// [`BootError`].
    ///
    /// # Safety
    ///
    /// 1. Physical memory from [`IDENTITY_START`] to [`IDENTITY_END`] is mapped where it is, and nobody writes to the device tree.
    pub unsafe fn read(address: u64) -> Result<Self, BootError> {
        let address = if address == 0 {
            IDENTITY_START
        } else {
            address
        };
        // SAFETY: 1: duty 1.
        let machine = unsafe { Machine::at(address, IDENTITY_START..IDENTITY_END) }?;
        let arguments = Arguments::parse(machine.arguments()?)?;
        let granule = arguments.granule;
        Ok(Self {
            granule,
            dump: arguments.dump,
            map: machine.memory(granule, arguments.device_bytes)?,
            processors: Processors::read(&machine),
        })
    }
}

/// The kernel's arguments.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    granule: Granule,
    device_bytes: u64,
    dump: bool,
}

impl Arguments {
    fn parse(text: &str) -> Result<Self, BootError> {
        let (mut granule, mut device_bytes, mut dump) = (None, None, false);
        for argument in text.split_ascii_whitespace() {
            match argument.split_once('=') {
                Some(("granule", "4K")) => granule = Some(Granule::Size4K),
                Some(("granule", "16K")) => granule = Some(Granule::Size16K),
                Some(("granule", "64K")) => granule = Some(Granule::Size64K),
                Some(("device", size)) => device_bytes = mebibytes(size),
                None if argument == "dump" => dump = true,
                _ => return Err(BootError::Arguments),
            }
        }
        Ok(Self {
            granule: granule.ok_or(BootError::Arguments)?,
            device_bytes: device_bytes.ok_or(BootError::Arguments)?,
            dump,
        })
    }
}
