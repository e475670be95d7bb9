//! The machine that a device tree describes (*Devicetree Specification*, "Device Node Requirements").

use crate::{DeviceTree, Property, number_at, text};
use core::ops::Range;
use experiment::{MemoryMap, RangeList};
use mm_core::addr::{Granule, PfnRange, PhysAddr};

/// Why a kernel cannot start with what was said.
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

/// How many cells an address and a size have, in nodes right below the root.
#[derive(Clone, Copy, Debug)]
pub struct Cells {
    address: u32,
    size: u32,
}

impl Cells {
    /// The address and the size at `index` of the value of a `reg`.
    pub fn place(self, reg: &[u8], index: usize) -> Option<(u64, u64)> {
        let address_bytes = 4 * self.address as usize;
        let entry_bytes = address_bytes + 4 * self.size as usize;
        let at = index.checked_mul(entry_bytes)?;
        let start = number_at(reg, at, self.address)?;
        let size = number_at(reg, at.checked_add(address_bytes)?, self.size)?;
        Some((start, size))
    }
}

/// A machine, by its device tree.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'t> {
    /// The tree.
    pub tree: DeviceTree<'t>,
    /// How addresses and sizes are written.
    pub cells: Cells,
}

impl<'t> Machine<'t> {
    /// The machine whose device tree lies at `address`, all of it in `mapped`.
    ///
    /// # Errors
    ///
    /// [`BootError`].
    ///
    /// # Safety
    ///
    /// 1. Physical memory of `mapped` is mapped where it is, and nobody writes to the device tree.
    pub unsafe fn at(address: u64, mapped: Range<u64>) -> Result<Self, BootError> {
        // SAFETY: 1: duty 1, as here.
        let header = unsafe { bytes(address, DeviceTree::HEADER_BYTES, &mapped) };
        let size = header.and_then(DeviceTree::total_bytes);
        // SAFETY: 1: duty 1, as here.
        let tree = size.and_then(|size| unsafe { bytes(address, size, &mapped) });
        let tree = tree
            .and_then(DeviceTree::new)
            .ok_or(BootError::NoDeviceTree)?;
        let cells = |name| number_at(tree.find(b"", name)?, 0, 1).map(|cells| cells as u32);
        let (address, size) = cells(b"#address-cells")
            .zip(cells(b"#size-cells"))
            .ok_or(BootError::Memory)?;
        Ok(Self {
            tree,
            cells: Cells { address, size },
        })
    }

    /// The kernel's arguments.
    ///
    /// # Errors
    ///
    /// [`BootError::Arguments`].
    pub fn arguments(&self) -> Result<&'t str, BootError> {
        let arguments = self.tree.find(b"chosen", b"bootargs").and_then(text);
        let arguments = arguments.and_then(|arguments| core::str::from_utf8(arguments).ok());
        arguments.ok_or(BootError::Arguments)
    }

    /// All RAM in whole pages of `granule`, the last `device_bytes` of it as a device's memory.
    ///
    /// # Errors
    ///
    /// [`BootError::Memory`], [`BootError::DeviceSize`].
    pub fn memory(&self, granule: Granule, device_bytes: u64) -> Result<MemoryMap, BootError> {
        let all = self.ram(granule).ok_or(BootError::Memory)?;
        split(&all, device_bytes >> granule.shift()).ok_or(BootError::DeviceSize)
    }

    fn ram(&self, granule: Granule) -> Option<RangeList> {
        let mut found = RangeList::default();
        let memory = self.tree.properties().filter(|property| {
            let is_memory = property.node == b"memory" || property.node.starts_with(b"memory@");
            property.depth == 1 && is_memory && property.name == b"reg"
        });
        for property in memory {
            let places = (0..).map_while(|index| self.cells.place(property.value, index));
            for (start, size) in places {
                let range = PfnRange::whole_frames(PhysAddr::new(start), size, granule)?;
                if !found.add(range) {
                    return None;
                }
            }
        }
        (!found.as_slice().is_empty()).then_some(found)
    }

    /// By which number each CPU is known to firmware.
    pub fn cpus(&self) -> impl Iterator<Item = u64> + use<'t> {
        let is_cpu = |found: &Property<'_>| {
            found.depth == 2 && found.node.starts_with(b"cpu@") && found.name == b"reg"
        };
        let cpus = self.tree.properties().filter(is_cpu);
        cpus.filter_map(|cpu| number_at(cpu.value, 0, (cpu.value.len() / 4) as u32))
    }
}

/// The bytes of a size in MiB, as in 512M.
pub fn mebibytes(text: &str) -> Option<u64> {
    let mebibytes: u64 = text.strip_suffix('M')?.parse().ok()?;
    mebibytes.checked_mul(1 << 20)
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

/// The `size` bytes at `address`; `None` where not all of them are in `mapped`.
///
/// # Safety
///
/// 1. As for [`Machine::at`].
unsafe fn bytes<'b>(address: u64, size: u64, mapped: &Range<u64>) -> Option<&'b [u8]> {
    let end = address.checked_add(size)?;
    if address < mapped.start || end > mapped.end {
        return None;
    }
    let first = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: mapped, and not written to (duty 1); any byte is a `u8`.
    Some(unsafe { core::slice::from_raw_parts(first, size as usize) })
}
