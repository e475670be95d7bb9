//! What there is to measure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An enumeration whose values are written as given.
macro_rules! named {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $text)] $value,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

named! {
    /// Who writes entries.
    Contender {
        /// This library's engine.
        MmCore = "mm-core",
        /// Stores by hand, for these addresses alone.
        StoreLoop = "store-loop",
        /// `map_to` and `unmap` of `x86_64`.
        X86_64 = "x86_64",
        /// `map_region` and `unmap` of `page_table_multiarch`.
        Multiarch = "page_table_multiarch",
        /// `map_region` and `unmap_page` of `page-table-generic`.
        Generic = "page-table-generic",
        /// `map_range`, `modify_range` and `walk_range` of `aarch64-paging`.
        Aarch64Paging = "aarch64-paging",
    }
}

named! {
    /// Which frames the entries point at.
    Case {
        /// Frames that follow each other.
        A = "A",
        /// Groups of 4096 entries: a frame of its own for the first, one for all others.
        B = "B",
        /// The same in groups of 8.
        C = "C",
    }
}

impl Case {
    /// In words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::A => "distinct frames",
            Self::B => "1 GiB groups",
            Self::C => "2 MiB groups",
        }
    }
}

named! {
    /// What is done with entries.
    Op {
        /// Written.
        Map = "map",
        /// Cleared, with each frame read.
        Unmap = "unmap",
    }
}

named! {
    /// What memory is used in.
    Pages {
        /// Base pages.
        Size4K = "4K",
        /// Compound pages of 2 MiB.
        Size2M = "2M",
        /// Compound pages of 1 GiB.
        Size1G = "1G",
    }
}

impl Pages {
    /// Their size.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

named! {
    /// What the tails of compound pages share.
    Tails {
        /// Nothing.
        None = "none",
        /// A frame for each compound page.
        PerCompound = "per-compound",
        /// A frame for all compound pages of a size.
        PerOrder = "per-order",
    }
}

named! {
    /// Whether leaf tables that are all tails are shared.
    Tables {
        /// They are not.
        Private = "private",
        /// They are.
        Shared = "shared",
    }
}

named! {
    /// Which frames the allocator hands out.
    Frames {
        /// The next ones, runs and blocks of them where asked for.
        InOrder = "in-order",
        /// Some, one at a time: no two of them lie side by side.
        Shuffled = "shuffled",
    }
}

named! {
    /// How much comes online at a time.
    Piece {
        /// 128 MiB.
        Section = "section",
        /// All of it.
        Range = "range",
    }
}

named! {
    /// A whole operation.
    Change {
        /// Memory comes online.
        Online = "online",
        /// Memory goes offline.
        Offline = "offline",
        /// Base pages become compound pages.
        Fold = "fold",
        /// And base pages again.
        Unfold = "unfold",
        /// Pages of 1 GiB become pages of this size.
        Split = "split",
        /// And pages of 1 GiB again.
        Merge = "merge",
    }
}

/// What is brought online where instructions are counted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// What the memory is used in.
    pub case: Pages,
    /// What tails share.
    pub tails: Tails,
    /// Whether tables are shared.
    pub tables: Tables,
    /// How much comes online at a time.
    pub piece: Piece,
}

impl Counted {
    /// The cases of the design's table, in its order.
    pub const ALL: &[Self] = &[
        Self::of(
            Pages::Size1G,
            Tails::PerOrder,
            Tables::Shared,
            Piece::Section,
        ),
        Self::of(Pages::Size1G, Tails::PerOrder, Tables::Shared, Piece::Range),
        Self::of(
            Pages::Size1G,
            Tails::PerCompound,
            Tables::Private,
            Piece::Section,
        ),
        Self::of(
            Pages::Size2M,
            Tails::PerOrder,
            Tables::Private,
            Piece::Section,
        ),
        Self::of(
            Pages::Size2M,
            Tails::PerCompound,
            Tables::Private,
            Piece::Section,
        ),
        Self::of(Pages::Size4K, Tails::None, Tables::Private, Piece::Section),
    ];

    const fn of(case: Pages, tails: Tails, tables: Tables, piece: Piece) -> Self {
        Self {
            case,
            tails,
            tables,
            piece,
        }
    }

    /// The two sizes, in GiB, whose difference is counted by the GiB.
    pub const fn sizes(&self) -> [u64; 2] {
        match self.case {
            Pages::Size1G => [256, 512],
            Pages::Size2M => [16, 32],
            Pages::Size4K => [4, 8],
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.case)?;
        if self.tails != Tails::None {
            write!(f, " {}", self.tails)?;
        }
        if self.tables == Tables::Shared {
            write!(f, ", shared tables")?;
        }
        match (self.case, self.piece) {
            (Pages::Size1G, Piece::Range) => write!(f, ", one piece"),
            _ => Ok(()),
        }
    }
}
