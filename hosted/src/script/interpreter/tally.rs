//! What scripts have done.

/// How often what has happened, to see that scripts do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pagemaps and pieces that came online.
    pub online: u64,
    /// Of these, such with huge leaves.
    pub huge: u64,
    /// Of these, such with fewer huge leaves than there was room for.
    pub unavailable: u64,
    /// Of these, such with frames from another node.
    pub remote: u64,
    /// Regions and pieces that went offline.
    pub offline: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations that lacked RAM and were undone.
    pub undone: u64,
    /// Operations that lacked frames of the altmap and were undone.
    pub exhausted: u64,
    /// Pieces that could not go offline for want of a private table.
    pub kept: u64,
    /// Foreign leaves that were mapped.
    pub planted: u64,
    /// Accesses by CPUs to what was mapped.
    pub accessed: u64,
}
