//! How much stack operations take: kernels have little.
//!
//! A process of its own, since it looks at memory below the stack pointer that nothing else may use.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::SimMemory;
use hosted::{AArch64_4K, Machine, MachineConfig, RadixBackend, X86_64, X86_64La57};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, PlainAllocator, WordCounts};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Piece, Tables, Tails};
use mm_core::paging::{FlushScope, Mmu, OneRoot, RadixTable, Replacement};
use mm_core::vmemmap::{AuditSlot, Vmemmap};
use std::cell::RefCell;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicU32;

type Array<'m> = Vmemmap<Page<Mask>, &'m Counted<Ram, WordCounts<'m>>, &'m SimMemory>;

/// The limit, for an allocator and an MMU that take little themselves.
const LIMIT: usize = 4096;

/// Where descriptors and tables come from: blocks of one size on one list, frames on another.
const RAM: (u64, u64) = (1 << 24, 1 << 15);

/// How much of the stack is watched.
const WATCHED: usize = 64 << 10;

/// What the caller's own frame may have below the first address that is watched.
const MARGIN: usize = 256;

const PAINT: u64 = 0x5aa5_c33c_9669_f00f;

/// How many bytes of stack `work` takes.
///
/// Paints what lies below the stack pointer, and looks how far down the paint is gone.
#[inline(never)]
fn depth_of(work: &mut dyn FnMut()) -> usize {
    let here = 0_u64;
    let top = (black_box(&raw const here) as usize - MARGIN) & !7;
    let bottom = top - WATCHED;
    let word = |at: usize| core::ptr::with_exposed_provenance_mut::<u64>(at);
    for at in (bottom..top).step_by(8) {
        // SAFETY: the thread's stack is larger than this, nothing is called here that could have a
        // frame down there, and the stores are volatile.
        unsafe { word(at).write_volatile(PAINT) };
    }
    work();
    // SAFETY: as above.
    let gone = |at: &usize| unsafe { word(*at).read_volatile() } != PAINT;
    let lowest = (bottom..top).step_by(8).find(gone);
    assert_ne!(lowest, Some(bottom), "more stack than is watched");
    lowest.map_or(0, |lowest| top - lowest)
}

/// The allocator: two lists that never grow.
struct Ram {
    blocks: RefCell<Vec<Block>>,
    frames: RefCell<Vec<Pfn>>,
}

impl Ram {
    /// Half of `ram` in blocks of `order`, half of it in frames.
    fn new(ram: PfnRange, order: Order) -> Self {
        let (low, high) = ram.split_at(ram.frames() / 2);
        let (low, high) = (low.unwrap(), high.unwrap());
        let first = |index| low.start().saturating_add(index * order.frames());
        let blocks = (0..low.frames() / order.frames()).map(first);
        let frames = (0..high.frames()).map(|index| high.start().saturating_add(index));
        Self {
            blocks: RefCell::new(blocks.map(|at| Block::new(at, order).unwrap()).collect()),
            frames: RefCell::new(frames.collect()),
        }
    }
}

// SAFETY: 1: what is handed out leaves its list. 2: a block that was split comes back as frames, for
// which their list has room. 3: all of it is memory of the machine.
unsafe impl PlainAllocator for Ram {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        match order {
            Order::BASE => self.frames.borrow_mut().pop().map(Block::single),
            _ => self.blocks.borrow_mut().pop(),
        }
    }

    unsafe fn free(&self, block: Block) {
        match block.order() {
            Order::BASE => self.frames.borrow_mut().push(block.first()),
            _ => self.blocks.borrow_mut().push(block),
        }
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::new(0)
    }
}

/// The MMU: nobody translates by these tables.
struct NoCpu(Replacement);

