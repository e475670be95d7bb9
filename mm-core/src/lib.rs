//! Compound-page vmemmap for kernels.
#![no_std]
#![deny(missing_docs)]

pub mod addr;
pub mod descriptor;
pub mod error;
pub mod frame;
pub mod model;
pub mod pagemap;
pub mod paging;
pub mod vmemmap;
