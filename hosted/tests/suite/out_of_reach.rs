//! Frames that no entry can hold: an allocator may hand them out, as one of a machine with more
//! memory than the format has address bits, and they go back to it, with nothing changed.

use arch_sim::walker::Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use hosted::{Radix, X86_64};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::{
    EntryFormat, Exchange, FrameOutOfReach, InUse, Leaf, MapError, NoRecords, PageTable,
    RadixTable, Replacement, Role, Run,
};
use mm_core::vmemmap::{FoldError, OnlineError, Vmemmap};

/// Its frames are the last that an entry can hold.
const NEAR: NodeId = NodeId::new(0);

/// Its frames are those that follow.
const FAR: NodeId = NodeId::new(1);

/// So many frames hold the descriptors of a natural page.
const PAGES: u64 = 8;

/// Which allocator has frames out of reach; the other's are all far below.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Descriptors,
    Tables,
}

struct Machine<R: Radix> {
    memory: SimMemory,
    frames: SimFrames,
    tables: SimFrames,
    root: Pfn,
    mmu: SimMmu<R::Walker>,
    last: Pfn,
}

type MmuOf<'m, R> = &'m SimMmu<<R as Radix>::Walker>;
type Table<'m, R> =
    RadixTable<<R as Radix>::Format, &'m SimFrames, &'m SimMemory, MmuOf<'m, R>, MmuOf<'m, R>>;
type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

impl<R: Radix> Machine<R> {
    /// `near` frames of one allocator end with the last that an entry can hold, and others follow.
    fn new(which: Of, near: u64) -> Self {
        let last = R::Format::LAST_FRAME;
        let borders = [
            frames(last.get() + 1 - near, near),
            frames(last.get() + 1, 1 << 10),
        ];
        let low = [frames(1 << 20, 1 << 10), frames(1 << 21, 1 << 10)];
        let root = Pfn::new(1 << 19).unwrap();
        let chunks = [
            borders[0],
            borders[1],
            low[0],
            low[1],
            PfnRange::single(root),
        ];
        let memory = SimMemory::new(R::RADIX_MODEL.granule(), &chunks).unwrap();
        let allocator = |ranges: [PfnRange; 2]| {
            let nodes = [(NEAR, &ranges[..1]), (FAR, &ranges[1..])];
            SimFrames::new(&memory, &nodes).unwrap()
        };
        let (of_descriptors, of_tables) = match which {
            Of::Descriptors => (borders, low),
            Of::Tables => (low, borders),
        };
        let cpu = SimTlb::new(R::walker(), &memory, root);
        Self {
            frames: allocator(of_descriptors),
            tables: allocator(of_tables),
            root,
            mmu: SimMmu::new(vec![cpu]).with_replacement(Replacement::Direct),
            memory,
            last,
        }
    }

    fn table(&self) -> Table<'_, R> {
        // SAFETY: 1: the root is zero at first. 2: the memory has all frames. 3: one at a time. 4:
        // the one CPU. 5: there is one root. 6: there is one allocator.
        unsafe { RadixTable::new(self.root, &self.mmu, &self.tables, &self.memory, &self.mmu) }
    }

    fn parts(&self) -> (Table<'_, R>, Array<'_>) {
        // SAFETY: 1 to 3: one memory, one table, one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(R::RADIX_MODEL, &self.frames, &self.memory) };
        (self.table(), vmemmap.unwrap())
    }

    /// Where the MMU finds each page of `range`.
    fn translations(&self, range: VirtRange) -> Vec<Option<Pfn>> {
        let granule = R::RADIX_MODEL.granule();
        let page = |page: u64| range.start().checked_add(page << granule.shift()).unwrap();
        let find = |at| R::walker().translate(&self.memory, self.root, at).ok();
        (0..range.pages(granule))
            .map(|index| {
                let at = page(index);
                find(at)?.address(at, granule).frame(granule)
            })
            .collect()
    }

    fn is_behind(&self, error: FrameOutOfReach) -> bool {
        error.last == self.last && error.frame > self.last
    }

    fn assert_empty(&self) {
        let out = (self.frames.outstanding(), self.tables.outstanding());
        assert_eq!(out, (0, 0));
        let root = self.memory.page_bytes(self.root).unwrap();
        assert!(root.iter().all(|byte| *byte == 0));
        let violations = self.memory.violations();
        assert!(violations.is_empty(), "{violations}");
    }
}

/// `refused` names a frame behind `last`, and `last`.
pub(crate) fn assert_refused(refused: OnlineError, last: Pfn) {
    let OnlineError::FrameOutOfReach(error) = refused else {
        panic!("{refused}")
    };
    assert!(error.last == last && error.frame > last, "{error}");
}

