use super::*;
use crate::addr::{Granule, VirtAddr};
use crate::model::ModelConfig;
use core::ptr::NonNull;
extern crate std;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::vec::Vec;

const NODE: NodeId = NodeId::new(0);
const SUBSECTION: u64 = 512;
/// How many frames hold the counts of a subsection, or of two: 64 bytes and 4 for each frame.
const COUNTS: u64 = 1;
const COUNTS_OF_TWO: u64 = 2;

fn model() -> MemoryModel {
    MemoryModel::new(ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
        frames: 1 << 34,
        section: Order::new(15).unwrap(),
        subsection: Order::new(9).unwrap(),
        max_order: Order::new(18).unwrap(),
    })
    .unwrap()
}

/// The memory of a device.
struct Device {
    frames: PfnRange,
    bytes: NonNull<u8>,
}

// SAFETY: the pointer is only an address; who accesses what it points at answers for it.
unsafe impl Sync for Device {}

impl Device {
    const START: u64 = 7 * SUBSECTION;

    fn new(subsections: u64) -> Self {
        let start = Pfn::new(Self::START).unwrap();
        let frames = PfnRange::new(start, subsections * SUBSECTION).unwrap();
        let layout = Self::layout(frames);
        // SAFETY: the size is not zero.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) });
        Self {
            frames,
            bytes: bytes.unwrap_or_else(|| handle_alloc_error(layout)),
        }
    }

    fn layout(frames: PfnRange) -> Layout {
        Layout::from_size_align(frames.frames() as usize * 4096, 4096).unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.frames)) };
    }
}

// SAFETY: 1 and 2: within the allocation, which lives as long as this value and has a page for each
// frame. 3: each frame has its own.
unsafe impl DirectMap for Device {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        assert!(self.frames.contains(frame), "{frame}");
        let offset = (frame.get() - self.frames.start().get()) * 4096;
        // SAFETY: checked above.
        unsafe { self.bytes.add(offset as usize) }
    }
}

type Reserved<'d> = DeviceAltmap<&'d Device>;

fn altmap(device: &Device) -> Reserved<'_> {
    // SAFETY: 1 to 3: the device is the test's, and so is its direct map.
    unsafe { DeviceAltmap::new(&model(), device, device.frames, NODE) }.unwrap()
}

fn give_back(altmap: &Reserved<'_>, block: Block) {
    // SAFETY: 1 and 2: each test gives back what it was given, once.
    match unsafe { altmap.release(block, 1) } {
        // SAFETY: 1: it released the block just now.
        Released::Last(owned) => unsafe { altmap.free(owned) },
        Released::Shared => panic!("{block:?} has another owner"),
    }
}

#[test]
fn frames_are_handed_out_to_the_last_and_no_further() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let run = altmap.allocate_run(10_000, NODE).unwrap();
    assert_eq!(run.start().get(), Device::START + COUNTS);
    assert_eq!(run.last(), device.frames.last());
    assert_eq!(
        altmap.allocate(Order::BASE, NODE),
        Err(OutOfFrames {
            order: Order::BASE,
            node: NODE
        })
    );
    assert_eq!(altmap.in_use(), SUBSECTION - COUNTS);
}

#[test]
fn a_freed_frame_is_used_again_in_any_order() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let blocks: Vec<_> = (COUNTS..SUBSECTION)
        .map(|_| altmap.allocate(Order::BASE, NODE).unwrap())
        .collect();
    for index in [2, 500, 0, 3, 1] {
        give_back(&altmap, blocks[index]);
        assert_eq!(altmap.allocate(Order::BASE, NODE), Ok(blocks[index]));
    }
}

#[test]
fn blocks_are_aligned_and_counted_as_one() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let order = Order::new(8).unwrap();
    let single = altmap.allocate(Order::BASE, NODE).unwrap();
    let block = altmap.allocate(order, NODE).unwrap();
    assert_eq!(block.first().get(), Device::START + 256);
    assert_eq!(altmap.references(block.first()), Some(1));
    assert_eq!(altmap.references(block.frames().last()), Some(0));
    // SAFETY: 1 and 2: refused, so nothing is owed.
    assert!(unsafe { altmap.acquire(block.frames().last(), 1) }.is_err());
    assert_eq!(altmap.in_use(), 1 + 256);
    // The lower half has the counts.
    assert!(altmap.allocate(order, NODE).is_err());
    assert_eq!(altmap.in_use(), 1 + 256);
    give_back(&altmap, block);
    give_back(&altmap, single);
    assert_eq!(altmap.in_use(), 0);
}

#[test]
fn a_split_block_is_given_back_frame_by_frame() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let block = altmap.allocate(Order::new(3).unwrap(), NODE).unwrap();
    // SAFETY: 1 and 2: the block's one reference is this test's.
    unsafe { altmap.split(block) };
    // SAFETY: as above, one reference on each frame.
    unsafe { altmap.release_run(block.frames()) };
    assert_eq!(altmap.in_use(), 0);
}

