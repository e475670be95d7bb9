//! Threads as CPUs: each access is translated by the tables, and a flush waits for accesses under way.
//!
//! Only atomics order what threads do. The locks here are made of atomics, which ThreadSanitizer knows.

#![allow(clippy::panic, reason = "a fault is a failed test")]

use crate::engine::{EngineParts, WithEngine};
use crate::{OnBackend, WithRadix};
use arch_sim::SimMemory;
use arch_sim::walker::Walker;
use hosted::{AnyTable, BackendKind, RadixBackend};
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::model::MemoryModel;
use mm_core::paging::{FlushScope, Mmu, Replacement};
use mm_core::readers::{CountedReaders, Kernel};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{slice, thread};

/// How many CPUs access memory right now, by addresses that they have translated; or that all are stopped.
#[derive(Debug, Default)]
struct Accesses(AtomicU64);

/// While this bit is set, no CPU begins an access.
const STOPPED: u64 = 1 << 63;

impl Accesses {
    /// Begins an access, as soon as nobody keeps CPUs away.
    fn begin(&self) {
        loop {
            let now = self.0.load(Ordering::Relaxed);
            let next = now + 1;
            let free = now & STOPPED == 0;
            let swap = |order| self.0.compare_exchange(now, next, order, Ordering::Relaxed);
            if free && swap(Ordering::Acquire).is_ok() {
                return;
            }
            thread::yield_now();
        }
    }

    /// Ends an access. Its translation is not used any more.
    fn end(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Stops all CPUs, waits for the accesses under way, and does `work`.
    fn while_stopped(&self, work: impl FnOnce()) {
        self.0.fetch_or(STOPPED, Ordering::Relaxed);
        while self.0.load(Ordering::Acquire) != STOPPED {
            thread::yield_now();
        }
        work();
        self.0.fetch_and(!STOPPED, Ordering::Release);
    }
}

/// CPUs that translate for each access anew, by the tables of `R`.
pub struct ThreadCpus {
    kind: BackendKind,
    walker: Box<dyn Walker + Send + Sync>,
    memory: SimMemory,
    root: Pfn,
    replacement: Replacement,
    accesses: Accesses,
    /// Whether they are kept away.
    quiesced: AtomicBool,
}

/// A descriptor while it is accessed. A flush waits until it is dropped, so a thread has one at a time.
///
/// Where its page is read-only, it panics when it is dropped if the descriptor has changed.
#[derive(Debug)]
pub struct Accessed<'a, D> {
    accesses: &'a Accesses,
    descriptor: NonNull<D>,
    /// What it was, where nobody may store to it.
    read_only: Option<Vec<u8>>,
}

impl<D> Accessed<'_, D> {
    fn bytes(&self) -> Vec<u8> {
        let size = size_of::<D>();
        // SAFETY: a descriptor is mapped there as long as the access goes on, and nobody stores to what
        // is read-only.
        unsafe { slice::from_raw_parts(self.descriptor.as_ptr().cast(), size) }.to_vec()
    }
}

impl<D> Deref for Accessed<'_, D> {
    type Target = D;

    fn deref(&self) -> &D {
        // SAFETY: a descriptor is mapped there as long as the access goes on; they are only shared.
        unsafe { self.descriptor.as_ref() }
    }
}

impl<D> Drop for Accessed<'_, D> {
    fn drop(&mut self) {
        let before = self.read_only.take();
        let is_as_it_was = before.is_none_or(|before| before == self.bytes());
        self.accesses.end();
        assert!(is_as_it_was || thread::panicking(), "a store to a tail");
    }
}

impl ThreadCpus {
    /// CPUs that translate by the tables of `kind` below `root`, which lie in `memory`. `replacement`:
    /// how entries in use may be exchanged, whatever the architecture demands.
    ///
    /// # Panics
    ///
    /// If `kind` has no tables.
    pub fn new(kind: BackendKind, memory: &SimMemory, root: Pfn, replacement: Replacement) -> Self {
        let Some(walker) = kind.run_radix(NewWalker) else {
            panic!("no CPU translates without tables");
        };
        Self {
            kind,
            walker,
            memory: memory.clone(),
            root,
            replacement,
            accesses: Accesses::default(),
            quiesced: AtomicBool::new(false),
        }
    }

    /// Where descriptors lie.
    pub fn model(&self) -> MemoryModel {
        self.kind.model()
    }

    /// The page table by which these CPUs translate, with tables of `frames`.
    ///
    /// # Safety
    ///
    /// 1. The root is zero.
    /// 2. The memory has all frames of `frames`.
    /// 3. It is the one page table that is made.
    ///
    /// # Panics
    ///
    /// Never: there are tables.
    pub unsafe fn table<'m>(&'m self, frames: &'m dyn FrameAllocator) -> AnyTable<'m> {
        match self.kind.run_radix(NewTable { cpus: self, frames }) {
            Some(table) => table,
            None => panic!("no CPU translates without tables"),
        }
    }

