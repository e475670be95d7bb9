//! The reserved part of a device, as an altmap.

use crate::failure::Failure;
use crate::need::Limits;
use crate::size::rounded;
use mm_core::addr::{NodeId, PfnRange};
use mm_core::frame::DeviceAltmap;
use std::sync::atomic::AtomicU64;

/// The memory that an altmap counts in.
#[derive(Debug)]
pub struct Reserved {
    frames: PfnRange,
    counts: Vec<AtomicU64>,
}

impl Reserved {
    /// Counts for `frames`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] where they take more memory than `limits` allow.
    pub fn new(frames: PfnRange, limits: &Limits) -> Result<Self, Failure> {
        let bytes = frames
            .frames()
            .saturating_mul(size_of::<AtomicU64>() as u64);
        if bytes > limits.host_bytes {
            return Err(Failure::too_large(format!(
                "simulating an altmap of {} frames takes {} of host memory for its counts, more than the limit of {}; reserve less",
                frames.frames(),
                rounded(bytes as f64),
                rounded(limits.host_bytes as f64),
            )));
        }
        let counts = (0..frames.frames()).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { frames, counts })
    }

    /// The frames.
    pub const fn frames(&self) -> PfnRange {
        self.frames
    }

    /// The altmap, on `node`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] where the library wants more counts than there are.
    ///
    /// # Safety
    ///
    /// 1. No frame is taken from it, or the frames are memory of one machine, which its direct map reaches, and are
    ///    used by nobody else while the altmap or a mapping of one of its frames is in use.
    pub unsafe fn altmap(&self, node: NodeId) -> Result<DeviceAltmap<'_>, Failure> {
        // SAFETY: 1 and 2: the caller's duty 1.
        unsafe { DeviceAltmap::new(self.frames, node, &self.counts) }.map_err(Failure::host)
    }
}
