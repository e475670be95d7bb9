//! A kernel on the `x86_64` crate: its `OffsetPageTable` and its allocator carry a vmemmap, and what
//! else it maps with them stays.
//!
//! `cargo xtask oldest` runs this file by itself, with the oldest version of that crate.

use arch_sim::SimMemory;
use arch_x86_64::{
    FlushRequest, FourLevelTable, Frames4K, MODEL_4_LEVEL, OffsetMap, RootNotByOffset, Shootdown,
    Tlb, TlbInstructions, engine_over, linear_map_of,
};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr as Address};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, DirectMap, FrameAllocator, LinearMap, PlainAllocator, SharedCounts};
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::OneRoot;
use mm_core::vmemmap::{AuditSlot, Note, Vmemmap};
use std::collections::BTreeSet;
use std::sync::Mutex;
use x86_64::structures::paging::mapper::Translate;
use x86_64::structures::paging::{
    FrameAllocator as CrateFrameAllocator, FrameDeallocator, Mapper, OffsetPageTable,
    Page as VirtPage, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr as CratePhysAddr, VirtAddr};

const RAM: u64 = 1 << 14;
const NODE: NodeId = NodeId::new(0);

/// Free frames, by their addresses. Frames come in no order.
struct Free(BTreeSet<u64>);

// SAFETY: a frame leaves the set when it is handed out.
unsafe impl CrateFrameAllocator<Size4KiB> for Free {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let half = self.0.iter().nth(self.0.len() / 2).copied()?;
        self.0.remove(&half);
        Some(PhysFrame::containing_address(CratePhysAddr::new(half)))
    }
}

impl FrameDeallocator<Size4KiB> for Free {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        let is_new = self.0.insert(frame.start_address().as_u64());
        assert!(is_new, "freed twice");
    }
}

/// Nobody translates by these tables.
struct NoCpu;

// SAFETY: 1 to 4: there is no CPU.
unsafe impl TlbInstructions for NoCpu {
    fn invlpg(&self, _at: Address) {}
    fn has_invpcid(&self) -> bool {
        true
    }
    fn invpcid_all_including_global(&self) {}
    fn toggle_global(&self) {}
    fn fence(&self) {}
    fn uses_pcids(&self) -> bool {
        false
    }
}

// SAFETY: 1: there is no other CPU.
unsafe impl Shootdown for NoCpu {
    fn on_other_cpus(&self, _request: &FlushRequest) {}
}

/// RAM, whose frame 0 is the root.
struct Kernel {
    memory: SimMemory,
    free: Mutex<Free>,
}

impl Kernel {
    fn new() -> Self {
        let ram = PfnRange::new(Pfn::ZERO, RAM).unwrap();
        Self {
            memory: SimMemory::new(Granule::Size4K, &[ram]).unwrap(),
            free: Mutex::new(Free((1..RAM).map(|frame| frame << 12).collect())),
        }
    }

    fn offset(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.memory.frame_pointer(Pfn::ZERO).as_ptr())
    }

    fn table(&self) -> OffsetPageTable<'_> {
        let root = self.memory.frame_pointer(Pfn::ZERO).cast::<PageTable>();
        // SAFETY: frame 0 is zeroed and nobody else's: an empty table. All memory is at the offset.
        unsafe { OffsetPageTable::new(&mut *root.as_ptr(), self.offset()) }
    }

    fn frames(&self) -> impl PlainAllocator + '_ {
        // SAFETY: 1: the kernel's one list. 2: the memory has all of them.
        unsafe { Frames4K::new(|work| work(&mut *self.free.lock().unwrap())) }
    }

    fn taken(&self) -> u64 {
        RAM - 1 - self.free.lock().unwrap().0.len() as u64
    }

    /// Where the crate finds `at`.
    fn frame_at(&self, at: Address) -> Option<u64> {
        let found = self.table().translate_addr(VirtAddr::new(at.get()));
        found.map(|address| address.as_u64() >> 12)
    }
}

fn one_root() -> OneRoot {
    // SAFETY: 1: there is no other root.
    unsafe { OneRoot::new() }
}

type Descriptors<A> = Vmemmap<Page<Mask>, A, LinearMap>;
type Engine<'t, A> = FourLevelTable<A, OffsetMap<'t>, Tlb<NoCpu, NoCpu>>;

/// The kernel's vmemmap, with nothing online.
fn vmemmap<A: FrameAllocator>(kernel: &Kernel, frames: A) -> Descriptors<A> {
    // SAFETY: 1: all memory is there.
    let memory = unsafe { linear_map_of(&kernel.table()) };
    // SAFETY: 1 and 4: nobody else uses the addresses. 2: the memory has all frames. 3: there is one root.
    unsafe { Vmemmap::new(MODEL_4_LEVEL, frames, memory) }.unwrap()
}

