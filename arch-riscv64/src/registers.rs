//! How the kernel has set up its harts, as far as they can be asked.

use crate::format::SvFormat;
use core::fmt;

/// The register that says how a hart translates. [`Hart`](crate::Hart) reads the real one.
pub trait Registers {
    /// satp.
    fn satp(&self) -> u64;
}

/// What is not as the entries of this crate need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misconfigured {
    /// satp.MODE is another mode's than the format's.
    OtherMode {
        /// What the format needs.
        format: u8,
        /// What it is.
        hart: u8,
    },
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMode { format, hart } => write!(
                f,
                "satp.MODE is {hart} ({}), and the format is for {format} ({})",
                mode_name(*hart),
                mode_name(*format)
            ),
        }
    }
}

impl core::error::Error for Misconfigured {}

/// What a value of satp.MODE is called.
const fn mode_name(mode: u8) -> &'static str {
    match mode {
        0 => "Bare",
        8 => "Sv39",
        9 => "Sv48",
        10 => "Sv57",
        _ => "none of this crate's",
    }
}

/// The value of satp.MODE by which a hart walks tables in the format `F` (privileged manual, 4.1.11): 8 for Sv39, 9 for Sv48, 10
/// for Sv57.
pub const fn satp_mode<F: SvFormat>() -> u8 {
    5 + F::LEVELS.len() as u8
}

/// Whether a hart is set up as tables in the format `F` need it. A kernel asks on each hart that uses them, before it
/// does.
///
/// A hart that does not have a mode ignores a write of satp that asks for it, so the register tells.
///
/// # Errors
///
/// [`Misconfigured`].
pub fn check<F: SvFormat>(registers: &impl Registers) -> Result<(), Misconfigured> {
    let hart = (registers.satp() >> 60) as u8;
    let format = satp_mode::<F>();
    if hart == format {
        Ok(())
    } else {
        Err(Misconfigured::OtherMode { format, hart })
    }
}
