//! The radix engine of each backend, with parts of any type.
//!
//! Tests have allocators, CPUs and roots of their own. The engine is large: here it is compiled once for
//! each format, and not once more for each test.

use arch_sim::SimMemory;
use hosted::{AnyTable, Radix, any_table, for_each_backend};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{EntryFormat, Mmu, RadixTable, Roots};

/// What an engine for the format `F` works with: the arguments of [`RadixTable::new`].
pub struct EngineParts<'m, F> {
    /// The root table.
    pub root: Pfn,
    /// Other roots, where there are any.
    pub other_roots: Option<&'m dyn Roots>,
    /// Where tables come from.
    pub frames: &'m dyn FrameAllocator,
    /// What reaches tables.
    pub memory: &'m SimMemory,
    /// The CPUs that translate.
    pub mmu: &'m dyn Mmu<F>,
}

/// A backend whose tables the radix engine writes, with an engine for parts of any type.
pub trait WithEngine: Radix {
    /// An engine of `parts`.
    ///
    /// # Safety
    ///
    /// 1. The duties of [`RadixTable::new`]. Without other roots no other root copies entries of this one.
    unsafe fn engine<'m>(parts: EngineParts<'m, Self::Format>) -> AnyTable<'m>;
}

/// [`WithEngine`] for the lines of the list.
macro_rules! with_engine {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*]) => {
        $(with_engine! { $tables $Type })*
    };
    (flat $Type:ident) => {};
    (radix $Type:ident) => {
        impl WithEngine for hosted::$Type {
            unsafe fn engine<'m>(parts: EngineParts<'m, Self::Format>) -> AnyTable<'m> {
                // SAFETY: 1: the caller's duty is the same.
                unsafe { engine(parts) }
            }
        }
    };
}

for_each_backend! { [with_engine] }

/// See [`WithEngine::engine`].
///
/// # Safety
///
/// 1. The same.
unsafe fn engine<F: EntryFormat + 'static>(parts: EngineParts<'_, F>) -> AnyTable<'_> {
    let EngineParts {
        root,
        other_roots,
        frames,
        memory,
        mmu,
    } = parts;
    // SAFETY: 1 to 6: the caller's duty is the same.
    let table = unsafe { RadixTable::new(root, AnyRoots(other_roots), frames, memory, mmu) };
    any_table::<RadixTable<F, _, _, _, _>>(table)
}

/// Other roots, or none.
struct AnyRoots<'m>(Option<&'m dyn Roots>);

// SAFETY: 1 to 3 hold because they hold for those that there are.
unsafe impl Roots for AnyRoots<'_> {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        if let Some(roots) = self.0 {
            // SAFETY: 1: the caller's duty is the same.
            unsafe { roots.entry_installed(at) }
        }
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        if let Some(roots) = self.0 {
            // SAFETY: 1: the caller's duty is the same.
            unsafe { roots.entry_removed(at) }
        }
    }
}
