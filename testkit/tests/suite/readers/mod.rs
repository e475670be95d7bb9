//! Readers: what they find while memory comes online and goes offline.
//!
//! On all backends with tables, by threads as CPUs. A plain map is not shared by threads.

mod bed;
mod beside;
mod change;
mod changes_beside;
mod found;
mod freeze;
mod hammer;
mod model_check;
mod packed;
// It is private to the library, whose own tests are quick to build without a model checker.
#[path = "../../../../mm-core/src/readers/protocol/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the library uses the rest"
)]
mod protocol;
mod references;
mod refused;
mod reorder;
mod side_by_side;
