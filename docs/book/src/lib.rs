//! The book. Each chapter is a file of its own beside this crate; its examples are compiled here.
#![doc(test(attr(deny(warnings), allow(dead_code))))]

#[doc = include_str!("../embedding.md")]
pub mod embedding {}

#[doc = include_str!("../boot.md")]
pub mod boot {}

#[doc = include_str!("../readers.md")]
pub mod readers {}

#[doc = include_str!("../reorder.md")]
pub mod reorder {}

#[doc = include_str!("../dumps.md")]
pub mod dumps {}

#[doc = include_str!("../errors.md")]
pub mod errors {}

#[doc = include_str!("../descriptor.md")]
pub mod descriptor {}

#[doc = include_str!("../page-table.md")]
pub mod page_table {}

#[doc = include_str!("../architecture.md")]
pub mod architecture {}

#[doc = include_str!("../policies.md")]
pub mod policies {}

#[doc = include_str!("../packed-heads.md")]
pub mod packed_heads {}