/// A page of the natural size, and where its descriptors are.
fn natural<R: Radix>() -> (Order, PfnRange, VirtRange) {
    let entries = R::RADIX_MODEL.granule().entries_per_table();
    let order = Order::new(entries.trailing_zeros() as u8).unwrap();
    let range = frames(order.frames() * 4, order.frames());
    (order, range, R::RADIX_MODEL.descriptors(range).unwrap())
}

fn the_last_frame_holds_descriptors_and_the_one_behind_it_is_refused<R: Radix>() {
    let machine = Machine::<R>::new(Of::Descriptors, PAGES);
    let (_, range, addresses) = natural::<R>();
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [range];
    let pagemap = DevPagemap::new(&R::RADIX_MODEL, &ranges, Geometry::BASE_PAGES).unwrap();
    assert_eq!(table.last_frame(), machine.last);
    for _ in 0..2 {
        let refused = vmemmap
            .online(&mut table, &pagemap.with_node(FAR))
            .unwrap_err();
        let OnlineError::FrameOutOfReach(error) = refused else {
            panic!("{refused}")
        };
        assert!(machine.is_behind(error), "{error}");
        assert!(refused.to_string().contains(&machine.last.to_string()));
        machine.assert_empty();

        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        let mut found: Vec<_> = machine
            .translations(addresses)
            .into_iter()
            .flatten()
            .collect();
        found.sort();
        let near = frames(machine.last.get() + 1 - PAGES, PAGES);
        let near: Vec<_> = (0..PAGES)
            .map(|index| near.start().saturating_add(index))
            .collect();
        assert_eq!(found, near, "all of them, the last one too");
        vmemmap.offline(&mut table, region).unwrap();
        machine.assert_empty();
    }
}

fn a_table_behind_the_last_frame_is_given_back<R: Radix>() {
    let tables = R::Format::LEVELS.len() as u64 - 1;
    let machine = Machine::<R>::new(Of::Tables, tables);
    let (_, range, addresses) = natural::<R>();
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [range];
    let pagemap = DevPagemap::new(&R::RADIX_MODEL, &ranges, Geometry::BASE_PAGES).unwrap();
    let refused = vmemmap
        .online(&mut table, &pagemap.with_node(FAR))
        .unwrap_err();
    let OnlineError::FrameOutOfReach(error) = refused else {
        panic!("{refused}")
    };
    assert!(machine.is_behind(error), "{error}");
    machine.assert_empty();
    // A table for each level, the last frame among them, and none behind.
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    assert!(machine.translations(addresses).iter().all(Option::is_some));
    assert_eq!(machine.tables.outstanding(), tables);
    vmemmap.offline(&mut table, region).unwrap();
    machine.assert_empty();
}

fn fold_and_unfold_refuse_frames_behind_the_last_and_change_nothing<R: Radix>() {
    let machine = Machine::<R>::new(Of::Descriptors, PAGES);
    let (order, range, addresses) = natural::<R>();
    let (mut table, mut vmemmap) = machine.parts();
    let ranges = [range];
    let pagemap = |geometry| DevPagemap::new(&R::RADIX_MODEL, &ranges, geometry).unwrap();
    let online = pagemap(Geometry::BASE_PAGES);
    let compound = pagemap(Geometry::compound(order));
    let region = vmemmap.online(&mut table, &online).unwrap();

    let before = machine.translations(addresses);
    let per_order = compound.with_tails(Tails::PerOrder).with_node(FAR);
    let refused = vmemmap.fold(&mut table, &per_order, range).unwrap_err();
    assert!(matches!(refused, FoldError::FrameOutOfReach(error) if machine.is_behind(error)));
    assert_eq!(machine.translations(addresses), before);
    assert_eq!(machine.frames.outstanding(), PAGES);

    let compound = compound.with_tails(Tails::PerCompound);
    assert_eq!(
        vmemmap.fold(&mut table, &compound, range).unwrap().changed,
        1
    );
    let folded = machine.translations(addresses);
    let refused = vmemmap
        .unfold(&mut table, &compound.with_node(FAR), range)
        .unwrap_err();
    assert!(matches!(refused, FoldError::FrameOutOfReach(error) if machine.is_behind(error)));
    assert_eq!(machine.translations(addresses), folded);
    assert_eq!(machine.frames.outstanding(), 2);

    assert_eq!(
        vmemmap
            .unfold(&mut table, &compound, range)
            .unwrap()
            .changed,
        1
    );
    assert_eq!(machine.frames.outstanding(), PAGES);
    vmemmap.offline(&mut table, region).unwrap();
    machine.assert_empty();
}