/// The library's page table over the kernel's.
fn engine<'t, A: FrameAllocator>(
    table: &'t mut OffsetPageTable<'_>,
    frames: A,
) -> Result<Engine<'t, A>, RootNotByOffset> {
    // SAFETY: 1 to 5: the frames are the table's own; there is no CPU and no other root.
    unsafe { engine_over(table, one_root(), frames, Tlb::new(NoCpu, NoCpu)) }
}

/// What `range` is mapped to, vmemmap page by vmemmap page, as the crate reads it.
fn mapped(kernel: &Kernel, range: PfnRange) -> Vec<Option<u64>> {
    let vmemmap = MODEL_4_LEVEL.descriptors(range).unwrap();
    let page = |index: u64| vmemmap.start().checked_add(index << 12).unwrap();
    let pages = vmemmap.pages(Granule::Size4K);
    (0..pages)
        .map(|index| kernel.frame_at(page(index)))
        .collect()
}

fn different(mapped: &[Option<u64>]) -> usize {
    mapped.iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn every_policy_runs_on_the_tables_and_frames_of_the_crate() {
    let gib = 1 << 18;
    let range = PfnRange::new(Pfn::new(24 * gib).unwrap(), gib).unwrap();
    let ranges = [range];
    let per_order = (Tails::PerOrder, Tables::Shared);
    let policies = [
        // Order, tails, tables, frames behind 4096 vmemmap pages.
        (0, (Tails::None, Tables::Private), 4096),
        (9, (Tails::None, Tables::Private), 4096),
        (9, (Tails::PerCompound, Tables::Private), 1024),
        (9, (Tails::PerOrder, Tables::Private), 513),
        (18, (Tails::PerCompound, Tables::Shared), 2),
        (18, per_order, 2),
    ];
    for (order, (tails, tables), frames_behind) in policies {
        let kernel = Kernel::new();
        let geometry = Geometry::compound(Order::new(order).unwrap());
        let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
        let pagemap = pagemap.with_tails(tails).with_tables(tables);
        // As much as the formula says, and no more.
        let words = SharedCounts::words_for(pagemap.shared_frames());
        let mut words = vec![0; words as usize];
        let frames = Counted::new(kernel.frames(), SharedCounts::new(&mut words));
        let mut vmemmap = vmemmap(&kernel, &frames);
        let mut table = kernel.table();
        let mut engine = engine(&mut table, &frames).unwrap();
        let region = vmemmap.online(&mut engine, &pagemap).unwrap();
        let is_expected = |note: &Note| matches!(note, Note::HugeLeavesUnavailable { .. });
        let others = region
            .notes()
            .iter()
            .filter(|note| !is_expected(note) && tails != Tails::None);
        assert_eq!(others.count(), 0, "{:?}", region.notes());
        let pages = mapped(&kernel, range);
        assert!(pages.iter().all(Option::is_some));
        assert_eq!(
            different(&pages),
            frames_behind,
            "{order} {tails:?} {tables:?}"
        );
        let mut scratch = vec![AuditSlot::default(); 1 << 14];
        vmemmap.audit(&engine, &[&frames], &mut scratch).unwrap();
        vmemmap.offline(&mut engine, region).unwrap();
        assert_eq!(kernel.taken(), 0);
        assert!(mapped(&kernel, range).iter().all(Option::is_none));
    }
}

#[test]
fn base_pages_fold_and_unfold_by_an_engine_for_each_step() {
    let kernel = Kernel::new();
    let range = PfnRange::new(Pfn::new(1 << 22).unwrap(), 1 << 15).unwrap();
    let base = DevPagemap::of_range(&MODEL_4_LEVEL, range, Geometry::BASE_PAGES).unwrap();
    let huge = Geometry::compound(Order::new(9).unwrap());
    let huge = DevPagemap::of_range(&MODEL_4_LEVEL, range, huge).unwrap();
    let huge = huge.with_tails(Tails::PerCompound);
    let mut words = [0; 2 * 64];
    assert_eq!(SharedCounts::words_for(huge.shared_frames()), 2 * 64);
    let frames = Counted::new(kernel.frames(), SharedCounts::new(&mut words));
    let mut vmemmap = vmemmap(&kernel, &frames);
    let mut table = kernel.table();

    // The kernel maps a page of its own next door, with the crate.
    let neighbour = MODEL_4_LEVEL.descriptors(range).unwrap().last().get() + 1;
    let neighbour = VirtPage::<Size4KiB>::containing_address(VirtAddr::new(neighbour));
    let own = PhysFrame::containing_address(CratePhysAddr::new(0x7000));
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;

    let mut region = None;
    for step in ["online", "map", "fold", "unfold", "offline"] {
        if step == "map" {
            let mut allocator = kernel.free.lock().unwrap();
            // SAFETY: nobody uses the address; the frame is only a number here.
            let mapped = unsafe { table.map_to(neighbour, own, flags, &mut *allocator) };
            mapped.unwrap().ignore();
            continue;
        }
        let mut engine = engine(&mut table, &frames).unwrap();
        match step {
            "online" => region = Some(vmemmap.online(&mut engine, &base).unwrap()),
            "fold" => {
                let folded = vmemmap.fold(&mut engine, &huge, range).unwrap();
                assert_eq!(folded.changed, 64);
                assert_eq!(different(&mapped(&kernel, range)), 128);
            }
            "unfold" => {
                let unfolded = vmemmap.unfold(&mut engine, &huge, range).unwrap();
                assert_eq!(unfolded.changed, 64);
                assert_eq!(different(&mapped(&kernel, range)), 512);
            }
            _ => drop(
                vmemmap
                    .offline(&mut engine, region.take().unwrap())
                    .unwrap(),
            ),
        }
    }
    assert_eq!(table.translate_page(neighbour).unwrap(), own);
    // The crate's own three tables are all that is out.
    table.unmap(neighbour).unwrap().1.ignore();
    assert!(mapped(&kernel, range).iter().all(Option::is_none));
    assert_eq!(kernel.taken(), 3);
}

#[test]
fn words_that_are_too_few_cost_frames_and_nothing_else() {
    let kernel = Kernel::new();
    let range = PfnRange::new(Pfn::new(1 << 22).unwrap(), 1 << 14).unwrap();
    let huge = Geometry::compound(Order::new(9).unwrap());
    let huge = DevPagemap::of_range(&MODEL_4_LEVEL, range, huge).unwrap();
    for (tails, room, frames_behind, noted) in [
        // 32 compound pages, each of which takes a head's frame and 7 pages of tails.
        (Tails::PerCompound, 32, 64, 0),
        (Tails::PerCompound, 20, 20 * 2 + 12 * 8, 12 * 6),
        (Tails::PerOrder, 1, 33, 0),
        (Tails::PerOrder, 0, 32 * 8, 32 * 6),
    ] {
        let huge = huge.with_tails(tails);
        let mut words = vec![0; 2 * room];
        let frames = Counted::new(kernel.frames(), SharedCounts::new(&mut words));
        let mut vmemmap = vmemmap(&kernel, &frames);
        let mut table = kernel.table();
        let mut engine = engine(&mut table, &frames).unwrap();
        let region = vmemmap.online(&mut engine, &huge).unwrap();
        assert_eq!(different(&mapped(&kernel, range)), frames_behind);
        let uncounted = region.notes().iter().find_map(|note| match note {
            Note::TailsNotCounted { tails } => Some(tails),
            _ => None,
        });
        assert_eq!(uncounted.unwrap_or(0), noted, "{tails:?}");
        for frame in range {
            let head = frame.align_down(Order::new(9).unwrap());
            assert_eq!(vmemmap.head_of(&engine, frame), Some(head));
        }
        let mut scratch = vec![AuditSlot::default(); 1 << 12];
        vmemmap.audit(&engine, &[&frames], &mut scratch).unwrap();
        vmemmap.offline(&mut engine, region).unwrap();
        assert_eq!(kernel.taken(), 0);
    }
}

#[test]
fn a_root_that_is_reached_by_another_address_is_refused() {
    let kernel = Kernel::new();
    let frames = Counted::new(kernel.frames(), SharedCounts::new(&mut []));
    let _ = frames.node_of(Pfn::ZERO);
    let root = kernel.memory.frame_pointer(Pfn::ZERO).cast::<PageTable>();
    for offset in [kernel.offset() + 0x1000_u64, kernel.offset() - 0x18_u64] {
        // SAFETY: nothing is translated by the table.
        let mut table = unsafe { OffsetPageTable::new(&mut *root.as_ptr(), offset) };
        let refused = engine(&mut table, &frames);
        let expected = RootNotByOffset {
            table: Address::new(kernel.offset().as_u64()),
            offset: Address::new(offset.as_u64()),
        };
        assert_eq!(refused.err(), Some(expected));
        assert!(expected.to_string().contains("OffsetPageTable"));
    }
}

#[test]
fn frames_of_the_crate_are_single_and_come_back() {
    let kernel = Kernel::new();
    let frames = kernel.frames();
    assert!(frames.allocate(Order::new(9).unwrap(), NODE).is_none());
    let block = frames.allocate(Order::BASE, NODE).unwrap();
    let address = PhysAddr::new(block.first().get() << 12);
    assert!(!kernel.free.lock().unwrap().0.contains(&address.get()));
    // SAFETY: 1 and 2: handed out just now.
    unsafe { frames.free(block) };
    assert_eq!(kernel.taken(), 0);
}
