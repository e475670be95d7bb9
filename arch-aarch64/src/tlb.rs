//! Flushing translations on CPUs, and making new ones visible to table walks.
//!
//! # What has to go
//!
//! Leaves of this library are global, or of any ASID, and the tables on the way to them are freed when they become
//! empty. So the last level and all levels above it, which CPUs may cache too, have to be
//! forgotten. What there is (Arm ARM, "TLB maintenance instructions"), for EL1&0, or for EL2&0 when
//! executed at EL2 with HCR_EL2.{E2H, TGE} = {1, 1}:
//!
//! | instruction | last level | levels above it |
//! |---|---|---|
//! | TLBI VAAE1IS | of the address: of any ASID, and global ones | all on the way to the address |
//! | TLBI VAALE1IS | of the address: of any ASID, and global ones | **none** |
//! | TLBI VMALLE1IS | all | all |
//!
//! VAALE1IS is cheaper, and would do where only leaves were changed (`FlushScope::Leaves`); it is not used, since nobody has
//! measured what it is worth. Where a table was detached it is too little: a
//! CPU that keeps the link to one would walk through it after it was freed. For a detached table
//! one address below it is enough, however much of the address space the table translated.
//!
//! # Other CPUs
//!
//! The instructions whose names end in IS are broadcast to all CPUs in the inner shareable domain,
//! and the DSB ISH behind them waits until all of these have forgotten and have finished what they
//! did by the old translation. No interrupt is sent. Linux puts all CPUs of a machine into one
//! inner shareable domain, and so does every machine that it runs on.
//!
//! # Order
//!
//! A table walk is not ordered with stores by anything but barriers (Arm ARM, "Ordering of memory
//! accesses from translation table walks", "Ordering and completion of TLB maintenance
//! instructions").
//!
//! ```text
//!   new table     stores of its entries ▶ DSB ISHST ▶ store of the link
//!   new entries   stores ▶ DSB ISHST ▶ ISB
//!   flush         stores of invalid entries ▶ DSB ISHST ▶ TLBI ... TLBI ▶ DSB ISH ▶ ISB
//! ```
//!
//! An entry that is not valid is not cached, so a new one needs no TLBI. The ISB makes this CPU
//! fetch what comes next by the new tables. Another CPU needs something of the kind before it uses
//! the new addresses: it has FEAT_ETS2, takes an exception, executes an ISB, or takes the fault of
//! a walk that was made too early for spurious and tries again.

use crate::quiesce::{NoQuiesce, Quiesce};
use core::marker::PhantomData;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, FlushScope, Mmu, Replacement};

/// Up to how many pages are invalidated one by one.
///
/// Each is a message to all CPUs but stops none of them, while a flush of everything takes the
/// translations of all kernel and user addresses from all of them. Linux changes over at as many
/// pages as a leaf table has with 4K pages, which is taken over here for all granules: a section's
/// vmemmap, 512 pages of 4 KiB, 32 of 16 KiB or 8 of 64 KiB, is invalidated by pages.
pub const TLBI_LIMIT: u64 = 512;

/// What TLBI VAAE1IS is given: the page that includes an address.
///
/// Bits 43 to 0 are bits 55 to 12 of the address, whatever the granule. TTL, bits 47 to 44, is
/// zero: nothing is said about the level of the leaf. There is no ASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageOperand(u64);

impl PageOperand {
    const ADDRESS: u64 = (1 << 44) - 1;

    /// The page of `at`.
    pub const fn of(at: VirtAddr) -> Self {
        Self(at.get() >> 12 & Self::ADDRESS)
    }

    /// The register's contents.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The address, down to its multiple of 4 KiB, with bit 55 copied to those above it.
    pub const fn address(self) -> VirtAddr {
        VirtAddr::new((((self.0 << 20) as i64) >> 8) as u64)
    }
}

/// The instructions for it.
///
/// [`Cpu`](crate::Cpu) executes them; hosted, a model of CPUs stands in. A kernel for CPUs whose errata ask for
/// more than one TLBI in places brings its own.
///
/// # Safety
///
/// For all CPUs of the inner shareable domain, which are all that use the tables:
///
/// 1. When `dsb_ishst` returns, what was stored before is visible to every table walk.
/// 2. After `tlbi_vaae1is` or `tlbi_vmalle1is`, when `dsb_ish` has returned, no CPU translates by
///    what was cached for the page, or for any page: leaves of any size, global or not, and links
///    to tables on the way to them; and no access by such a translation is under way any more.
/// 3. After `isb`, this CPU does nothing by what it had read from the tables before.
pub unsafe trait TlbInstructions {
    /// DSB ISHST.
    fn dsb_ishst(&self);

    /// DSB ISH.
    fn dsb_ish(&self);

    /// ISB.
    fn isb(&self);

