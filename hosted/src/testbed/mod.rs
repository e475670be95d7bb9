//! A vmemmap on a simulated machine, for tests: every backend behind one type, looked at from
//! outside at each step.
//!
//! ```text
//!   BackendKind::testbed(Setup, test) ──▶ machine, page table, vmemmap, altmaps
//!                                           │  as a `dyn Testbed`
//!                                           ▼
//!                                         test(bed) ──▶ nothing may be left of it
//! ```
//!
//! A test is plain code that takes a [`BackendKind`](crate::BackendKind); [`on_backends!`](crate::on_backends) makes a
//! `#[test]` of it for each backend.
//!
//! - [`Setup`] says what machine, [`Sizes`] which sizes mean the same on every granule;
//! - [`Testbed`] has the library's operations, and what a test needs besides: CPUs, neighbours,
//!   faults;
//! - [`audit`](trait.Testbed.html#method.audit) recounts with the library and without it, by a
//!   reader of bytes, and compares both with the stats;
//! - [`Snapshot`] is everything that a failure must leave as it was, and [`fail_each`] makes every
//!   allocation of a call fail;
//! - [`pagemap`] and [`SHARED_TAILS`] are what most tests ask for;
//! - [`Costs`] says by closed formulas what memory has to cost;
//! - [`TestDescriptor`] is what the bed needs of a descriptor; an OS's own will do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod altmap;
mod bed;
mod costs;
mod descriptor;
mod failures;
mod looking;
mod neighbour;
mod reader;
mod recount;
mod request;
mod setup;
mod sizes;
mod snapshot;

pub use altmap::TestAltmap;
pub use bed::{Testbed, on_model};
pub use costs::{Costs, Used};
pub use descriptor::{SeenDescriptor, TestDescriptor};
pub use failures::{Fails, Faults, Outcome, fail_each};
pub use neighbour::{Neighbour, Tenant};
pub use reader::{Reader, SeenEntry, SeenLeaf, SeenTable};
pub use request::{SHARED_TAILS, pagemap};
pub use setup::{Encoding, Setup};
pub use sizes::{Sizes, shuffled};
pub use snapshot::Snapshot;

/// A `#[test]` for each backend out of functions that take a
/// [`BackendKind`](crate::BackendKind), in a module with the function's name.
///
/// `all`: every backend; `radix`: those whose tables are the engine's; `pages_of_4k`: those with 4
/// KiB pages.
///
/// ```
/// fn online_costs_frames(kind: hosted::BackendKind) {
///     let _ = kind;
/// }
///
/// hosted::on_backends!(all: online_costs_frames);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_backends {
    (all: $($test:ident),* $(,)?) => {
        $crate::on_backends!(@each [
            sim Sim, x86_64 X86_64, x86_64_la57 X86_64La57, aarch64_4k AArch64_4K,
            aarch64_16k AArch64_16K, aarch64_64k AArch64_64K
        ] $($test)*);
    };
    (radix: $($test:ident),* $(,)?) => {
        $crate::on_backends!(@each [
            x86_64 X86_64, x86_64_la57 X86_64La57, aarch64_4k AArch64_4K,
            aarch64_16k AArch64_16K, aarch64_64k AArch64_64K
        ] $($test)*);
    };
    (pages_of_4k: $($test:ident),* $(,)?) => {
        $crate::on_backends!(@each [
            sim Sim, x86_64 X86_64, x86_64_la57 X86_64La57, aarch64_4k AArch64_4K
        ] $($test)*);
    };
    (@each $backends:tt $($test:ident)*) => {
        $($crate::on_backends!(@one $backends $test);)*
    };
    (@one [$($name:ident $kind:ident),*] $test:ident) => {
        mod $test {
            $(
                #[test]
                fn $name() {
                    super::$test($crate::BackendKind::$kind);
                }
            )*
        }
    };
}
