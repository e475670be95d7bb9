//! Which instructions are executed, in which order, with which operands.

use arch_aarch64::{
    BreakBeforeMake, Format4K, Format16K, Format64K, PageOperand, TLBI_LIMIT, Tlb, TlbInstructions,
};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, FlushScope, Mmu};
use std::cell::RefCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    DsbIshst,
    DsbIsh,
    Isb,
    TlbiVaae1is(u64),
    TlbiVmalle1is,
}
use Instruction::{DsbIsh, DsbIshst, Isb, TlbiVaae1is, TlbiVmalle1is};

/// Remembers what it is to execute.
#[derive(Default)]
struct Recorder(RefCell<Vec<Instruction>>);

impl Recorder {
    fn push(&self, instruction: Instruction) {
        self.0.borrow_mut().push(instruction);
    }
}

// SAFETY: 1 to 3: for tables that no CPU uses.
unsafe impl TlbInstructions for Recorder {
    fn dsb_ishst(&self) {
        self.push(DsbIshst);
    }

    fn dsb_ish(&self) {
        self.push(DsbIsh);
    }

    fn isb(&self) {
        self.push(Isb);
    }

    fn tlbi_vaae1is(&self, page: PageOperand) {
        self.push(TlbiVaae1is(page.bits()));
    }

    fn tlbi_vmalle1is(&self) {
        self.push(TlbiVmalle1is);
    }
}

/// A flush in steps of another format's pages leaves some cached, or is of addresses that nobody
/// has: `RadixTable` takes an `Mmu` for its own format, and these are the only ones there are.
#[test]
fn a_tlb_serves_tables_of_its_own_format_only() {
    use static_assertions::{assert_impl_all, assert_not_impl_any};
    type Of<F> = Tlb<F, &'static Recorder>;
    assert_impl_all!(Of<Format4K>: Mmu<Format4K>);
    assert_impl_all!(Of<Format16K>: Mmu<Format16K>);
    assert_impl_all!(Of<Format64K>: Mmu<Format64K>);
    assert_not_impl_any!(Of<Format4K>: Mmu<Format16K>, Mmu<Format64K>);
    assert_not_impl_any!(Of<Format16K>: Mmu<Format4K>, Mmu<Format64K>);
    assert_not_impl_any!(Of<Format64K>: Mmu<Format4K>, Mmu<Format16K>);
}

fn executed<F: EntryFormat>(work: impl Fn(&Tlb<F, &Recorder>)) -> Vec<Instruction> {
    let recorder = Recorder::default();
    work(&Tlb::new(&recorder));
    recorder.0.into_inner()
}

fn forgotten<F: EntryFormat>(ranges: &[(u64, u64)]) -> Vec<Instruction> {
    let range = |(at, pages): &(u64, u64)| {
        VirtRange::new(VirtAddr::new(*at), pages * F::GRANULE.bytes()).unwrap()
    };
    let ranges: Vec<_> = ranges.iter().map(range).collect();
    executed::<F>(|tlb| tlb.flush(FlushScope::Ranges(&ranges)))
}

#[test]
fn a_flush_is_stores_then_tlbi_then_completion_then_context() {
    // Bits 55 to 12 of ffff_f800_1234_5000 and of the next page.
    let pages = forgotten::<Format4K>(&[(0xffff_f800_1234_5000, 2)]);
    let expected = [
        DsbIshst,
        TlbiVaae1is(0xfff_8001_2345),
        TlbiVaae1is(0xfff_8001_2346),
        DsbIsh,
        Isb,
    ];
    assert_eq!(pages, expected);
    let everything = executed::<Format4K>(|tlb| tlb.flush(FlushScope::Everything));
    assert_eq!(everything, [DsbIshst, TlbiVmalle1is, DsbIsh, Isb]);
    let nothing = executed::<Format4K>(|tlb| tlb.flush(FlushScope::Nothing));
    assert_eq!(nothing, []);
}

#[test]
fn pages_are_steps_of_the_granule() {
    let medium = forgotten::<Format16K>(&[(0xffff_8000_0000_4000, 2)]);
    let expected = [TlbiVaae1is(0xff8_0000_0004), TlbiVaae1is(0xff8_0000_0008)];
    assert_eq!(medium[1..3], expected);
    let large = forgotten::<Format64K>(&[(0xffff_f800_0003_0000, 2)]);
    let expected = [TlbiVaae1is(0xfff_8000_0030), TlbiVaae1is(0xfff_8000_0040)];
    assert_eq!(large[1..3], expected);
}

#[test]
fn the_first_and_the_last_page_of_the_region_are_invalidated_and_nothing_behind_them() {
    let ends = forgotten::<Format64K>(&[(0xffff_0000_0000_0000, 1), (0xffff_ffff_ffff_0000, 1)]);
    let expected = [
        DsbIshst,
        TlbiVaae1is(0xff0_0000_0000),
        TlbiVaae1is(0xfff_ffff_fff0),
        DsbIsh,
        Isb,
    ];
    assert_eq!(ends, expected);
}

fn too_many_pages<F: EntryFormat>() {
    let base = 0xffff_f800_0000_0000;
    let tlbis = |executed: &[Instruction]| executed.len() as u64 - 3;
    let pages = forgotten::<F>(&[(base, TLBI_LIMIT - 1), (base + (1 << 40), 1)]);
    assert_eq!(tlbis(&pages), TLBI_LIMIT);
    assert!(!pages.contains(&TlbiVmalle1is));
    let all = forgotten::<F>(&[(base, TLBI_LIMIT), (base + (1 << 40), 1)]);
    assert_eq!(all, [DsbIshst, TlbiVmalle1is, DsbIsh, Isb]);
}

#[test]
fn too_many_pages_in_all_ranges_together_are_everything() {
    too_many_pages::<Format4K>();
    too_many_pages::<Format16K>();
    too_many_pages::<Format64K>();
}

#[test]
fn new_tables_and_new_entries_wait_for_their_stores() {
    let published = executed::<Format4K>(|tlb| tlb.publish());
    assert_eq!(published, [DsbIshst]);
    let range = VirtRange::single(VirtAddr::new(0xffff_f800_0000_0000));
    let added = executed::<Format4K>(|tlb| tlb.entries_added(range));
    assert_eq!(added, [DsbIshst, Isb]);
}

#[test]
fn an_operand_is_bits_55_to_12_and_no_level() {
    for at in [
        0xffff_0000_0000_0000,
        0xffff_f800_1234_5000,
        0xffff_ffff_ffff_f000,
    ] {
        let operand = PageOperand::of(VirtAddr::new(at + 0xfff));
        assert_eq!(operand.bits(), at >> 12 & 0xfff_ffff_ffff);
        assert_eq!(operand.address(), VirtAddr::new(at));
    }
}

#[test]
fn break_before_make_is_read_from_its_field() {
    let level = |field: u64| {
        BreakBeforeMake::from_id_aa64mmfr2(field << 52 | 0xfff0_ffff_ffff_ffff & !(0xf << 52))
    };
    assert_eq!(level(0), BreakBeforeMake::Required);
    assert_eq!(level(1), BreakBeforeMake::NotWithNt);
    assert_eq!(level(2), BreakBeforeMake::NotForBlockSize);
    assert_eq!(level(15), BreakBeforeMake::NotForBlockSize);
    assert!(level(0) < level(1) && level(1) < level(2));
}