    /// TLBI VAAE1IS.
    fn tlbi_vaae1is(&self, page: PageOperand);

    /// TLBI VMALLE1IS.
    fn tlbi_vmalle1is(&self);
}

// SAFETY: 1 to 3 hold because they hold for the instructions behind the reference.
unsafe impl<T: TlbInstructions + ?Sized> TlbInstructions for &T {
    fn dsb_ishst(&self) {
        (**self).dsb_ishst()
    }

    fn dsb_ish(&self) {
        (**self).dsb_ish()
    }

    fn isb(&self) {
        (**self).isb()
    }

    fn tlbi_vaae1is(&self, page: PageOperand) {
        (**self).tlbi_vaae1is(page)
    }

    fn tlbi_vmalle1is(&self) {
        (**self).tlbi_vmalle1is()
    }
}

/// The [`Mmu`] of AArch64, for tables in the format `F`.
///
/// It serves tables in that format only, since it goes by the format's pages:
///
/// ```
/// # use arch_aarch64::{Format4K, Format64K, Tlb, TlbInstructions};
/// # use mm_core::paging::Mmu;
/// fn pair<F>(_: &impl Mmu<F>) {}
///
/// fn of_a_4k_table(tlb: &Tlb<Format4K, impl TlbInstructions>) {
///     pair::<Format4K>(tlb);
/// }
/// ```
///
/// With another one it would leave pages in between cached, so that does not compile:
///
/// ```compile_fail,E0277
/// # use arch_aarch64::{Format4K, Format64K, Tlb, TlbInstructions};
/// # use mm_core::paging::Mmu;
/// fn pair<F>(_: &impl Mmu<F>) {}
///
/// fn of_a_4k_table(tlb: &Tlb<Format64K, impl TlbInstructions>) {
///     pair::<Format4K>(tlb); // not an `Mmu<Format4K>`
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tlb<F, I, Q = NoQuiesce> {
    instructions: I,
    quiesce: Q,
    format: PhantomData<F>,
}

impl<F: EntryFormat, I: TlbInstructions> Tlb<F, I> {
    /// Flushes by `instructions`, in steps of the pages of `F`, which is the format of the tables.
    /// Entries in use are not exchanged.
    pub const fn new(instructions: I) -> Self {
        Self::with_quiesce(instructions, NoQuiesce)
    }
}

impl<F: EntryFormat, I: TlbInstructions, Q: Quiesce> Tlb<F, I, Q> {
    /// As [`new`](Tlb::new), with entries in use exchanged while `quiesce` keeps CPUs from their
    /// addresses.
    pub const fn with_quiesce(instructions: I, quiesce: Q) -> Self {
        Self {
            instructions,
            quiesce,
            format: PhantomData,
        }
    }

    /// One TLBI for each page of `range`.
    fn invalidate_pages(&self, range: VirtRange) {
        let mut page = Some(range.start().align_down(F::GRANULE.shift()));
        while let Some(at) = page.filter(|at| *at <= range.last()) {
            self.instructions.tlbi_vaae1is(PageOperand::of(at));
            page = at.checked_add(F::GRANULE.bytes());
        }
    }

    /// How many pages the ranges touch.
    fn pages_of(ranges: &[VirtRange]) -> u64 {
        let pages = |range: &VirtRange| range.pages(F::GRANULE);
        ranges.iter().map(pages).fold(0, u64::saturating_add)
    }
}

// SAFETY: 1: what made entries invalid is visible to walks before the first TLBI (duty 1 of
// `TlbInstructions`), and each page in scope, or everything, is forgotten by all CPUs when the
// barrier behind the last returns (duty 2). 2: duty 1 of `TlbInstructions`. 3: duties 1 and 2 of
// `Quiesce`; without one, entries in use are not exchanged.
unsafe impl<F: EntryFormat, I: TlbInstructions, Q: Quiesce> Mmu<F> for Tlb<F, I, Q> {
    fn flush(&self, scope: FlushScope<'_>) {
        if scope == FlushScope::Nothing {
            return;
        }
        self.instructions.dsb_ishst();
        match scope {
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges)
                if Self::pages_of(ranges) <= TLBI_LIMIT =>
            {
                for range in ranges.iter() {
                    self.invalidate_pages(*range);
                }
            }
            _ => self.instructions.tlbi_vmalle1is(),
        }
        self.instructions.dsb_ish();
        self.instructions.isb();
    }

    fn publish(&self) {
        self.instructions.dsb_ishst();
    }

    fn entries_added(&self, _range: VirtRange) {
        self.instructions.dsb_ishst();
        self.instructions.isb();
    }

    fn replacement(&self) -> Replacement {
        if self.quiesce.is_available() {
            Replacement::BreakBeforeMake
        } else {
            Replacement::Refused
        }
    }

    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        self.quiesce.quiesce(range, work);
    }
}
