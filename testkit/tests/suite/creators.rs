//! Two CPUs that both want the tail frame that is to be one for all.
//!
//! The registry of shared tails is under the kernel's lock for its vmemmap, as are its page tables,
//! so nobody finds it between a look and an entry. What is shown here is that this is enough,
//! however the two come and go.

use arch_sim::{SimFrames, SimMemory};
use hosted::{AArch64_4K, Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{NodeId, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::InspectFrames;
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const NODE: NodeId = NodeId::new(0);
/// How often each of the two brings memory online.
const ROUNDS: u64 = 300;

/// The kernel's lock.
struct Lock<T> {
    inner: Mutex<T>,
    /// That one holder is ordered before the next is said here once more: ThreadSanitizer does not see
    /// how the standard library, which is compiled without it, locks where somebody has to wait.
    handed_on: AtomicU64,
}

impl<T> Lock<T> {
    fn new(value: T) -> Self {
        Self {
            inner: Mutex::new(value),
            handed_on: AtomicU64::new(0),
        }
    }

    fn with<U>(&self, work: impl FnOnce(&mut T) -> U) -> U {
        let mut held = self.inner.lock().unwrap();
        let times = self.handed_on.load(Ordering::Acquire);
        let done = work(&mut held);
        self.handed_on.store(times + 1, Ordering::Release);
        done
    }
}

/// What the kernel's lock is around.
struct Locked<'m, T> {
    vmemmap: Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>,
    table: T,
}

impl<T: PageTable> Locked<'_, T> {
    fn audit(&self, frames: &SimFrames) -> AuditReport {
        let mut scratch = vec![AuditSlot::default(); 1 << 10];
        let allocators: [&dyn InspectFrames; 1] = [frames];
        let report = self.vmemmap.audit(&self.table, &allocators, &mut scratch);
        report.unwrap()
    }

    fn tail_frames(&self) -> u64 {
        self.vmemmap.stats_on(NODE).tail_frames
    }
}

fn range<B: Backend>(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, B::MODEL.granule()).unwrap()
}

fn pagemap<B: Backend>(ranges: &[PfnRange], align: u64) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, B::MODEL.granule()).unwrap();
    DevPagemap::new(&B::MODEL, ranges, geometry)
        .unwrap()
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared)
}

/// Two threads bring memory in compound pages of `align` bytes online and offline, and start each
/// round together.
fn make_one_tail_and_leak_none<B: Backend>(align: u64)
where
    for<'m> B::Table<'m>: Send,
{
    let machine = Machine::<B>::new(&MachineConfig {
        devices: vec![range::<B>(0, 64 * GIB)],
        ..MachineConfig::default()
    })
    .unwrap();
    let (frames, memory) = (machine.frames(), machine.memory());
    let lock = Lock::new(Locked {
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        vmemmap: unsafe { Vmemmap::new(B::MODEL, frames, memory) }.unwrap(),
        table: machine.take_table().unwrap(),
    });
    let together = Barrier::new(2);
    let create = |start: u64| {
        let ranges = [range::<B>(start, GIB)];
        let pagemap = pagemap::<B>(&ranges, align);
        let mut alone = 0;
        for round in 0..ROUNDS {
            together.wait();
            let region = lock.with(|locked| {
                let region = locked.vmemmap.online(&mut locked.table, &pagemap);
                // Whoever came first has made it; the other one has found it.
                assert_eq!(locked.tail_frames(), 1);
                region.unwrap()
            });
            // Both are there in every other round; else who is first may be gone again before.
            if round % 2 == 0 {
                together.wait();
            }
            lock.with(|locked| {
                let report = locked.audit(frames);
                let regions = report.mapped_pages / 4096;
                assert_eq!(report.descriptor_frames, regions * GIB / align + 1);
                alone += u64::from(regions == 1);
                locked.vmemmap.offline(&mut locked.table, region).unwrap();
                // The last one to go has taken it along.
                assert_eq!(locked.tail_frames(), regions - 1);
            });
        }
        alone
    };
    let alone: u64 = thread::scope(|scope| {
        let one = scope.spawn(|| create(0));
        let other = scope.spawn(|| create(8 * GIB));
        one.join().unwrap() + other.join().unwrap()
    });
    // The first to go of two does not go alone.
    assert!(alone <= 2 * ROUNDS - ROUNDS / 2, "{alone}");
    assert_eq!(frames.outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

#[test]
fn two_creators_of_a_tail_for_all_make_one_and_leak_none() {
    make_one_tail_and_leak_none::<X86_64>(2 * MIB);
    make_one_tail_and_leak_none::<AArch64_4K>(2 * MIB);
}

#[test]
fn two_creators_of_a_shared_table_make_one_and_leak_none() {
    make_one_tail_and_leak_none::<X86_64>(GIB);
    make_one_tail_and_leak_none::<AArch64_4K>(GIB);
}
