//! Compound-page vmemmap for kernels.
#![no_std]
#![deny(missing_docs)]

pub mod addr;
pub mod frame;
pub mod model;
pub mod paging;
