//! An OS brings its own descriptor, with an encoding of its own: one of 32 bytes whose tails are the
//! same for all compound pages of an order, and one of 64 bytes whose tails name their head.
//!
//! Nothing in the library knows either. Sizes follow from the model: with 32 bytes a vmemmap page of
//! 4 KiB describes 512 KiB, a leaf table 256 MiB, and 2 MiB have four vmemmap pages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod altmap;
mod costs;
mod encoding;
mod failing;
mod folding;
mod model;
mod pieces;
mod slim;
mod wide;

use hosted::testbed::{Reader, Setup, Testbed, on_model, pagemap};
use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Backend, BackendKind, Sim, X86_64, X86_64La57};
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;
use slim::Slim;
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
        match kind {
            BackendKind::Sim => self.model_on::<Sim>(),
            BackendKind::X86_64 => self.model_on::<X86_64>(),
            BackendKind::X86_64La57 => self.model_on::<X86_64La57>(),
            BackendKind::AArch64_4K => self.model_on::<AArch64_4K>(),
            BackendKind::AArch64_16K => self.model_on::<AArch64_16K>(),
            BackendKind::AArch64_64K => self.model_on::<AArch64_64K>(),
        }
    }

    fn model_on<B: Backend>(self) -> MemoryModel {
        match self {
            Self::Slim => slim::Model::<B>::MODEL,
            Self::Wide => B::MODEL,
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
        match kind {
            BackendKind::Sim => self.on::<Sim>(setup, test),
            BackendKind::X86_64 => self.on::<X86_64>(setup, test),
            BackendKind::X86_64La57 => self.on::<X86_64La57>(setup, test),
            BackendKind::AArch64_4K => self.on::<AArch64_4K>(setup, test),
            BackendKind::AArch64_16K => self.on::<AArch64_16K>(setup, test),
            BackendKind::AArch64_64K => self.on::<AArch64_64K>(setup, test),
        }
    }

    fn on<B: Reader>(self, setup: &Setup, test: &mut dyn FnMut(&mut dyn Testbed<'_>)) {
        match self {
            Self::Slim => on_model::<B, Slim>(self.model_on::<B>(), setup, test),
            Self::Wide => on_model::<B, Wide>(self.model_on::<B>(), setup, test),
        }
    }
}
