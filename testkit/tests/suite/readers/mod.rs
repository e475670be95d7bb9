//! Readers: what they find while memory comes online and goes offline.
//!
//! On all backends with tables, by threads as CPUs. A plain map is not shared by threads.

mod bed;
mod beside;
mod change;
mod changes_beside;
mod found;
mod freeze;
mod references;
