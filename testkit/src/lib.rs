//! Tools to test the library with, on every backend.
//!
//! - [`testbed`]: a vmemmap on any backend, for tests, looked at from outside at each step;
//! - [`script`]: operations at random, on tables, oracle and model side by side;
//! - [`churn`]: very many of them, on any backend;
//! - [`threads`]: threads as CPUs, for what happens at once;
//! - [`engine`]: the radix engine with parts that tests bring;
//! - [`HostedHarness`]: a machine for the conformance battery;
//! - [`on_backends!`]: a test for each backend, [`OnBackend`] and [`WithInspect`]: anything else
//!   for any of them.
#![deny(missing_docs)]

mod backend;
pub mod churn;
pub mod engine;
mod found;
mod harness;
mod listed;
pub mod machine;
mod mapped_together;
mod page_orders;
pub mod script;
pub mod testbed;
pub mod threads;

pub use backend::{OnBackend, WithInspect, WithRadix};
pub use harness::{
    FramesUnderTest, HostedAltmap, HostedControls, HostedHarness, MachineParts, TableUnderTest,
};
pub use machine::{TestMachine, TestTable};
