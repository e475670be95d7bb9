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

use crate::boot::{IDENTITY_END, IDENTITY_START};
use crate::device_tree::{DeviceTree, number_at, text};
use crate::processors::Processors;
use experiment::{MemoryMap, RangeList};
use mm_core::addr::{Granule, PfnRange, PhysAddr};

/// What was said.
#[derive(Clone, Copy, Debug)]
pub struct BootInformation {
    /// With which granule to run.
    pub granule: Granule,
    /// RAM, and the device's memory, in pages of that granule.
    pub map: MemoryMap,
    /// The CPUs, if they can be started and interrupted.
    pub processors: Option<Processors>,
}

/// Why the kernel cannot start with what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// No device tree where one should be.
    NoDeviceTree,
    /// It has no arguments for the kernel, or such as it does not know.
    Arguments,
    /// It has no memory, or more ranges of it than there is room for.
    Memory,
    /// The device is larger than the last range of RAM, or does not consist of whole pages.
    DeviceSize,
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
        // SAFETY: 1: duty 1, as here.
        let header = unsafe { bytes(address, DeviceTree::HEADER_BYTES) };
        let size = header.and_then(DeviceTree::total_bytes);
        // SAFETY: 1: duty 1, as here.
        let tree = size.and_then(|size| unsafe { bytes(address, size) });
        let tree = tree.and_then(DeviceTree::new);
        Self::from_tree(&tree.ok_or(BootError::NoDeviceTree)?)
    }

    fn from_tree(tree: &DeviceTree<'_>) -> Result<Self, BootError> {
        let arguments = tree.find(b"chosen", b"bootargs").and_then(text);
        let arguments = arguments.and_then(|arguments| core::str::from_utf8(arguments).ok());
        let arguments = Arguments::parse(arguments.ok_or(BootError::Arguments)?)?;
        let granule = arguments.granule;
        let cells = cells(tree).ok_or(BootError::Memory)?;
        let all = memory(tree, cells, granule).ok_or(BootError::Memory)?;
        let map = split(&all, arguments.device_bytes >> granule.shift());
        Ok(Self {
            granule,
            map: map.ok_or(BootError::DeviceSize)?,
            processors: Processors::read(tree, cells),
        })
    }
}

/// The kernel's arguments.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    granule: Granule,
    device_bytes: u64,
}

impl Arguments {
    fn parse(text: &str) -> Result<Self, BootError> {
        let (mut granule, mut device_bytes) = (None, None);
        for argument in text.split_ascii_whitespace() {
            match argument.split_once('=') {
                Some(("granule", "4K")) => granule = Some(Granule::Size4K),
                Some(("granule", "16K")) => granule = Some(Granule::Size16K),
                Some(("granule", "64K")) => granule = Some(Granule::Size64K),
                Some(("device", size)) => device_bytes = size_of(size),
                _ => return Err(BootError::Arguments),
            }
        }
        Ok(Self {
            granule: granule.ok_or(BootError::Arguments)?,
            device_bytes: device_bytes.ok_or(BootError::Arguments)?,
        })
    }
}

/// The bytes of a size in MiB, as in 512M.
fn size_of(text: &str) -> Option<u64> {
    let mebibytes: u64 = text.strip_suffix('M')?.parse().ok()?;
    mebibytes.checked_mul(1 << 20)
}

/// How many cells an address and a size have, in nodes right below the root.
fn cells(tree: &DeviceTree<'_>) -> Option<(u32, u32)> {
    let cells = |name| number_at(tree.find(b"", name)?, 0, 1).map(|cells| cells as u32);
    Some((cells(b"#address-cells")?, cells(b"#size-cells")?))
}

/// All RAM, in whole pages of `granule`.
fn memory(
    tree: &DeviceTree<'_>,
    (address_cells, size_cells): (u32, u32),
    granule: Granule,
) -> Option<RangeList> {
    let address_bytes = 4 * address_cells as usize;
    let entry_bytes = address_bytes + 4 * size_cells as usize;
    let mut found = RangeList::default();
    let memory = tree.properties().filter(|property| {
        let is_memory = property.node == b"memory" || property.node.starts_with(b"memory@");
        property.depth == 1 && is_memory && property.name == b"reg"
    });
    for property in memory {
        for entry in property.value.chunks_exact(entry_bytes.max(1)) {
            let start = number_at(entry, 0, address_cells)?;
            let size = number_at(entry, address_bytes, size_cells)?;
            let range = PfnRange::whole_frames(PhysAddr::new(start), size, granule)?;
            if !found.add(range) {
                return None;
            }
        }
    }
    (!found.as_slice().is_empty()).then_some(found)
}

/// Takes the last `device_frames` frames of `all` for the device.
fn split(all: &RangeList, device_frames: u64) -> Option<MemoryMap> {
    let (last, others) = all.as_slice().split_last()?;
    let (ram, device) = last.split_at(last.frames().checked_sub(device_frames)?);
    let mut map = MemoryMap::default();
    for range in others.iter().copied().chain(ram) {
        if !map.ram.add(range) {
            return None;
        }
    }
    map.device.add(device?).then_some(map)
}

/// The `size` bytes at `address`; `None` where not all of them are mapped.
///
/// # Safety
///
/// 1. As for [`BootInformation::read`].
unsafe fn bytes<'b>(address: u64, size: u64) -> Option<&'b [u8]> {
    let end = address.checked_add(size)?;
    if address < IDENTITY_START || end > IDENTITY_END {
        return None;
    }
    let first = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: mapped, and not written to (duty 1); any byte is a `u8`.
    Some(unsafe { core::slice::from_raw_parts(first, size as usize) })
}