// SAFETY: 1 to 3: there is no CPU.
unsafe impl<F> Mmu<F> for NoCpu {
    fn flush(&self, _scope: FlushScope<'_>) {}

    fn publish(&self) {}

    fn replacement(&self) -> Replacement {
        self.0
    }
}

fn every_operation_takes_less_than_a_page_of_stack<B: RadixBackend>(rule: Replacement) {
    let start = Pfn::new(1 << 20).unwrap();
    let range = PfnRange::new(start, 1 << 19).unwrap();
    let ram = PfnRange::new(Pfn::new(RAM.0).unwrap(), RAM.1).unwrap();
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![range, ram],
        backed: vec![ram],
        ..MachineConfig::default()
    })
    .unwrap();
    let plain = Ram::new(ram, Order::new(9).unwrap());
    plain.frames.borrow_mut().reserve(ram.frames() as usize);
    let mut counts: Vec<_> = (0..ram.frames()).map(|_| AtomicU32::new(0)).collect();
    let frames = &Counted::new(plain, WordCounts::new(ram, &mut counts).unwrap());
    let memory = machine.memory();
    // SAFETY: 1: there is one root.
    let one_root = unsafe { OneRoot::new() };
    // SAFETY: 1: the machine's root is an empty table. 2: the memory has all frames. 3: there is no
    // other table. 4: no CPU translates by it. 5: there is one root. 6: there is one allocator.
    let mut table = unsafe {
        RadixTable::<B::Format, _, _, _>::new(machine.root(), one_root, frames, memory, NoCpu(rule))
    };
    let mut deepest = Vec::new();
    let mut watch = |what, work: &mut dyn FnMut()| deepest.push((depth_of(work), what));
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(B::MODEL, frames, memory) };
    let mut vmemmap: Array<'_> = vmemmap.unwrap();
    assert!(size_of_val(&vmemmap) < LIMIT && size_of_val(&table) < LIMIT);

    let ranges = [range];
    let large = Geometry::compound(Order::new(18).unwrap());
    let compound = DevPagemap::new(&B::MODEL, &ranges, large)
        .unwrap()
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Section);
    let small = Geometry::compound(Order::new(9).unwrap());
    let small = DevPagemap::new(&B::MODEL, &ranges, small)
        .unwrap()
        .with_tails(Tails::PerCompound)
        .with_tables(Tables::Shared);
    let base = DevPagemap::new(&B::MODEL, &ranges, Geometry::BASE_PAGES).unwrap();
    let [packed, packed_small] = [18, 9].map(|order| {
        let pages = Geometry::compound(Order::new(order).unwrap());
        let pagemap = DevPagemap::new(&B::MODEL, &ranges, pages).unwrap();
        pagemap
            .with_tables(Tables::Shared)
            .with_heads(Heads::Packed)
            .with_piece(Piece::Section)
    });
    let piece = PfnRange::new(start.saturating_add(1 << 17), 1 << 9).unwrap();
    let node = NodeId::new(0);
    let mut scratch = vec![AuditSlot::default(); 1 << 15];
    for pagemap in [compound, base, packed] {
        let is_packed = pagemap.heads().0 == Heads::Packed;
        let mut region = None;
        let mut done = true;
        watch("online", &mut || {
            region = Some(vmemmap.online(&mut table, &pagemap));
        });
        watch("depopulate", &mut || {
            done &= vmemmap.depopulate(&mut table, &pagemap, piece).is_ok();
        });
        watch("populate", &mut || {
            done &= vmemmap.populate(&mut table, &pagemap, piece).is_ok();
        });
        // What is packed is neither folded nor unfolded.
        watch("fold", &mut || {
            done &= vmemmap.fold(&mut table, &compound, range).is_ok() != is_packed;
        });
        watch("mark", &mut || {
            done &= vmemmap.mark(&table, piece.start(), node).is_ok();
        });
        watch("stats", &mut || {
            black_box(vmemmap.stats());
        });
        watch("audit", &mut || {
            done &= vmemmap.audit(&table, &[frames], &mut scratch).is_ok();
        });
        watch("unfold", &mut || {
            done &= vmemmap.unfold(&mut table, &compound, range).is_ok() != is_packed;
        });
        let largest = Order::new(18).unwrap();
        for (what, pagemap, part) in [
            ("reorder to 1G, packed", &packed, range),
            ("reorder to 2M, packed", &packed_small, range),
            ("reorder to 4K, of packed", &base, piece),
            ("reorder to 2M, packed, of 4K", &packed_small, piece),
            ("reorder to 1G, packed, again", &packed, range),
            ("reorder to 1G", &compound, range),
            ("reorder to 2M", &small, range),
            ("reorder to 4K", &base, piece),
        ] {
            watch("fill_reserve", &mut || {
                let needed = vmemmap.reserve_needed(&table, pagemap, part, largest);
                done &= vmemmap.fill_reserve(&mut table, node, needed).is_ok();
            });
            watch(what, &mut || {
                done &= vmemmap.reorder(&mut table, pagemap, part).is_ok();
            });
            watch("empty_reserve", &mut || vmemmap.empty_reserve(&mut table));
            let audited = vmemmap.audit(&table, &[frames], &mut scratch);
            assert!(done && audited.is_ok(), "{audited:?}");
        }
        assert!(done);
        let mut region = Some(region.unwrap().unwrap());
        watch("offline", &mut || {
            if let Some(region) = region.take() {
                vmemmap.offline(&mut table, region).unwrap();
            }
        });
    }
    deepest.sort_unstable();
    assert!(
        deepest.iter().all(|(depth, _)| (1..LIMIT).contains(depth)),
        "{}: {deepest:?}",
        B::NAME
    );
}

fn on_a_stack_of_its_own(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let test = thread.spawn(test).unwrap();
    if let Err(panic) = test.join() {
        resume_unwind(panic);
    }
}

#[test]
fn every_operation_takes_less_than_a_page_of_stack_on_4_levels() {
    on_a_stack_of_its_own(|| {
        every_operation_takes_less_than_a_page_of_stack::<X86_64>(Replacement::Direct);
    });
}

#[test]
fn every_operation_takes_less_than_a_page_of_stack_on_5_levels() {
    on_a_stack_of_its_own(|| {
        every_operation_takes_less_than_a_page_of_stack::<X86_64La57>(Replacement::Direct);
    });
}

#[test]
fn every_operation_takes_less_than_a_page_of_stack_with_break_before_make() {
    on_a_stack_of_its_own(|| {
        let rule = Replacement::BreakBeforeMake;
        every_operation_takes_less_than_a_page_of_stack::<AArch64_4K>(rule);
    });
}

#[test]
fn what_takes_more_is_noticed() {
    on_a_stack_of_its_own(|| {
        let little = depth_of(&mut || {
            black_box(&black_box([1_u8; 64]));
        });
        let much = depth_of(&mut || {
            black_box(&black_box([1_u8; 3 * LIMIT]));
        });
        assert!(little < LIMIT && much > 2 * LIMIT, "{little}, {much}");
    });
}
