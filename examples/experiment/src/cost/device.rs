//! What a device costs that holds its own descriptors: how much of it is reserved for them, by
//! trying one subsection after the other.

use super::Cost;
use crate::TableShape;
use crate::case::{Case, CaseList, Leaves};
use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;

/// A device of which a part is reserved, and what it costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceCost {
    /// The fewest subsections that hold all descriptors that the device can hold, and the counts of
    /// their frames.
    pub(crate) reserved: PfnRange,
    /// What is used in base pages for that: the reserved part up to a multiple of the compound page;
    /// or of base pages, the reserved part alone.
    pub(crate) first: Case,
    /// The rest, as asked.
    pub(crate) rest: Case,
    /// What both cost, in frames of the device and of RAM.
    pub(crate) cost: Cost,
}

impl DeviceCost {
    /// Of `case`; `None` where the device is too small.
    pub(crate) fn of(case: &Case, model: &MemoryModel, shape: &TableShape) -> Option<Self> {
        let subsection = model.subsection().frames();
        (1..=case.range.frames() / subsection).find_map(|subsections| {
            let reserved = case.range.take_first(subsections * subsection).0;
            let base_frames = reserved.frames().next_multiple_of(case.order.frames());
            let (first, rest) = case.range.split_at(base_frames);
            let first = Case {
                page_bytes: model.granule().bytes(),
                order: Order::BASE,
                tails: Tails::None,
                leaves: Leaves::Small,
                range: first?,
                ..*case
            };
            let rest = Case {
                range: rest?,
                ..*case
            };
            let mut both = CaseList::<2>::new(first);
            both.add(first);
            both.add(rest);
            let cost = both.cost(model, shape);
            // A tail for all outlives the device.
            let of_ram = u64::from(rest.tails == Tails::PerOrder && rest.shares_tails(model));
            // 64 bytes, and 4 for each frame that is reserved.
            let counts = (64 + 4 * reserved.frames()).div_ceil(model.granule().bytes());
            let altmap_frames = cost.descriptor_frames - of_ram + counts;
            (altmap_frames <= reserved.frames()).then_some(Self {
                reserved,
                first,
                rest,
                cost: Cost {
                    altmap_frames,
                    count_frames: counts,
                    ..cost
                },
            })
        })
    }

    /// What lies between the reserved part and the first compound page.
    pub(crate) fn gap(&self) -> Option<PfnRange> {
        self.first.range.split_at(self.reserved.frames()).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use mm_core::addr::{Granule, PhysAddr};
    use mm_core::pagemap::Tables;

    /// 16 GiB, as the design has it.
    #[test]
    fn a_device_reserves_what_the_design_says() {
        let model = arch_x86_64::MODEL_4_LEVEL;
        let shape = TableShape {
            granule: Granule::Size4K,
            address_bits: 48,
        };
        let order = |bytes| Order::from_bytes(bytes, Granule::Size4K).unwrap();
        let start = PhysAddr::new(24 << 30);
        let device = PfnRange::from_bytes(start, 16 << 30, Granule::Size4K).unwrap();
        let compound = [order(2 << 20), order(1 << 30)];
        let find = |bytes, tails| {
            let mut all = cases(&model, &shape, device, &compound);
            let case = all.find(|case| {
                let asked = (case.page_bytes, case.tails, case.tables, case.range);
                asked == (bytes, tails, Tables::Private, device)
            });
            let found = DeviceCost::of(&case.unwrap(), &model, &shape).unwrap();
            (found.reserved.frames() / 512, found.cost.altmap_frames)
        };
        assert_eq!(find(2 << 20, Tails::PerCompound), (33, 16582 + 17));
        assert_eq!(find(2 << 20, Tails::PerOrder), (17, 8311 + 9));
        assert_eq!(find(1 << 30, Tails::PerCompound), (9, 4096 + 30 + 5));
        assert_eq!(find(1 << 30, Tails::PerOrder), (9, 4096 + 15 + 5));
        assert_eq!(find(4096, Tails::None), (129, 65536 + 65));
    }
}
