//! What holds at each step, and how tests look.

use super::recount::recount;
use super::snapshot::Snapshot;
use super::{SeenDescriptor, Testbed};
use hosted::inspect::{SeenEntry, SeenLeaf};
use mm_core::addr::{Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::vmemmap::{AuditReport, NodeStats};
use std::collections::{BTreeMap, HashSet};

/// How large descriptors of test beds are at most, in bytes.
const LARGEST_DESCRIPTOR: usize = 256;

/// More frames than are looked at one by one.
const MANY: u64 = 1 << 15;

impl<'m> dyn Testbed<'m> + '_ {
    /// Recounts, by the library and without it; the two, the allocators and the stats have to
    /// agree, and nobody may have broken a rule so far.
    pub fn audit(&mut self) -> AuditReport {
        let violations = self.memory().violations();
        assert!(violations.is_empty(), "{violations}");
        let audited = self.recount_by_library();
        let audited = audited.unwrap_or_else(|finding| panic!("{finding}"));
        let recount = recount(self);
        let reached = AuditReport {
            mark_frames: 0,
            record_frames: 0,
            reserve_frames: 0,
            ..audited
        };
        assert_eq!(reached, recount.report, "by the library, and without it");
        let unreached = audited.mark_frames + audited.record_frames + audited.reserve_frames;
        assert_eq!(
            unreached, recount.unreached,
            "frames of marks and records, and in reserve"
        );
        let stats = self.stats();
        let kept: BTreeMap<u32, NodeStats> = stats
            .nodes()
            .map(|(node, row)| {
                // A recount cannot tell the frames of marks from those of records and in reserve.
                let mark_frames = row.mark_frames + row.record_frames + row.reserve_frames;
                let row = NodeStats {
                    mark_frames,
                    record_frames: 0,
                    reserve_frames: 0,
                    ..row
                };
                (node.number(), row)
            })
            .collect();
        assert_eq!(kept, recount.nodes, "stats, and what was counted");
        audited
    }

    /// Everything that a failure must leave as it is.
    pub fn snapshot(&mut self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Everything is as it was at `before`.
    pub fn assert_unchanged(&mut self, before: &Snapshot, when: &str) {
        let violations = self.memory().violations();
        assert!(violations.is_empty(), "{when}: {violations}");
        if let Some(difference) = before.difference(&self.snapshot()) {
            panic!("{}, {when}: {difference}", self.name());
        }
    }

    /// Where the descriptor of `frame` is, by arithmetic.
    pub fn address_of(&self, frame: Pfn) -> VirtAddr {
        let model = self.model();
        let config = model.config();
        VirtAddr::new(config.vmemmap_base.get() + frame.get() * config.descriptor_bytes)
    }

    /// The leaf that maps the descriptor of `frame`.
    pub fn leaf_of(&self, frame: Pfn) -> Option<SeenLeaf> {
        self.leaf(self.address_of(frame))
    }

    /// The frame that holds the descriptor of `frame`.
    pub fn holder_of(&self, frame: Pfn) -> Option<Pfn> {
        let at = self.address_of(frame);
        let leaf = self.leaf(at)?;
        Some(leaf.frame_at(at, self.model().granule().shift()))
    }

    /// The descriptor of `frame`, by the tables' and the memory's bytes.
    pub fn descriptor(&self, frame: Pfn) -> Option<SeenDescriptor> {
        let holder = self.holder_of(frame)?;
        Some(self.in_page(holder, frame))
    }

    /// The descriptor of `frame` in the page `holder`, which has it.
    fn in_page(&self, holder: Pfn, frame: Pfn) -> SeenDescriptor {
        let at = self.address_of(frame);
        let granule = self.model().granule();
        let offset = at.get() & (granule.bytes() - 1);
        let start = holder.base(granule).get() + offset;
        let word = |index: u64| self.memory().read_u64(PhysAddr::new(start + 8 * index));
        let mut bytes = [0; LARGEST_DESCRIPTOR];
        let bytes = &mut bytes[..self.model().descriptor_bytes() as usize];
        for (index, bytes) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = word(index as u64).unwrap().to_le_bytes();
        }
        self.read_descriptor(at, bytes)
    }

    /// Every frame of `frames` is online as a part of a page of `order`, and knows its head, by
    /// bytes; the first and the last of each vmemmap page by the library too. Of much memory only
    /// some frames of each vmemmap page are looked at.
    pub fn assert_described(&self, frames: PfnRange, order: Order) {
        let per_page = self.model().descriptors_per_page();
        let step = if frames.frames() > MANY { 61 } else { 1 };
        let mut rest = Some(frames);
        while let Some(left) = rest {
            let first = left.start();
            let to_page_end = per_page - first.get() % per_page;
            let (part, later) = left.take_first(to_page_end);
            let leaf = self.leaf_of(first);
            let leaf = leaf.unwrap_or_else(|| panic!("{first} is not online"));
            assert!(leaf.global && !leaf.executable, "{leaf:?}");
            let holder = leaf.frame_at(self.address_of(first), self.model().granule().shift());
            let last = part.frames() - 1;
            for index in (0..=last).step_by(step).chain([last]) {
                let frame = first.saturating_add(index);
                let head = Pfn::new(frame.get() >> order.get() << order.get());
                let head = head.unwrap_or(frame);
                let expected = SeenDescriptor {
                    order: order.get(),
                    tail: frame != head,
                    head: self.address_of(head),
                };
                assert_eq!(self.in_page(holder, frame), expected, "of {frame}");
                if index == 0 || index == last {
                    assert_eq!(self.head_of(frame), Some(head), "of {frame}");
                }
            }
            rest = later;
        }
    }

    /// Nothing of `frames` is online.
    pub fn assert_offline(&self, frames: PfnRange) {
        let range = self.model().descriptors(frames).unwrap();
        self.scan(range, &mut |entry| {
            if let SeenEntry::Leaf(leaf) = entry {
                assert!(!leaf.owned, "{leaf:?}");
            }
        });
        assert_eq!(self.head_of(frames.start()), None);
        assert_eq!(self.head_of(frames.last()), None);
    }

    /// The frames that hold descriptors of `frames`.
    pub fn holders_of(&self, frames: PfnRange) -> HashSet<Pfn> {
        let mut holders = HashSet::new();
        let range = self.model().descriptors(frames).unwrap();
        self.scan(range, &mut |entry| {
            if let SeenEntry::Leaf(leaf) = entry {
                let all = (0..leaf.order.frames()).map(|index| leaf.frame.saturating_add(index));
                holders.extend(all);
            }
        });
        holders
    }
}
