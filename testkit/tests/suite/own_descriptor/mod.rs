//! An OS brings its own descriptor, with an encoding of its own: one of 32 bytes whose tails are the
//! same for all compound pages of an order, and one of 64 bytes whose tails name their head.
//!
//! Nothing in the library knows either. Sizes follow from the model: with 32 bytes a vmemmap page of
//! 4 KiB describes 512 KiB, a leaf table 256 MiB, and 2 MiB have four vmemmap pages.

mod altmap;
mod costs;
mod encoding;
mod failing;
mod folding;
mod model;
mod pieces;
mod slim;
mod wide;

use hosted::BackendKind;
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;
use slim::Slim;
use testkit::testbed::{Setup, Testbed, on_model, pagemap};
use wide::Wide;

/// A descriptor of an OS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// 32 bytes, tails alike.
    Slim,
    /// 64 bytes, tails that name their head.
    Wide,
}

const OWN: [Own; 2] = [Own::Slim, Own::Wide];

impl Own {
    /// Where these descriptors lie on a backend.
    fn model(self, kind: BackendKind) -> MemoryModel {
        match self {
            Self::Slim => slim::model(&kind.model()),
            Self::Wide => kind.model(),
        }
    }

    /// How tails can be shared.
    fn tails(self) -> &'static [Tails] {
        match self {
            Self::Slim => &[Tails::PerCompound, Tails::PerOrder],
            Self::Wide => &[Tails::PerCompound],
        }
    }

    /// Makes the machine of `setup` with these descriptors and hands it to `test`.
    fn testbed(self, kind: BackendKind, setup: &Setup, test: impl FnOnce(&mut dyn Testbed<'_>)) {
        let mut test = Some(test);
        let test: &mut dyn FnMut(&mut dyn Testbed<'_>) = &mut |bed| {
            if let Some(test) = test.take() {
                test(bed);
            }
        };
        match self {
            Self::Slim => on_model::<Slim>(kind, self.model(kind), setup, test),
            Self::Wide => on_model::<Wide>(kind, self.model(kind), setup, test),
        }
    }
}
