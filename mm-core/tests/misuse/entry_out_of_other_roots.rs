//! Other roots have entries of all of the kernel: only the page table says which of them goes.

use mm_core::addr::VirtAddr;
use mm_core::paging::Roots;

fn tell(roots: &dyn Roots, at: VirtAddr) {
    roots.entry_removed(at);
    roots.entry_installed(at);
}

fn main() {
    let _ = tell;
}
