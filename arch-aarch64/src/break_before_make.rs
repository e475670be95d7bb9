//! What may be changed in a valid entry without making it invalid first.
//!
//! The rule (Arm ARM, "Using break-before-make when updating translation table entries"): a valid
//! entry whose output address, block size or memory type is to change is made invalid, then
//! flushed, and only then made valid with the new contents. A CPU that caches old and new at once
//! may fault, or access either.
//!
//! mm-core's engine keeps the rule on every CPU:
//!
//! - an entry that is zero becomes valid (`map`);
//! - a valid entry becomes invalid, and zero after the flush (`unmap`), and so does the link of a
//!   whole table;
//! - a valid entry becomes invalid, and another valid one after the flush (`replace`), while the
//!   kernel's [`Quiesce`](crate::Quiesce) keeps CPUs from its addresses. Without one that is
//!   refused. These entries change where they lead, so no level of FEAT_BBM spares it.

/// Which changes of block size a CPU allows without break-before-make: ID_AA64MMFR2_EL1.BBM
/// (FEAT_BBM).
///
/// Whatever the level, a change of the output address takes break-before-make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreakBeforeMake {
    /// None: the entry goes by way of invalid.
    #[default]
    Required,
    /// Level 1: blocks that have nT set may be exchanged for tables that translate alike, and back.
    NotWithNt,
    /// Level 2: blocks may be exchanged for tables that translate alike, and back. The CPU may
    /// report that it caches both by a TLB conflict abort, which is answered by a flush.
    NotForBlockSize,
}

impl BreakBeforeMake {
    /// What ID_AA64MMFR2_EL1 says: its bits 55 to 52. Values still to come promise what the known
    /// ones do (Arm ARM, "Principles of the ID scheme for fields in ID registers").
    pub const fn from_id_aa64mmfr2(register: u64) -> Self {
        match register >> 52 & 0xf {
            0 => Self::Required,
            1 => Self::NotWithNt,
            _ => Self::NotForBlockSize,
        }
    }
}