/// The page table itself, whatever its caller has checked before.
fn no_entry_is_made_for_a_frame_behind_the_last<R: Radix>() {
    /// Gives one frame for whatever there is, and remembers what comes back.
    struct To(Pfn, Vec<Pfn>);

    impl Exchange for To {
        fn exchange(&mut self, _at: VirtAddr, _old: Run) -> Run {
            Run::once(Leaf::single(self.0, Role::Descriptors))
        }

        fn released(&mut self, run: Run) {
            self.1.push(run.leaf.block.first());
        }
    }

    let machine = Machine::<R>::new(Of::Descriptors, PAGES);
    let mut table = machine.table();
    let page = PfnRange::new(natural::<R>().1.start(), 1).unwrap();
    let at = R::RADIX_MODEL.descriptors(page).unwrap().start();
    let (last, behind) = (machine.last, machine.last.saturating_add(1));
    let leaf = |frame| Leaf::single(frame, Role::Descriptors);
    // SAFETY: 1: the machine's frames, of which nobody else knows. 2: nobody uses the addresses.
    let refused = unsafe { table.map_leaf(at, leaf(behind), NEAR, &NoRecords) };
    let error = FrameOutOfReach {
        frame: behind,
        last,
    };
    assert_eq!(refused, Err(MapError::FrameOutOfReach(error)));
    machine.assert_empty();
    // SAFETY: as above.
    unsafe { table.map_leaf(at, leaf(last), NEAR, &NoRecords) }.unwrap();

    let whole = VirtRange::new(at, R::RADIX_MODEL.granule().bytes()).unwrap();
    let mut exchange = To(behind, Vec::new());
    // SAFETY: 1: as above. 2: mapped above. 3: there are no readers.
    unsafe { table.replace(whole, NEAR, &mut exchange, &NoRecords) }.unwrap();
    assert_eq!(exchange.1, [behind], "what cannot be entered comes back");
    assert_eq!(
        machine.translations(whole),
        [Some(last)],
        "the old entry stays"
    );
    exchange = To(Pfn::new(last.get() - 1).unwrap(), Vec::new());
    // SAFETY: as above.
    unsafe { table.replace(whole, NEAR, &mut exchange, &NoRecords) }.unwrap();
    assert_eq!(exchange.1, [last]);
    // SAFETY: 1: nobody uses the addresses. 2: mapped above.
    unsafe { table.unmap([whole].into_iter(), &mut |_: Run| (), &NoRecords) };
    machine.assert_empty();
}

/// A block of the next frames is none for a huge leaf; a table of the next frames none to split one.
#[test]
fn huge_leaves_and_their_tables_are_refused_too() {
    let huge = <X86_64 as hosted::Backend>::HUGE_LEAF.unwrap().frames();
    let machine = Machine::<X86_64>::new(Of::Descriptors, huge);
    let range = frames(1 << 20, huge << 6);
    let ranges = [range];
    let model = &X86_64::RADIX_MODEL;
    let pagemap = DevPagemap::new(model, &ranges, Geometry::BASE_PAGES).unwrap();
    let (mut table, mut vmemmap) = machine.parts();
    let refused = vmemmap
        .online(&mut table, &pagemap.with_node(FAR))
        .unwrap_err();
    assert!(matches!(refused, OnlineError::FrameOutOfReach(error) if machine.is_behind(error)));
    machine.assert_empty();
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let addresses = model.descriptors(range).unwrap();
    assert_eq!(
        machine.translations(addresses).last(),
        Some(&Some(machine.last))
    );
    vmemmap.offline(&mut table, region).unwrap();
    machine.assert_empty();

    let machine = Machine::<X86_64>::new(Of::Tables, 8);
    let (mut table, mut vmemmap) = machine.parts();
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let before = machine.translations(addresses);
    let compound = Geometry::compound(Order::new(9).unwrap());
    let compound = DevPagemap::new(model, &ranges, compound).unwrap();
    let compound = compound.with_tails(Tails::PerCompound);
    let refused = vmemmap
        .fold(&mut table, &compound.with_node(FAR), range)
        .unwrap_err();
    assert!(matches!(refused, FoldError::FrameOutOfReach(error) if machine.is_behind(error)));
    assert_eq!(machine.translations(addresses), before);
    vmemmap.offline(&mut table, region).unwrap();
    machine.assert_empty();
}

/// A test of each function for each backend whose tables are the engine's.
macro_rules! on_radix_backends {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[test]
            fn x86_64() {
                super::$test::<hosted::X86_64>();
            }

            #[test]
            fn x86_64_la57() {
                super::$test::<hosted::X86_64La57>();
            }

            #[test]
            fn aarch64_4k() {
                super::$test::<hosted::AArch64_4K>();
            }

            #[test]
            fn aarch64_16k() {
                super::$test::<hosted::AArch64_16K>();
            }

            #[test]
            fn aarch64_64k() {
                super::$test::<hosted::AArch64_64K>();
            }
        }
    )*};
}

on_radix_backends!(
    the_last_frame_holds_descriptors_and_the_one_behind_it_is_refused,
    a_table_behind_the_last_frame_is_given_back,
    fold_and_unfold_refuse_frames_behind_the_last_and_change_nothing,
    no_entry_is_made_for_a_frame_behind_the_last,
);
