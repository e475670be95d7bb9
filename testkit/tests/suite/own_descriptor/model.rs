//! What a model refuses: most of it where the model is a constant, so that it does not compile.

use super::slim::Slim;
use super::wide::Wide;
use super::{Own, slim};
use hosted::{Backend, BackendKind, Machine, MachineConfig, X86_64};
use mm_core::addr::{Order, PfnRange, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::error::ErrorKind;
use mm_core::model::{MemoryModel, ModelConfig, ModelError};
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError};
use mm_core::vmemmap::{DescriptorMismatch, Vmemmap};

/// A constant: evaluated by the compiler, which would stop at the `panic`.
const SLIM: MemoryModel = slim::model(&X86_64::MODEL);

const _: () = assert!(SLIM.descriptor_bytes() == 32);
const _: () = assert!(SLIM.descriptors_per_page() == 128);

fn refused(change: impl FnOnce(&mut ModelConfig)) -> ModelError {
    let mut config = *SLIM.config();
    change(&mut config);
    MemoryModel::new(config).unwrap_err()
}

#[test]
fn a_descriptor_is_a_power_of_two_of_bytes() {
    for bytes in [0, 1, 4, 24, 48, 56, 96, 8192] {
        let error = refused(|config| config.descriptor_bytes = bytes);
        assert_eq!(error, ModelError::DescriptorSize { bytes });
        assert!(error.to_string().contains("power of two"), "{error}");
    }
}

#[test]
fn the_base_is_aligned_to_the_descriptors_of_the_largest_compound_page() {
    let base = SLIM.config().vmemmap_base.get();
    let align = 32 << SLIM.max_order().get();
    assert!(base.is_multiple_of(align));
    for off in [4096, align / 2] {
        let error = refused(|config| config.vmemmap_base = VirtAddr::new(base + off));
        assert_eq!(error, ModelError::Base { align });
        assert!(
            error.to_string().contains(&format!("{align:#x}")),
            "{error}"
        );
    }
    // Smaller compound pages ask for less, down to a page.
    for (order, align) in [(18u8, 32 << 18), (7, 4096), (0, 4096)] {
        let config = ModelConfig {
            vmemmap_base: VirtAddr::new(base + align),
            max_order: Order::new(order).unwrap(),
            ..*SLIM.config()
        };
        assert!(MemoryModel::new(config).is_ok());
        let config = ModelConfig {
            vmemmap_base: VirtAddr::new(base + align / 2),
            ..config
        };
        assert_eq!(MemoryModel::new(config), Err(ModelError::Base { align }));
    }
}

#[test]
fn the_largest_compound_page_has_descriptors_in_the_address_space() {
    let order = |order: u8| Order::new(order).unwrap();
    // 2^48 frames of 2^12 bytes of descriptors each are 2^60 bytes, and fit.
    for (bytes, largest) in [(4096, 48), (32, 48), (8, 48)] {
        let config = ModelConfig {
            descriptor_bytes: bytes,
            vmemmap_base: VirtAddr::new(0),
            frames: 1,
            section: order(48),
            subsection: order(48),
            max_order: order(largest),
            ..*SLIM.config()
        };
        assert!(MemoryModel::new(config).is_ok(), "{bytes}");
    }
    // With a model of 64K pages 2^48 descriptors of 64 KiB do not.
    let config = ModelConfig {
        granule: mm_core::addr::Granule::Size64K,
        descriptor_bytes: 1 << 16,
        vmemmap_base: VirtAddr::new(0),
        max_order: order(48),
        ..*SLIM.config()
    };
    let expected = ModelError::MaxOrder { order: order(48) };
    assert_eq!(MemoryModel::new(config), Err(expected));
}

