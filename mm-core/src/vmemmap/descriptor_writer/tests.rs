use super::*;
use crate::addr::VirtAddr;
use crate::descriptor::{Mask, Pointer};
use crate::frame::Pattern;
use crate::model::ModelConfig;
use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
extern crate std;
use std::boxed::Box;
use std::vec::Vec;

/// How many frames there are to write into.
const FRAMES: usize = 5;

/// A page of words.
#[repr(C, align(4096))]
struct Memory([[u64; 512]; FRAMES]);

/// What no descriptor of these tests has for a word.
const UNTOUCHED: u64 = 0x5555_5555_5555_5555;

/// Notes how much was streamed, and whether it was ended.
struct Map {
    memory: *mut Memory,
    words: Cell<usize>,
    ended: Cell<bool>,
}

impl Map {
    fn new(memory: &mut Memory) -> Self {
        Self {
            memory,
            words: Cell::new(0),
            ended: Cell::new(true),
        }
    }

    /// What is in the memory after `write` has been called on memory that nobody has touched. How many words
    /// were streamed, all of them before it was ended.
    fn written(&self, write: impl FnOnce()) -> (&Memory, usize) {
        self.words.set(0);
        // SAFETY: it is this map's.
        unsafe { self.memory.write(Memory([[UNTOUCHED; 512]; FRAMES])) };
        write();
        assert!(self.ended.get(), "streamed, and not ended");
        // SAFETY: nobody writes any more.
        (unsafe { &*self.memory }, self.words.get())
    }
}

// SAFETY: 1 to 3: frames are pages of the memory, which the test keeps. 4 and 5: the words are stored as all
// others.
unsafe impl DirectMap for Map {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        // SAFETY: the tests ask for frames of the memory.
        unsafe { NonNull::new_unchecked(self.memory.cast::<u8>().add(frame.get() as usize * 4096)) }
    }

    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        self.ended.set(false);
        let words = pattern.words().len();
        self.words.set(self.words.get() + places.len() * words);
        let page = self.frame_pointer(frame).cast::<u64>();
        // SAFETY: 1: the caller's.
        unsafe { pattern.store(page.add(places.start * words), places.len()) };
    }

    fn end_stream(&self) {
        self.ended.set(true);
    }
}

/// `WORDS` words, each of which tells what the descriptor is and where in it the word lies.
#[repr(C)]
struct Words<E, const WORDS: usize>([AtomicU64; WORDS], PhantomData<E>);

/// The word number `index` of a descriptor that starts with `initial`.
fn word_at(initial: Initial, index: usize) -> u64 {
    let part = match initial.part {
        Part::Base => 1,
        Part::Head => 2,
        Part::Tail => 3,
        Part::Reserved => 4,
    };
    let kind = part << 40 | u64::from(initial.order.get()) << 32;
    let node = u64::from(initial.node.number()) << 48;
    initial.word.rotate_left(index as u32) ^ (kind | node).wrapping_mul(index as u64 * 2 + 1)
}

// SAFETY: 1: plain atomics. 2: the same. 3: nobody asks. 4: it depends on the argument.
unsafe impl<E: TailEncoding, const WORDS: usize> Descriptor for Words<E, WORDS> {
    type Encoding = E;

    fn initial(initial: Initial) -> Self {
        let word = |index| AtomicU64::new(word_at(initial, index));
        Self(core::array::from_fn(word), PhantomData)
    }

    fn word(&self) -> u64 {
        self.0[0].load(Relaxed)
    }

    fn order(&self) -> Order {
        Order::BASE
    }
}

fn model(bytes: u64) -> MemoryModel {
    MemoryModel::new(ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: bytes,
        vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
        frames: 1 << 30,
        section: Order::new(15).unwrap(),
        subsection: Order::new(9).unwrap(),
        max_order: Order::new(18).unwrap(),
    })
    .unwrap()
}

/// The words of the descriptors of `frames` frames from `first` on, one descriptor after the other.
fn expected<E: TailEncoding>(
    model: &MemoryModel,
    order: Order,
    base: Part,
    first: u64,
    frames: u64,
) -> Vec<u64> {
    let bytes = model.descriptor_bytes();
    let describe = |frame: u64| {
        let head = frame - frame % order.frames();
        let at = VirtAddr::new(0xffff_ea00_0000_0000 + head * bytes);
        let (part, word) = match frame - head {
            0 if order == Order::BASE => (base, E::head_word()),
            0 => (Part::Head, E::head_word()),
            _ => (Part::Tail, E::tail_word(at, order.frames() * bytes)),
        };
        Initial {
            part,
            order,
            word,
            node: NodeId::new(3),
        }
    };
    (first..first + frames)
        .flat_map(|frame| (0..bytes as usize / 8).map(move |index| word_at(describe(frame), index)))
        .collect()
}

fn what_is_written<E: TailEncoding, const WORDS: usize>() {
    for streams in [false, true] {
        what_is_written_by::<E, WORDS>(streams);
    }
}

/// Each word is streamed once, or none is.
fn streamed(streams: bool, pages: u64) -> usize {
    if streams { pages as usize * 512 } else { 0 }
}

