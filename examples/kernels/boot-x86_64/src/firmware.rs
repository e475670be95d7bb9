//! Reading what firmware left in physical memory, while that is still mapped where it is.

use crate::boot::IDENTITY_END;

/// Physical memory below [`IDENTITY_END`], by its own addresses.
#[derive(Clone, Copy, Debug)]
pub struct FirmwareMemory(());

impl FirmwareMemory {
    /// # Safety
    ///
    /// 1. Physical memory below [`IDENTITY_END`] is mapped where it is, for as long as the value is used.
    /// 2. What is read through it is not written to meanwhile.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// The `bytes` bytes at `address`; `None` where they are null or not all below the end.
    pub fn bytes(&self, address: u64, bytes: u64) -> Option<&[u8]> {
        let end = address.checked_add(bytes)?;
        if address == 0 || end > IDENTITY_END {
            return None;
        }
        // SAFETY: mapped by duty 1 of `new` and not written to by 2; any byte is a `u8`.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, bytes as usize) })
    }
}

/// Little-endian numbers out of bytes.
pub trait Fields {
    /// The `N` bytes at `offset`.
    fn field<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Two bytes.
    fn u16_at(&self, offset: usize) -> Option<u16> {
        self.field(offset).map(u16::from_le_bytes)
    }

    /// Four bytes.
    fn u32_at(&self, offset: usize) -> Option<u32> {
        self.field(offset).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    fn u64_at(&self, offset: usize) -> Option<u64> {
        self.field(offset).map(u64::from_le_bytes)
    }
}

impl Fields for [u8] {
    fn field<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}