#[test]
fn a_subsection_is_whole_vmemmap_pages_and_no_more_than_a_section() {
    let order = |order: u8| Order::new(order).unwrap();
    let error = refused(|config| config.subsection = order(6));
    let expected = ModelError::Subsection {
        min: order(7),
        max: SLIM.section(),
    };
    assert_eq!(error, expected);
    let error = refused(|config| config.subsection = order(SLIM.section().get() + 1));
    assert_eq!(error, expected);
    assert!(
        MemoryModel::new(ModelConfig {
            subsection: order(7),
            ..*SLIM.config()
        })
        .is_ok()
    );
}

#[test]
fn the_descriptors_end_below_the_top_of_the_address_space() {
    for frames in [0, u64::MAX, 1 << 60] {
        let error = refused(|config| config.frames = frames);
        assert_eq!(error, ModelError::Frames { frames });
    }
    let base = SLIM.config().vmemmap_base.get();
    let fit = base.wrapping_neg() / 32;
    assert!(
        MemoryModel::new(ModelConfig {
            frames: fit,
            ..*SLIM.config()
        })
        .is_ok()
    );
    let frames = fit + 1;
    let error = refused(|config| config.frames = frames);
    assert_eq!(error, ModelError::Frames { frames });
}

/// By PFN: a compound page of a pagemap is a multiple of its size, whatever the range.
#[test]
fn compound_pages_are_aligned_by_their_frame_number() {
    let natural = Order::new(9).unwrap();
    let off = PfnRange::new(mm_core::addr::Pfn::new(512 * 5 + 128).unwrap(), 1024).unwrap();
    let ranges = [off];
    let refused = DevPagemap::new(&SLIM, &ranges, Geometry::compound(natural)).map(drop);
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, PagemapError::Misaligned { .. }),
        "{refused}"
    );
    assert_eq!(refused.kind(), ErrorKind::Misaligned);
}

#[test]
fn a_descriptor_of_another_size_than_the_models_is_refused() {
    type Machine64 = Machine<X86_64>;
    let machine = Machine64::new(&MachineConfig {
        ram_frames: 64,
        ..MachineConfig::default()
    })
    .unwrap();
    let (frames, memory) = (machine.frames(), machine.memory());
    // SAFETY: 1 to 3: there is no vmemmap where it is refused.
    let slim = unsafe { Vmemmap::<Slim, _, _>::new(X86_64::MODEL, frames, memory) };
    let expected = DescriptorMismatch {
        model: 64,
        descriptor: 32,
    };
    let error = slim.map(drop).unwrap_err();
    assert_eq!(error, expected);
    assert!(error.to_string().contains("64") && error.to_string().contains("32"));
    // SAFETY: as above.
    let wide = unsafe { Vmemmap::<Wide, _, _>::new(SLIM, frames, memory) };
    assert!(wide.is_err());
    // SAFETY: as above.
    let page = unsafe { Vmemmap::<Page<Mask>, _, _>::new(SLIM, frames, memory) };
    assert!(page.is_err());
}

/// A pagemap of one model does not do for a vmemmap of another.
#[test]
fn a_pagemap_of_another_model_is_refused() {
    use mm_core::vmemmap::{FoldError, OfflineError, OnlineError};
    use testkit::testbed::{Setup, Sizes};
    let kind = BackendKind::X86_64;
    let sizes = Sizes::of(SLIM);
    let ranges = [sizes.blocks(sizes.natural(), 6, 2)];
    Own::Slim.testbed(kind, &Setup::new(&ranges), |bed| {
        let before = bed.snapshot();
        let geometry = Geometry::compound(sizes.natural());
        let other = DevPagemap::new(&X86_64::MODEL, &ranges, geometry).unwrap();
        let frames = ranges[0];
        assert_eq!(bed.online(&other).map(drop), Err(OnlineError::OtherModel));
        assert_eq!(bed.populate(&other, frames), Err(OnlineError::OtherModel));
        assert_eq!(
            bed.depopulate(&other, frames),
            Err(OfflineError::OtherModel)
        );
        assert_eq!(bed.fold(&other, frames), Err(FoldError::OtherModel));
        assert_eq!(bed.unfold(&other, frames), Err(FoldError::OtherModel));
        bed.assert_unchanged(&before, "refused");
    });
}