fn what_is_written_by<E: TailEncoding, const WORDS: usize>(streams: bool) {
    let model = model(WORDS as u64 * 8);
    let in_page = model.descriptors_per_page();
    let mut memory = Box::new(Memory([[UNTOUCHED; 512]; FRAMES]));
    let map = Map::new(&mut memory);
    for (order, base) in (0..=18)
        .map(|order| (order, Part::Base))
        .chain([(0, Part::Reserved)])
    {
        let writer = DescriptorWriter {
            model: &model,
            direct_map: &map,
            order: Order::new(order).unwrap(),
            node: NodeId::new(3),
            heads: Heads::InPlace,
            base,
            streams,
        };
        // Before, at and behind the start of a compound page.
        for page in [0, 1, (1 << 18) / in_page - 1] {
            let first = page * in_page;
            let frames = PfnRange::new(Pfn::ZERO, 2).unwrap();
            // SAFETY: 1: the memory is this test's. 2: the model has the size of `Words`.
            let (written, words) = map.written(|| unsafe {
                writer.write::<Words<E, WORDS>>(Batch {
                    frames,
                    first: Pfn::new(first).unwrap(),
                    described: Described::EachPage,
                });
            });
            assert_eq!(words, streamed(streams, 2));
            let described = frames.frames() * in_page;
            let plain = expected::<E>(&model, writer.order, base, first, described);
            assert_eq!(
                written.0[..2].as_flattened(),
                plain,
                "order {order}, page {page}, {WORDS} words"
            );
            assert_eq!(written.0[2], [UNTOUCHED; 512], "nothing behind the frames");
        }
        if order != 0 {
            let head = Pfn::new(1 << 18).unwrap();
            // SAFETY: 1 and 2: as above.
            let (written, words) = map.written(|| unsafe {
                writer.write_tails::<Words<E, WORDS>>(Pfn::new(1).unwrap(), head);
            });
            assert_eq!(words, streamed(streams, 1));
            let one = &expected::<E>(&model, writer.order, base, (1 << 18) + 1, 1)[..];
            assert!(written.0[1].chunks(WORDS).all(|tail| tail == one));
        }
    }
}

#[test]
fn descriptors_of_every_size_and_order_are_what_one_by_one_gives() {
    what_is_written::<Mask, 1>();
    what_is_written::<Mask, 2>();
    what_is_written::<Mask, 4>();
    what_is_written::<Mask, 8>();
    what_is_written::<Mask, 16>();
    what_is_written::<Mask, 32>();
    what_is_written::<Mask, 512>();
    what_is_written::<Pointer, 1>();
    what_is_written::<Pointer, 4>();
    what_is_written::<Pointer, 8>();
    what_is_written::<Pointer, 16>();
    what_is_written::<Pointer, 64>();
}

/// The first vmemmap pages of two compound pages, alone or each with a page of tails behind it.
fn first_pages<E: TailEncoding, const WORDS: usize>() {
    for streams in [false, true] {
        first_pages_by::<E, WORDS>(streams);
    }
}

fn first_pages_by<E: TailEncoding, const WORDS: usize>(streams: bool) {
    let model = model(WORDS as u64 * 8);
    let in_page = model.descriptors_per_page();
    let mut memory = Box::new(Memory([[UNTOUCHED; 512]; FRAMES]));
    let map = Map::new(&mut memory);
    for order in model.vmemmap_page_order().get() + 1..=14 {
        let writer = DescriptorWriter {
            model: &model,
            direct_map: &map,
            order: Order::new(order).unwrap(),
            node: NodeId::new(3),
            heads: Heads::InPlace,
            base: Part::Base,
            streams,
        };
        let starts = [3 << order, 4 << order];
        for each in [1, 2] {
            let frames = PfnRange::new(Pfn::ZERO, 2 * each).unwrap();
            // SAFETY: 1: the memory is this test's. 2: the model has the size of `Words`, and the order is
            // above a vmemmap page's.
            let (written, words) = map.written(|| unsafe {
                let first = Pfn::new(starts[0]).unwrap();
                writer.write_first_pages::<Words<E, WORDS>>(frames, each, first);
            });
            assert_eq!(words, streamed(streams, frames.frames()));
            let page = |first| expected::<E>(&model, writer.order, Part::Base, first, in_page);
            let plain = starts.map(|start| [page(start), page(start + in_page)]);
            let plain = plain.iter().flat_map(|pages| &pages[..each as usize]);
            let all = frames.frames() as usize;
            assert!(
                written.0[..all]
                    .iter()
                    .map(|page| &page[..])
                    .eq(plain.map(|page| &page[..])),
                "order {order}, {each} each"
            );
            assert_eq!(
                written.0[all], [UNTOUCHED; 512],
                "nothing behind the frames"
            );
        }
    }
}

#[test]
fn first_pages_of_compound_pages_are_what_one_by_one_gives() {
    first_pages::<Mask, 1>();
    first_pages::<Mask, 8>();
    first_pages::<Mask, 32>();
    first_pages::<Pointer, 4>();
    first_pages::<Pointer, 8>();
    first_pages::<Pointer, 16>();
}

#[test]
fn a_run_ends_where_it_is_told_to() {
    let mut memory = Box::new(Memory([[UNTOUCHED; 512]; FRAMES]));
    let map = Map::new(&mut memory);
    let page = map.frame_pointer(Pfn::ZERO).cast::<Words<Mask, 8>>();
    let initial = Initial {
        part: Part::Tail,
        order: Order::new(9).unwrap(),
        word: 77,
        node: NodeId::new(0),
    };
    for (from, to) in [(0, 0), (0, 1), (63, 64), (1, 64), (5, 5), (7, 3), (2, 9)] {
        // SAFETY: 1: the memory is this test's. 2: 64 bytes. 3: a page has 64 of them.
        let (written, _) = map.written(|| unsafe {
            Image::<Words<Mask, 8>>::new(initial).write(page, from, to);
        });
        for (index, descriptor) in written.0[0].chunks(8).enumerate() {
            let is_written = (from..to).contains(&(index as u64));
            for (place, word) in descriptor.iter().enumerate() {
                let want = if is_written {
                    word_at(initial, place)
                } else {
                    UNTOUCHED
                };
                assert_eq!(*word, want, "from {from} to {to}, descriptor {index}");
            }
        }
    }
}
