//! Describing memory: by stores like all others, by stores past the caches, on one thread and on two, beside `memset`
//! of the same bytes. All in turn, on memory that has been touched.
//!
//! Times are by the clock on the wall, since threads work side by side: on a machine that does nothing else.

use super::bump::{Kernel, Memory};
use arch_x86_64::MODEL_4_LEVEL;
use benches::median;
use figures::{Describing, Frames, Pages, Stores};
use hosted::Threads;
use mm_core::addr::{Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, LinearMap, Pattern};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::vmemmap::Workers;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;

/// What `memset` stores. Some processors have a way to store zeros to much memory that is several times as quick
/// as all others, and no descriptor is zero.
const BYTE: u8 = 0x5a;

/// More than caches hold.
const OTHER: usize = 96 << 20;

/// What is measured of one amount of memory.
const CONTENDERS: [(Stores, usize); 7] = [
    (Stores::Omitted, 1),
    (Stores::Memset, 1),
    (Stores::Memset, 2),
    (Stores::Plain, 1),
    (Stores::Plain, 2),
    (Stores::Streamed, 1),
    (Stores::Streamed, 2),
];

/// Much, which no cache holds, and little, a section, which is warm.
pub(crate) const CASES: [(Pages, u64); 4] = [
    (Pages::Size4K, 8 << 10),
    (Pages::Size2M, 64 << 10),
    (Pages::Size4K, 128),
    (Pages::Size2M, 128),
];

/// Measures each of `cases`, `rounds` times.
pub(crate) fn measure(cases: &[(Pages, u64)], rounds: usize) -> Vec<Describing> {
    let workers = Threads::leaked(NonZeroUsize::new(2).unwrap());
    let of = |case: &(Pages, u64)| measure_one(*case, rounds, workers);
    cases.iter().flat_map(of).collect()
}

/// The bytes of descriptors that memory has for itself.
fn described(case: Pages, mib: u64) -> usize {
    let bytes = match case {
        Pages::Size4K => mib * MIB / 4096 * size_of::<Page<Mask>>() as u64,
        pages => mib * MIB / pages.bytes() * PAGE as u64,
    };
    bytes as usize
}

fn measure_one(
    (case, mib): (Pages, u64),
    rounds: usize,
    workers: &'static Threads,
) -> Vec<Describing> {
    let range = PfnRange::from_bytes(PhysAddr::new(0), mib * MIB, MODEL_4_LEVEL.granule());
    let ranges = [range.unwrap()];
    let geometry = match case {
        Pages::Size4K => Geometry::BASE_PAGES,
        pages => Geometry::from_bytes(pages.bytes(), MODEL_4_LEVEL.granule()).unwrap(),
    };
    let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
    let pagemap = pagemap.with_tails(match case {
        Pages::Size4K => Tails::None,
        _ => Tails::PerOrder,
    });
    let pagemap = pagemap.with_piece(Piece::Range);
    let bytes = described(case, mib);
    let mut memory = Memory::for_gib((bytes as u64 >> 24) + 1, Frames::InOrder);
    memory.bytes().fill(1);
    let mut other = vec![0_u8; OTHER];
    // Little stays in the cache.
    let is_much = bytes > 8 << 20;
    let mut plain = Kernel::new(&memory, &pagemap, |linear| linear);
    let mut streamed = Kernel::new(&memory, &pagemap, streaming);
    let mut omitted = Kernel::new(&memory, &pagemap, Omitting);
    let mut taken = CONTENDERS.map(|_| Vec::new());
    for turn in 0..=rounds {
        for ((stores, threads), taken) in CONTENDERS.iter().zip(&mut taken) {
            if is_much {
                std::hint::black_box(&mut other[..]).fill(turn as u8);
            } else {
                // Who was before may have left it in no cache, or in another CPU's.
                online(&mut plain, &pagemap, 1, workers);
                memset_pages(&mut memory.bytes()[..bytes], 1, workers);
            }
            let took = match stores {
                Stores::Memset if is_much => {
                    memset(&mut memory.bytes()[..bytes], *threads, workers)
                }
                Stores::Memset => memset_pages(&mut memory.bytes()[..bytes], *threads, workers),
                Stores::Plain => online(&mut plain, &pagemap, *threads, workers),
                Stores::Omitted => online(&mut omitted, &pagemap, *threads, workers),
                Stores::Streamed => online(&mut streamed, &pagemap, *threads, workers),
            };
            if turn > 0 {
                taken.push(took);
            }
        }
    }
    let ns = taken.map(|taken| median(taken).as_secs_f64() * 1e9);
    let of = |wanted: Stores, one: usize| {
        let index = CONTENDERS.iter().position(|of| *of == (wanted, one));
        ns[index.unwrap()]
    };
    let rows = CONTENDERS.iter().zip(ns).map(|((stores, threads), time)| {
        let alone = of(*stores, 1);
        let rest = match stores {
            Stores::Plain | Stores::Streamed => of(Stores::Omitted, 1),
            Stores::Memset | Stores::Omitted => 0.0,
        };
        Describing {
            case,
            mib,
            stores: *stores,
            workers: *threads,
            ns: time,
            vs_memset: time / of(Stores::Memset, 1),
            gain: alone / time,
            gain_describing: (alone - rest) / (time - rest),
        }
    });
    rows.collect()
}

