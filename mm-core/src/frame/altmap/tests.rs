use super::*;
use crate::addr::{Granule, VirtAddr};
use crate::descriptor::{Descriptor, Initial, Page, Part};
use crate::model::ModelConfig;
use core::ptr::NonNull;
extern crate std;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::vec::Vec;

const NODE: NodeId = NodeId::new(0);
const SUBSECTION: u64 = 512;
/// Of each subsection.
const HOLDERS: u64 = 8;

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

type Reserved<'d> = DeviceAltmap<Page, &'d Device>;

fn undescribed(device: &Device) -> Reserved<'_> {
    // SAFETY: 1 to 4: the device is the test's, and so is its direct map; there is one thread.
    unsafe { DeviceAltmap::new(&model(), device, device.frames, NODE) }.unwrap()
}

/// Does what a vmemmap does to bring the descriptors of `described` online.
fn describe(device: &Device, altmap: &Reserved<'_>, described: PfnRange) -> PfnRange {
    let holders = altmap.holders(described).unwrap();
    for index in 0..described.frames() {
        let holder = holders.start().checked_add(index / 64).unwrap();
        let page = device.frame_pointer(holder).cast::<Page>();
        let initial = Page::initial(Initial {
            part: Part::Base,
            order: Order::BASE,
            word: 0,
            node: NODE,
        });
        // SAFETY: the holder's page is nobody's yet.
        unsafe { page.add(index as usize % 64).write(initial) };
    }
    // SAFETY: 1: asked for above. 2: written just now.
    unsafe { altmap.begin_counting(described, Order::BASE) };
    holders
}

fn altmap(device: &Device) -> Reserved<'_> {
    let altmap = undescribed(device);
    describe(device, &altmap, device.frames);
    altmap
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
    assert_eq!(run.start().get(), Device::START + HOLDERS);
    assert_eq!(run.last(), device.frames.last());
    assert_eq!(
        altmap.allocate(Order::BASE, NODE),
        Err(OutOfFrames {
            order: Order::BASE,
            node: NODE
        })
    );
    assert_eq!(altmap.in_use(), SUBSECTION);
}

#[test]
fn a_freed_frame_is_used_again_in_any_order() {
    let device = Device::new(1);
    let altmap = altmap(&device);
    let blocks: Vec<_> = (HOLDERS..SUBSECTION)
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
    assert_eq!(altmap.in_use(), HOLDERS + 1 + 256);
    // The lower half has the holders.
    assert!(altmap.allocate(order, NODE).is_err());
    assert_eq!(altmap.in_use(), HOLDERS + 1 + 256);
    give_back(&altmap, block);
    give_back(&altmap, single);
    assert_eq!(altmap.in_use(), HOLDERS);
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
    assert_eq!(altmap.in_use(), HOLDERS);
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

#[test]
fn nothing_is_handed_out_before_all_of_it_is_described() {
    let device = Device::new(2);
    let altmap = undescribed(&device);
    assert_eq!(altmap.undescribed(), Some(device.frames));
    assert_eq!(altmap.references(device.frames.start()), Some(0));
    assert!(altmap.allocate(Order::BASE, NODE).is_err());
    let (first, rest) = device.frames.split_at(SUBSECTION);
    let (first, rest) = (first.unwrap(), rest.unwrap());
    // Only in order.
    assert_eq!(altmap.holders(rest), None);

    let low = describe(&device, &altmap, first);
    assert_eq!(
        (low.start(), low.frames()),
        (device.frames.start(), HOLDERS)
    );
    assert_eq!(altmap.undescribed(), Some(rest));
    assert!(altmap.allocate(Order::BASE, NODE).is_err());
    // What the second half of the holders count is not theirs yet.
    assert_eq!(altmap.references(first.last()), Some(0));
    assert_eq!(altmap.references(rest.start()), Some(0));

    let high = describe(&device, &altmap, rest);
    assert_eq!(high.start().get(), Device::START + HOLDERS);
    assert_eq!(altmap.undescribed(), None);
    assert_eq!(altmap.in_use(), 2 * HOLDERS);
    for index in 0..2 * SUBSECTION {
        let frame = device.frames.start().checked_add(index).unwrap();
        let expected = u64::from(index < 2 * HOLDERS);
        assert_eq!(altmap.references(frame), Some(expected), "{index}");
    }
    let other = altmap.allocate(Order::BASE, NODE).unwrap();
    assert_eq!(other.first().get(), Device::START + 2 * HOLDERS);
    give_back(&altmap, other);

    // SAFETY: each holder has one reference, which is the test's.
    unsafe { altmap.release_run(high) };
    assert_eq!(altmap.undescribed(), Some(rest));
    // SAFETY: as above.
    unsafe { altmap.release_run(low) };
    assert_eq!(
        (altmap.in_use(), altmap.undescribed()),
        (0, Some(device.frames))
    );
}

#[test]
fn a_frame_that_is_kept_is_never_handed_out_twice() {
    let device = Device::new(1);
    let altmap = undescribed(&device);
    let holders = describe(&device, &altmap, device.frames);
    let kept = altmap.allocate(Order::BASE, NODE).unwrap();
    // SAFETY: each holder has one reference, which is the test's.
    unsafe { altmap.release_run(holders) };
    assert_eq!(altmap.holders(device.frames), None);
    give_back(&altmap, kept);
    assert_eq!(altmap.holders(device.frames), Some(holders));
}

#[test]
fn a_block_of_holders_is_one_block() {
    let device = Device::new(1);
    let altmap = undescribed(&device);
    let order = Order::new(3).unwrap();
    describe(&device, &altmap, device.frames);
    let block = Block::new(device.frames.start(), order).unwrap();
    // SAFETY: each holder has one reference, which is the test's.
    unsafe { altmap.release_run(block.frames()) };
    // SAFETY: 1: asked by `describe` before. 2: still written.
    unsafe { altmap.begin_counting(device.frames, order) };
    assert_eq!(altmap.references(block.first()), Some(1));
    assert_eq!(altmap.references(block.frames().last()), Some(0));
    give_back(&altmap, block);
    assert_eq!(altmap.in_use(), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = Device::new(2);
    let refusal = |start, frames| {
        let reserved = PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
        // SAFETY: 1 to 4: refused.
        unsafe { DeviceAltmap::<Page, _>::new(&model(), &device, reserved, NODE) }.err()
    };
    for (start, frames) in [(Device::START, 511), (Device::START + 64, 512)] {
        let refused = refusal(start, frames).unwrap();
        assert_eq!(refused.kind(), ErrorKind::Misaligned);
    }
}
