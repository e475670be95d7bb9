//! Which instructions are executed, where, in which order, with which operands.

use arch_riscv64::{Fence, RemoteFences, SFENCE_LIMIT, Sv39, Sv48, Sv57, Tlb, TlbInstructions};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu, Replacement};
use std::cell::RefCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Fence,
    Page(u64),
    All,
    /// On the other harts.
    RemotePage(u64),
    RemoteAll,
}
use Event::{All, Page, RemoteAll, RemotePage};

/// Remembers what it is to execute.
#[derive(Default)]
struct Recorder(RefCell<Vec<Event>>);

// SAFETY: 1 to 3: for tables that no hart uses.
unsafe impl TlbInstructions for Recorder {
    fn sfence_vma(&self, at: VirtAddr) {
        self.0.borrow_mut().push(Page(at.get()));
    }

    fn sfence_vma_all(&self) {
        self.0.borrow_mut().push(All);
    }

    fn fence(&self) {
        self.0.borrow_mut().push(Event::Fence);
    }
}

// SAFETY: 1: for tables that no hart uses.
unsafe impl RemoteFences for Recorder {
    fn on_other_harts(&self, fence: Fence<'_>) {
        let there = Self::default();
        fence.execute(&there);
        let events = there.0.into_inner().into_iter().map(|event| match event {
            Page(at) => RemotePage(at),
            All => RemoteAll,
            other => other,
        });
        self.0.borrow_mut().extend(events);
    }
}

type Recorded<'r> = Tlb<&'r Recorder, &'r Recorder>;

fn executed(work: impl Fn(&Recorded<'_>)) -> Vec<Event> {
    let recorder = Recorder::default();
    work(&Tlb::new(&recorder, &recorder));
    recorder.0.into_inner()
}

fn mmu<'t>(tlb: &'t Recorded<'_>) -> &'t dyn Mmu<Sv48> {
    tlb
}

const AT: u64 = 0xffff_8d80_1234_5000;

fn pages(at: u64, count: u64) -> VirtRange {
    VirtRange::new(VirtAddr::new(at), count << 12).unwrap()
}

#[test]
fn where_leaves_were_changed_each_page_is_fenced_here_and_then_elsewhere() {
    let ranges = [pages(AT, 2), pages(0xffff_ffff_ffff_f000, 1)];
    let events = executed(|tlb| mmu(tlb).flush(FlushScope::Leaves(&ranges)));
    let top = 0xffff_ffff_ffff_f000;
    let expected = [
        Event::Fence,
        Page(AT),
        Page(AT + 0x1000),
        Page(top),
        RemotePage(AT),
        RemotePage(AT + 0x1000),
        RemotePage(top),
    ];
    assert_eq!(events, expected);
    let nothing = executed(|tlb| mmu(tlb).flush(FlushScope::Nothing));
    assert_eq!(nothing, []);
}

/// SFENCE.VMA with an address does not reach links (privileged manual, 4.2.1).
#[test]
fn where_links_were_changed_or_there_are_many_pages_everything_is_fenced() {
    let everything = [Event::Fence, All, RemoteAll];
    let page = [pages(AT, 1)];
    let links = executed(|tlb| mmu(tlb).flush(FlushScope::Ranges(&page)));
    assert_eq!(links, everything);
    let all = executed(|tlb| mmu(tlb).flush(FlushScope::Everything));
    assert_eq!(all, everything);
    let at_limit = [pages(AT, SFENCE_LIMIT - 1), pages(AT + (1 << 30), 1)];
    let fenced = executed(|tlb| mmu(tlb).flush(FlushScope::Leaves(&at_limit)));
    assert_eq!(fenced.len() as u64, 1 + 2 * SFENCE_LIMIT);
    let above = [pages(AT, SFENCE_LIMIT), pages(AT + (1 << 30), 1)];
    let fenced = executed(|tlb| mmu(tlb).flush(FlushScope::Leaves(&above)));
    assert_eq!(fenced, everything);
}

#[test]
fn new_tables_wait_for_their_stores() {
    assert_eq!(executed(|tlb| mmu(tlb).publish()), [Event::Fence]);
}

#[test]
fn entries_that_were_added_are_fenced_everywhere_or_here_alone() {
    let range = pages(AT, 1);
    let everywhere = executed(|tlb| mmu(tlb).entries_added(range));
    assert_eq!(everywhere, [Event::Fence, All, RemoteAll]);
    let here = executed(|tlb| mmu(&tlb.with_retried_faults()).entries_added(range));
    assert_eq!(here, [Event::Fence, All]);
}

#[test]
fn one_tlb_serves_all_modes_and_exchanges_entries_by_one_store() {
    let recorder = Recorder::default();
    let tlb = Tlb::new(&recorder, &recorder);
    let rules = [
        <Recorded<'_> as Mmu<Sv39>>::replacement(&tlb),
        <Recorded<'_> as Mmu<Sv48>>::replacement(&tlb),
        <Recorded<'_> as Mmu<Sv57>>::replacement(&tlb),
    ];
    assert_eq!(rules, [Replacement::Direct; 3]);
}