/// A direct map that streams any amount, where the architecture has a way to.
fn streaming(map: LinearMap) -> impl DirectMap + Sync {
    #[cfg(target_arch = "x86_64")]
    let map = arch_x86_64::Streaming::from_bytes(map, 0);
    map
}

/// A direct map that stores no descriptors. In a memory where they are already, it is as if it had.
struct Omitting(LinearMap);

// SAFETY: 1 to 3: the map's. 4 and 5: others have stored the same to the same frames; nobody looks.
unsafe impl DirectMap for Omitting {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.0.frame_pointer(frame)
    }

    fn streams_from(&self) -> u64 {
        0
    }

    unsafe fn stream(&self, _frame: Pfn, _places: Range<usize>, _pattern: Pattern<'_>) {}
}

fn online<M: DirectMap + Sync>(
    kernel: &mut Kernel<M>,
    pagemap: &DevPagemap<'_>,
    threads: usize,
    workers: &'static Threads,
) -> Duration {
    kernel.vmemmap.use_workers(match threads {
        1 => None,
        _ => Some(workers),
    });
    kernel.time_online(pagemap)
}

/// As one slice, or as one for each thread.
fn memset(memory: &mut [u8], threads: usize, workers: &Threads) -> Duration {
    let start = Instant::now();
    in_parts(memory, threads, workers, &|part| {
        std::hint::black_box(part).fill(std::hint::black_box(BYTE));
    });
    start.elapsed()
}

/// A page at a time, as descriptors are written.
fn memset_pages(memory: &mut [u8], threads: usize, workers: &Threads) -> Duration {
    let start = Instant::now();
    in_parts(memory, threads, workers, &|part| {
        for page in part.chunks_exact_mut(PAGE) {
            std::hint::black_box(page).fill(std::hint::black_box(BYTE));
        }
    });
    start.elapsed()
}

fn in_parts(
    memory: &mut [u8],
    threads: usize,
    workers: &Threads,
    write: &(dyn Fn(&mut [u8]) + Sync),
) {
    if threads == 1 {
        return write(memory);
    }
    let part = memory.len() / threads;
    let start = AtomicPtr::new(memory.as_mut_ptr());
    workers.run(threads, &|index| {
        // SAFETY: each index is a part of its own of what is borrowed mutably.
        let part = unsafe {
            let from = start.load(Ordering::Relaxed).add(index * part);
            std::slice::from_raw_parts_mut(from, part)
        };
        write(part);
    });
}
