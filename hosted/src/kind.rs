//! Choosing a backend at run time.

use crate::{Backend, for_each_backend};
use mm_core::addr::Granule;
use mm_core::model::MemoryModel;

/// Something to do with a backend that is chosen at run time.
pub trait WithBackend {
    /// What comes of it.
    type Output;

    /// Does it with `B`.
    fn with<B: Backend>(self) -> Self::Output;
}

/// [`BackendKind`] out of the lines of the list.
macro_rules! backend_kind {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*]) => {
        /// A backend's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum BackendKind {
            $(
                #[doc = concat!("[`", stringify!($Type), "`](crate::", stringify!($Type), ").")]
                $Type,
            )*
        }

        impl BackendKind {
            /// All of them.
            pub const ALL: [Self; [$(stringify!($name)),*].len()] = [$(Self::$Type),*];

            /// Does `job` with the backend.
            pub fn run<J: WithBackend>(self, job: J) -> J::Output {
                match self {
                    $(Self::$Type => job.with::<crate::$Type>(),)*
                }
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

for_each_backend! { [backend_kind] }

/// What a backend says of itself.
struct Facts {
    name: &'static str,
    about: &'static str,
    model: MemoryModel,
    table_levels: u32,
}

struct AllFacts;

impl WithBackend for AllFacts {
    type Output = Facts;

    fn with<B: Backend>(self) -> Facts {
        Facts {
            name: B::NAME,
            about: B::ABOUT,
            model: B::MODEL,
            table_levels: B::TABLE_LEVELS,
        }
    }
}

impl BackendKind {
    /// See [`Backend::NAME`].
    pub fn name(self) -> &'static str {
        self.run(AllFacts).name
    }

    /// See [`Backend::ABOUT`].
    pub fn about(self) -> &'static str {
        self.run(AllFacts).about
    }

    /// See [`Backend::MODEL`].
    pub fn model(self) -> MemoryModel {
        self.run(AllFacts).model
    }

    /// See [`Backend::TABLE_LEVELS`].
    pub fn table_levels(self) -> u32 {
        self.run(AllFacts).table_levels
    }

    /// See [`Backend::HAS_TABLES`].
    pub fn has_tables(self) -> bool {
        self.table_levels() > 0
    }
}
