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
//! A test is plain code that takes a [`BackendKind`](hosted::BackendKind);
//! [`on_backends!`](crate::on_backends) makes a `#[test]` of it for each backend.
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
mod assertions;
mod bed;
mod costs;
mod descriptor;
mod failures;
mod neighbour;
mod recount;
mod request;
mod setup;
mod sizes;
mod snapshot;
mod stats;

pub use altmap::TestAltmap;
pub use bed::{Testbed, on_model, on_testbed};
pub use costs::{Costs, Used};
pub use descriptor::{SeenDescriptor, TestDescriptor};
pub use failures::{Fails, Faults, Outcome, fail_each};
pub use neighbour::{Neighbour, OnlineNeighbour};
pub use request::{SHARED_TAILS, pagemap};
pub use setup::{Encoding, Setup};
pub use sizes::{Sizes, shuffled};
pub use snapshot::Snapshot;
pub use stats::Stats;