    /// An access to the descriptor at `at`, which is mapped. Panics where it is not.
    pub fn descriptor<D>(&self, at: VirtAddr) -> Accessed<'_, D> {
        let granule = self.kind.model().granule();
        self.accesses.begin();
        let leaf = self.walker.translate(&self.memory, self.root, at);
        let found = leaf.ok().and_then(|leaf| {
            let to = leaf.address(at, granule);
            Some((leaf, to, to.frame(granule)?))
        });
        let Some((leaf, to, frame)) = found else {
            self.accesses.end();
            panic!("a fault at {at}");
        };
        let page = self.memory.frame_pointer(frame);
        let offset = (to.get() & (granule.bytes() - 1)) as usize;
        let mut accessed: Accessed<'_, D> = Accessed {
            accesses: &self.accesses,
            // SAFETY: the offset is within the page.
            descriptor: unsafe { page.add(offset) }.cast(),
            read_only: None,
        };
        accessed.read_only = (!leaf.writable).then(|| accessed.bytes());
        accessed
    }
}

struct NewWalker;

impl WithRadix for NewWalker {
    type Output = Box<dyn Walker + Send + Sync>;

    fn with<R: RadixBackend + WithEngine>(self) -> Self::Output {
        Box::new(R::walker())
    }
}

/// See [`ThreadCpus::table`].
struct NewTable<'m> {
    cpus: &'m ThreadCpus,
    frames: &'m dyn FrameAllocator,
}

impl<'m> WithRadix for NewTable<'m> {
    type Output = AnyTable<'m>;

    fn with<R: RadixBackend + WithEngine>(self) -> AnyTable<'m> {
        let Self { cpus, frames } = self;
        let parts = EngineParts {
            root: cpus.root,
            other_roots: None,
            frames,
            memory: &cpus.memory,
            mmu: cpus,
        };
        // SAFETY: 1: of the table's, 1 to 3: duties 1 to 3 of the caller. 4: all CPUs are the MMU's. 5: there
        // is one root. 6: there is one allocator.
        unsafe { R::engine(parts) }
    }
}

// SAFETY: 1: when no access is under way, nobody has anything cached. 2: CPUs read entries in the
// order of the host's threads. 3: nobody accesses anything while the CPUs are kept away.
unsafe impl<F> Mmu<F> for ThreadCpus {
    fn flush(&self, scope: FlushScope<'_>) {
        if scope != FlushScope::Nothing && !self.quiesced.load(Ordering::Relaxed) {
            self.accesses.while_stopped(|| {});
        }
    }

    fn publish(&self) {}

    fn replacement(&self) -> Replacement {
        self.replacement
    }

    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        self.accesses.while_stopped(|| {
            self.quiesced.store(true, Ordering::Relaxed);
            work();
            self.quiesced.store(false, Ordering::Relaxed);
        });
    }
}

/// What readers need of a kernel, on such CPUs. It writes down which pages lost their last reference.
pub struct ThreadKernel<'m> {
    cpus: &'m ThreadCpus,
    grace: CountedReaders,
    without_owner: Mutex<Vec<(Pfn, Order)>>,
}

impl<'m> ThreadKernel<'m> {
    /// On `cpus`.
    pub fn new(cpus: &'m ThreadCpus) -> Self {
        Self {
            cpus,
            grace: CountedReaders::new(thread::yield_now),
            without_owner: Mutex::new(Vec::new()),
        }
    }

    /// The pages whose last reference was dropped since this was asked last.
    pub fn take_without_owner(&self) -> Vec<(Pfn, Order)> {
        let mut pages = self
            .without_owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut pages)
    }
}

// SAFETY: 1: accesses are translated by the machine's one table. 2: it is the machine's memory.
unsafe impl Kernel for ThreadKernel<'_> {
    type Grace = CountedReaders;
    type DirectMap = SimMemory;
    type Access<'k, D: 'static>
        = Accessed<'k, D>
    where
        Self: 'k;

    fn grace(&self) -> &CountedReaders {
        &self.grace
    }

    fn direct_map(&self) -> &SimMemory {
        &self.cpus.memory
    }

    unsafe fn descriptor<'k, D: 'static>(&'k self, at: VirtAddr) -> Accessed<'k, D> {
        self.cpus.descriptor(at)
    }

    fn last_reference(&self, first: Pfn, order: Order) {
        let mut pages = self
            .without_owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pages.push((first, order));
    }
}
