//! How often what has happened.

use std::ops::AddAssign;

/// How often what has happened, to see that scripts do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pagemaps and pieces that came online.
    pub online: u64,
    /// Of these, such with packed heads.
    pub packed: u64,
    /// Of these, such with huge leaves.
    pub huge: u64,
    /// Of these, such with fewer huge leaves than there was room for.
    pub unavailable: u64,
    /// Of these, such with frames from another node.
    pub remote: u64,
    /// Of these, such with an altmap.
    pub altmap: u64,
    /// Of these, such with compound pages that share tails behind it.
    pub compound_altmap: u64,
    /// Regions and pieces that went offline.
    pub offline: u64,
    /// Of these, such as split a huge leaf or a shared table.
    pub split_offline: u64,
    /// Of the regions, such as had to leave a part for want of RAM to split it.
    pub kept: u64,
    /// Folds that folded something.
    pub folded: u64,
    /// Of these, such as split a huge leaf.
    pub split: u64,
    /// Operations after which there was a shared table that was not there before.
    pub shared: u64,
    /// Unfolds that unfolded something.
    pub unfolded: u64,
    /// Unfolds that made a huge leaf.
    pub joined: u64,
    /// Ranges whose descriptors became those of other pages.
    pub reshaped: u64,
    /// Folds, unfolds and reshapes that were refused.
    pub fold_refused: u64,
    /// Runs of units that were folded, unfolded or reshaped beside readers, frozen first.
    pub changed_frozen: u64,
    /// Folds and unfolds that lacked RAM and were undone.
    pub fold_undone: u64,
    /// Units whose pages changed their order.
    pub reordered: u64,
    /// Of these, such as were asked for only in part.
    pub reordered_parts: u64,
    /// Of these, such as had packed heads before or afterwards.
    pub repacked: u64,
    /// Units that did so beside readers, frozen first.
    pub reordered_frozen: u64,
    /// Changes of order that were refused.
    pub reorder_refused: u64,
    /// Of these, such as lacked something in reserve.
    pub too_small: u64,
    /// Times that the reserve was filled.
    pub filled: u64,
    /// Times that it was not for want of RAM, and nothing was put in.
    pub fill_undone: u64,
    /// References that readers took and kept.
    pub held: u64,
    /// Pages or units that were not frozen because of such references.
    pub busy: u64,
    /// Pieces that went offline frozen.
    pub frozen: u64,
    /// What was frozen and dropped.
    pub thawed: u64,
    /// Frames that were marked.
    pub marked: u64,
    /// Marks that survived a fold or an unfold.
    pub marks_kept: u64,
    /// Marks that went offline.
    pub marks_gone: u64,
    /// Descriptors that the kernel wrote to.
    pub written: u64,
    /// Operations that were refused, of all kinds.
    pub refused: u64,
    /// Of these, such as were refused because the frames are another altmap's.
    pub other_altmap: u64,
    /// Operations that lacked RAM and were undone.
    pub undone: u64,
    /// Operations that lacked frames of the altmap and were undone.
    pub exhausted: u64,
    /// Foreign leaves that were mapped.
    pub planted: u64,
    /// Accesses by CPUs to what was mapped.
    pub accessed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.online += other.online;
        self.packed += other.packed;
        self.huge += other.huge;
        self.unavailable += other.unavailable;
        self.remote += other.remote;
        self.altmap += other.altmap;
        self.compound_altmap += other.compound_altmap;
        self.offline += other.offline;
        self.split_offline += other.split_offline;
        self.kept += other.kept;
        self.folded += other.folded;
        self.split += other.split;
        self.shared += other.shared;
        self.unfolded += other.unfolded;
        self.joined += other.joined;
        self.reshaped += other.reshaped;
        self.fold_refused += other.fold_refused;
        self.changed_frozen += other.changed_frozen;
        self.fold_undone += other.fold_undone;
        self.reordered += other.reordered;
        self.reordered_parts += other.reordered_parts;
        self.repacked += other.repacked;
        self.reordered_frozen += other.reordered_frozen;
        self.reorder_refused += other.reorder_refused;
        self.too_small += other.too_small;
        self.filled += other.filled;
        self.fill_undone += other.fill_undone;
        self.held += other.held;
        self.busy += other.busy;
        self.frozen += other.frozen;
        self.thawed += other.thawed;
        self.marked += other.marked;
        self.marks_kept += other.marks_kept;
        self.marks_gone += other.marks_gone;
        self.written += other.written;
        self.refused += other.refused;
        self.other_altmap += other.other_altmap;
        self.undone += other.undone;
        self.exhausted += other.exhausted;
        self.planted += other.planted;
        self.accessed += other.accessed;
    }
}
