//! Choosing a backend at run time.

use crate::{Backend, for_each_backend};
use mm_core::addr::{Granule, Order};
use mm_core::model::MemoryModel;

/// Something to do with a backend that is chosen at run time.
pub trait WithBackend {
    /// What comes of it.
    type Output;

    /// Does it with `B`.
    fn with<B: Backend>(self) -> Self::Output;
}

/// A backend's name. The list has the same; otherwise this does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// [`Sim`](crate::Sim).
    Sim,
    /// [`X86_64`](crate::X86_64).
    X86_64,
    /// [`X86_64La57`](crate::X86_64La57).
    X86_64La57,
    /// [`AArch64_4K`](crate::AArch64_4K).
    AArch64_4K,
    /// [`AArch64_16K`](crate::AArch64_16K).
    AArch64_16K,
    /// [`AArch64_64K`](crate::AArch64_64K).
    AArch64_64K,
    /// [`RiscV64Sv39`](crate::RiscV64Sv39).
    RiscV64Sv39,
    /// [`RiscV64Sv48`](crate::RiscV64Sv48).
    RiscV64Sv48,
    /// [`RiscV64Sv57`](crate::RiscV64Sv57).
    RiscV64Sv57,
}

/// What goes through the lines of the list.
macro_rules! listed {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*]) => {
        const LISTED: [BackendKind; [$(stringify!($name)),*].len()] = [$(BackendKind::$Type),*];

        fn run<J: WithBackend>(kind: BackendKind, job: J) -> J::Output {
            match kind {
                $(BackendKind::$Type => job.with::<crate::$Type>(),)*
            }
        }

        // What the list says of each backend is so.
        $(
            const _: () = assert!(
                <crate::$Type as Backend>::HAS_TABLES == has_tables!($tables),
                "a backend is on the list as `flat` and has tables, or as `radix` and has none"
            );
            const _: () = assert!(
                <crate::$Type as Backend>::MODEL.granule().bytes() == page_bytes!($pages),
                "a backend is on the list with another page size than its model's"
            );
        )*
    };
}

macro_rules! has_tables {
    (flat) => {
        false
    };
    (radix) => {
        true
    };
}

macro_rules! page_bytes {
    (pages_of_4k) => {
        Granule::Size4K.bytes()
    };
    (pages_of_16k) => {
        Granule::Size16K.bytes()
    };
    (pages_of_64k) => {
        Granule::Size64K.bytes()
    };
}

for_each_backend! { [listed] }

/// What a backend says of itself.
#[derive(Clone, Copy, Debug)]
pub struct BackendFacts {
    /// See [`Backend::NAME`].
    pub name: &'static str,
    /// See [`Backend::ABOUT`].
    pub about: &'static str,
    /// See [`Backend::MODEL`].
    pub model: MemoryModel,
    /// See [`Backend::TABLE_LEVELS`].
    pub table_levels: u32,
    /// See [`Backend::HAS_TABLES`].
    pub has_tables: bool,
    /// See [`Backend::HUGE_LEAF`].
    pub huge_leaf: Option<Order>,
    /// See [`Backend::SHARES_TABLES`].
    pub shares_tables: bool,
}

impl BackendFacts {
    /// What `B` says.
    pub fn of<B: Backend>() -> Self {
        Self {
            name: B::NAME,
            about: B::ABOUT,
            model: B::MODEL,
            table_levels: B::TABLE_LEVELS,
            has_tables: B::HAS_TABLES,
            huge_leaf: B::HUGE_LEAF,
            shares_tables: B::SHARES_TABLES,
        }
    }
}

struct AllFacts;

impl WithBackend for AllFacts {
    type Output = BackendFacts;

    fn with<B: Backend>(self) -> BackendFacts {
        BackendFacts::of::<B>()
    }
}

impl BackendKind {
    /// All of them, in the list's order.
    pub const ALL: [Self; 9] = LISTED;

    /// Does `job` with the backend.
    pub fn run<J: WithBackend>(self, job: J) -> J::Output {
        run(self, job)
    }

    /// What the backend says of itself.
    pub fn facts(self) -> BackendFacts {
        self.run(AllFacts)
    }

    /// See [`Backend::NAME`].
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// See [`Backend::ABOUT`].
    pub fn about(self) -> &'static str {
        self.facts().about
    }

    /// See [`Backend::MODEL`].
    pub fn model(self) -> MemoryModel {
        self.facts().model
    }

    /// See [`Backend::TABLE_LEVELS`].
    pub fn table_levels(self) -> u32 {
        self.facts().table_levels
    }

    /// See [`Backend::HAS_TABLES`].
    pub fn has_tables(self) -> bool {
        self.facts().has_tables
    }
}