#[test]
fn a_free_frame_cannot_be_acquired_and_a_count_does_not_wrap() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let frame = device.frames.last();
    // SAFETY: 1 and 2: refused, so nothing is owed.
    let refused = unsafe { altmap.acquire(frame, 1) };
    assert_eq!(refused, Err(AcquireError { frame }));

    let frame = altmap.allocate(Order::BASE, NODE).unwrap().first();
    for references in [u64::from(u32::MAX) - 1, u64::MAX] {
        // SAFETY: 1 and 2: refused, so nothing is owed.
        let refused = unsafe { altmap.acquire(frame, references) };
        assert_eq!(refused, Err(AcquireError { frame }));
    }
    // SAFETY: 1: allocated above. 2: given back below.
    unsafe { altmap.acquire(frame, u64::from(u32::MAX) - 2) }.unwrap();
    assert_eq!(altmap.references(frame), Some(u64::from(u32::MAX) - 1));
    // SAFETY: 1 and 2: acquired above.
    let left = unsafe { altmap.release(Block::single(frame), u64::from(u32::MAX) - 2) };
    assert_eq!(left, Released::Shared);
    give_back(&altmap, Block::single(frame));
}

/// The counts as they lie in memory: after 64 bytes, 4 bytes for each frame.
fn counts_in_memory(device: &Device) -> Vec<u32> {
    let first = device.bytes.cast::<AtomicU32>();
    let count = |index: u64| {
        // SAFETY: within the device's memory; only atomics are stored there.
        let count = unsafe { first.add(16 + index as usize).as_ref() };
        count.load(Ordering::Relaxed)
    };
    (0..device.frames.frames()).map(count).collect()
}

#[test]
fn counts_lie_in_the_first_frames_which_are_never_handed_out() {
    let device = Device::new(2);
    // SAFETY: nobody else uses the device yet.
    unsafe {
        device
            .bytes
            .write_bytes(0xa5, 2 * SUBSECTION as usize * 4096)
    };
    let altmap = altmap(&device);
    assert_eq!(altmap.count_frames(), COUNTS_OF_TWO);
    assert!(counts_in_memory(&device).iter().all(|count| *count == 0));
    let order = Order::new(9).unwrap();
    let block = altmap.allocate(order, NODE).unwrap();
    assert_eq!(block.first().get(), Device::START + SUBSECTION);
    let first = altmap.allocate_run(1, NODE).unwrap();
    assert_eq!(first.start().get(), Device::START + COUNTS_OF_TWO);
    // SAFETY: 1: allocated above. 2: given back below.
    unsafe { altmap.acquire(first.start(), 6) }.unwrap();
    let rest = altmap.allocate_run(10_000, NODE).unwrap();
    assert_eq!(rest.frames(), SUBSECTION - COUNTS_OF_TWO - 1);
    assert!(altmap.allocate(Order::BASE, NODE).is_err());

    let counts = counts_in_memory(&device);
    for index in 0..2 * SUBSECTION {
        let frame = device.frames.start().checked_add(index).unwrap();
        let (stored, expected) = match index {
            0..COUNTS_OF_TWO => (0, 0),
            COUNTS_OF_TWO => (7, 7),
            _ if index <= SUBSECTION => (1, 1),
            _ => (u32::MAX, 0),
        };
        assert_eq!(counts[index as usize], stored, "{index}");
        assert_eq!(altmap.references(frame), Some(expected), "{index}");
    }
    // SAFETY: 1 and 2: acquired above.
    let left = unsafe { altmap.release(Block::single(first.start()), 6) };
    assert_eq!(left, Released::Shared);
    // SAFETY: one reference of each frame is the test's.
    unsafe {
        altmap.release_run(first);
        altmap.release_run(rest);
    }
    give_back(&altmap, block);
    assert_eq!(altmap.in_use(), 0);
    assert!(counts_in_memory(&device).iter().all(|count| *count == 0));
}

#[test]
fn a_frame_beyond_the_reserved_part_has_no_count() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let behind = Pfn::new(Device::START + SUBSECTION).unwrap();
    assert_eq!(altmap.references(behind), None);
    let before = Pfn::new(Device::START - 1).unwrap();
    assert_eq!(altmap.references(before), None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = Device::new(2);
    let refusal = |start, frames| {
        let reserved = PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
        // SAFETY: 1 to 3: refused.
        unsafe { DeviceAltmap::new(&model(), &device, reserved, NODE) }.err()
    };
    for (start, frames) in [(Device::START, 511), (Device::START + 64, 512)] {
        let refused = refusal(start, frames).unwrap();
        assert_eq!(refused.kind(), ErrorKind::Misaligned);
    }
}
