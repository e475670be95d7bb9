//! The memory model: how large things are and where descriptors lie.
//!
//! ```text
//!   physical memory    | section          | section          | ...      frames, by PFN
//!                      | sub | sub | ...
//!   vmemmap            |d d d d d d d d d d d d d d d d ...              descriptors, by PFN
//!                      ^ base             one vmemmap page holds page size / descriptor size of them
//! ```
//!
//! `descriptor(pfn) = base + (pfn << descriptor_shift)`, a shift and an add in both directions.
//!
//! A model can have a second array, for [packed heads](MemoryModel::with_heads).

mod packed_heads;
mod whole_subsections;

pub use whole_subsections::WholeSubsections;

use crate::addr::{Granule, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use core::fmt;

/// What a [`MemoryModel`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The size of a base page.
    pub granule: Granule,
    /// The bytes of a descriptor: a power of two, from 8 to the page size.
    pub descriptor_bytes: u64,
    /// The address of the descriptor of frame 0.
    pub vmemmap_base: VirtAddr,
    /// How many frames the vmemmap has room for, counted from frame 0.
    pub frames: u64,
    /// The unit in which memory is normally brought online.
    pub section: Order,
    /// The smallest unit in which memory can be brought online.
    pub subsection: Order,
    /// The largest compound page.
    pub max_order: Order,
}

/// Why a [`ModelConfig`] is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelError {
    /// The size of a descriptor is not a power of two between 8 bytes and a page.
    DescriptorSize {
        /// The size, in bytes.
        bytes: u64,
    },
    /// A subsection is smaller than what one vmemmap page describes, or larger than a section.
    Subsection {
        /// The smallest order possible.
        min: Order,
        /// The largest: that of a section.
        max: Order,
    },
    /// There are no frames, or more than can be named or than fit above the base.
    Frames {
        /// How many.
        frames: u64,
    },
    /// The base is not aligned to the descriptors of the largest compound page, or to a page.
    Base {
        /// The bytes that it must be a multiple of.
        align: u64,
    },
    /// The largest compound page is larger than can be named.
    MaxOrder {
        /// Its order.
        order: Order,
    },
    /// The array of packed heads does not start with a page.
    HeadsBase {
        /// The bytes that its base must be a multiple of.
        align: u64,
    },
    /// The array of packed heads runs into the vmemmap, or beyond the last address.
    HeadsPlace {
        /// How large it is.
        bytes: u64,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DescriptorSize { bytes } => write!(
                f,
                "a descriptor of {bytes} bytes; use a power of two from 8 to the page size"
            ),
            Self::Subsection { min, max } => write!(
                f,
                "the subsection's order must be from {min} (what one vmemmap page describes) to {max} (a section)"
            ),
            Self::Frames { frames } => write!(
                f,
                "room for {frames} frames; there must be at least one, and their descriptors must end below the top of the address space"
            ),
            Self::Base { align } => {
                write!(f, "the vmemmap's base must be a multiple of {align:#x}")
            }
            Self::MaxOrder { order } => write!(
                f,
                "the descriptors of a compound page of order {order} do not fit the address space"
            ),
            Self::HeadsBase { align } => write!(
                f,
                "the base of packed heads must be a multiple of {align:#x}"
            ),
            Self::HeadsPlace { bytes } => write!(
                f,
                "packed heads take {bytes:#x} bytes; give them a base from which so many are in the address space and not the vmemmap's"
            ),
        }
    }
}

impl core::error::Error for ModelError {}

/// Page, section, subsection and descriptor sizes, and the place of the vmemmap.
///
/// Made once, from constants, by the kernel or taken from an architecture's crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryModel {
    config: ModelConfig,
    descriptor_shift: u32,
    /// The bytes of descriptors of all frames, rounded up to a power of two. Nothing is left of it where that is all
    /// addresses: there is no place for packed heads then.
    // The frames themselves are counted again where that is not hot: models are copied to stacks.
    room_bytes: u64,
    /// Where packed heads are.
    heads: Option<VirtRange>,
}

impl MemoryModel {
    /// The model of `config`.
    ///
    /// Where its parts are constants, so is the model, and one that cannot be is found by the
    /// compiler:
    ///
    /// ```
    /// # use mm_core::addr::{Granule, Order, VirtAddr};
    /// # use mm_core::model::{MemoryModel, ModelConfig};
    /// const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
    ///     granule: Granule::Size4K,
    ///     descriptor_bytes: 32,
    ///     vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
    ///     frames: 1 << 34,
    ///     section: Order::new(15).unwrap(),
    ///     subsection: Order::new(9).unwrap(),
    ///     max_order: Order::new(18).unwrap(),
    /// }) {
    ///     Ok(model) => model,
    ///     Err(_) => panic!("sizes and base do not fit each other"),
    /// };
    /// # assert_eq!(MODEL.descriptors_per_page(), 128);
    /// ```
    ///
    /// With descriptors of 48 bytes, or a base that is not aligned to those of the largest compound
    /// page, it does not compile:
    ///
    /// ```compile_fail,E0080
    /// # use mm_core::addr::{Granule, Order, VirtAddr};
    /// # use mm_core::model::{MemoryModel, ModelConfig};
    /// const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
    ///     granule: Granule::Size4K,
    ///     descriptor_bytes: 48,
    /// #   vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
    /// #   frames: 1 << 34,
    /// #   section: Order::new(15).unwrap(),
    /// #   subsection: Order::new(9).unwrap(),
    /// #   max_order: Order::new(18).unwrap(),
    ///     // ...
    /// }) {
    ///     Ok(model) => model,
    ///     Err(_) => panic!("sizes and base do not fit each other"),
    /// };
    /// # assert_eq!(MODEL.descriptors_per_page(), 128);
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use mm_core::addr::{Granule, Order, VirtAddr};
    /// # use mm_core::model::{MemoryModel, ModelConfig};
    /// const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
    /// #   granule: Granule::Size4K,
    /// #   descriptor_bytes: 32,
    ///     vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000 + (4 << 20)),
    /// #   frames: 1 << 34,
    /// #   section: Order::new(15).unwrap(),
    /// #   subsection: Order::new(9).unwrap(),
    ///     max_order: Order::new(18).unwrap(),
    ///     // ...
    /// }) {
    ///     Ok(model) => model,
    ///     Err(_) => panic!("sizes and base do not fit each other"),
    /// };
    /// # assert_eq!(MODEL.descriptors_per_page(), 128);
    /// ```
    ///
    /// # Errors
    ///
    /// A [`ModelError`] that names what does not fit.
    pub const fn new(config: ModelConfig) -> Result<Self, ModelError> {
        let ModelConfig {
            granule,
            descriptor_bytes: bytes,
            vmemmap_base: base,
            frames,
            section,
            subsection,
            max_order,
        } = config;
        if !bytes.is_power_of_two() || bytes < 8 || bytes > granule.bytes() {
            return Err(ModelError::DescriptorSize { bytes });
        }
        let descriptor_shift = bytes.trailing_zeros();
        let page_order = (granule.shift() - descriptor_shift) as u8;
        if subsection.get() < page_order || subsection.get() > section.get() {
            return Err(ModelError::Subsection {
                min: match Order::new(page_order) {
                    Some(order) => order,
                    None => Order::MAX,
                },
                max: section,
            });
        }
        if max_order.get() as u32 + descriptor_shift >= 63 {
            return Err(ModelError::MaxOrder { order: max_order });
        }
        let array = max_order.frames() << descriptor_shift;
        let align = if array > granule.bytes() {
            array
        } else {
            granule.bytes()
        };
        if !base.is_aligned(align) {
            return Err(ModelError::Base { align });
        }
        let fits = frames != 0
            && frames - 1 <= Pfn::MAX.get()
            && frames <= u64::MAX >> descriptor_shift
            && base.checked_add((frames << descriptor_shift) - 1).is_some();
        if !fits {
            return Err(ModelError::Frames { frames });
        }
        Ok(Self {
            config,
            descriptor_shift,
            // No larger than the first power of two above all frame numbers.
            room_bytes: frames.next_power_of_two() << descriptor_shift,
            heads: None,
        })
    }

    /// The same model with the vmemmap at `vmemmap_base`: for a kernel whose map of addresses differs from
    /// that of the architecture's crate, or is chosen when it starts (KASLR). Packed heads stay where they
    /// are; [`with_heads`](Self::with_heads) moves them.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new): [`ModelError::Base`] or [`ModelError::Frames`]; and
    /// [`ModelError::HeadsPlace`] where the vmemmap would run into the packed heads.
    pub const fn at(self, vmemmap_base: VirtAddr) -> Result<Self, ModelError> {
        let moved = Self::new(ModelConfig {
            vmemmap_base,
            ..self.config
        });
        match (moved, self.heads) {
            (Ok(moved), Some(heads)) => moved.with_heads(heads.start()),
            (moved, _) => moved,
        }
    }

    /// What the model was made of.
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The size of a base page.
    pub const fn granule(&self) -> Granule {
        self.config.granule
    }

    /// The unit in which memory is normally brought online.
    pub const fn section(&self) -> Order {
        self.config.section
    }

    /// The smallest unit in which memory can be brought online.
    pub const fn subsection(&self) -> Order {
        self.config.subsection
    }

    /// The largest compound page.
    pub const fn max_order(&self) -> Order {
        self.config.max_order
    }

    /// The bytes of a descriptor.
    pub const fn descriptor_bytes(&self) -> u64 {
        1 << self.descriptor_shift
    }

    /// The order of the memory that one vmemmap page describes.
    pub const fn vmemmap_page_order(&self) -> Order {
        match Order::new((self.config.granule.shift() - self.descriptor_shift) as u8) {
            Some(order) => order,
            None => Order::BASE,
        }
    }

    /// How many descriptors a vmemmap page holds.
    pub const fn descriptors_per_page(&self) -> u64 {
        self.vmemmap_page_order().frames()
    }

    /// How many vmemmap pages hold the descriptors of a compound page of `order`; at least 1.
    pub const fn vmemmap_pages(&self, order: Order) -> u64 {
        order.frames().div_ceil(self.vmemmap_page_order().frames())
    }

    /// Every frame that has room in the vmemmap.
    pub const fn all_frames(&self) -> PfnRange {
        match PfnRange::new(Pfn::ZERO, self.config.frames) {
            Ok(range) => range,
            // `new` has refused such a number.
            Err(_) => PfnRange::single(Pfn::ZERO),
        }
    }

    /// Where the descriptor of `frame` lies; `None` where the vmemmap has no room for it.
    pub const fn descriptor_address(&self, frame: Pfn) -> Option<VirtAddr> {
        if frame.get() < self.config.frames {
            let offset = frame.get() << self.descriptor_shift;
            self.config.vmemmap_base.checked_add(offset)
        } else {
            None
        }
    }

    /// Whose descriptor lies at `at`, or includes it; `None` outside the vmemmap.
    pub const fn frame_of_descriptor(&self, at: VirtAddr) -> Option<Pfn> {
        match at.get().checked_sub(self.config.vmemmap_base.get()) {
            Some(offset) if offset >> self.descriptor_shift < self.config.frames => {
                Pfn::new(offset >> self.descriptor_shift)
            }
            _ => None,
        }
    }

    /// The addresses of the descriptors of `frames`; `None` where the vmemmap has no room for all
    /// of them.
    pub const fn descriptors(&self, frames: PfnRange) -> Option<VirtRange> {
        self.span_of(
            self.descriptor_address(frames.start()),
            self.descriptor_address(frames.last()),
        )
    }

    /// From the start of the descriptor at `first` to the end of the one at `last`; `None` where there is none, or
    /// the last is below the first.
    const fn span_of(&self, first: Option<VirtAddr>, last: Option<VirtAddr>) -> Option<VirtRange> {
        match (first, last) {
            (Some(first), Some(last)) if first.get() <= last.get() => {
                match last.checked_add(self.descriptor_bytes() - 1) {
                    Some(end) => VirtRange::between(first, end),
                    None => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ModelConfig = ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
        frames: 1 << 34,
        section: Order::new(15).unwrap(),
        subsection: Order::new(9).unwrap(),
        max_order: Order::new(18).unwrap(),
    };

    #[test]
    fn a_model_can_be_elsewhere_if_it_fits_there() {
        let model = MemoryModel::new(CONFIG).unwrap();
        let base = VirtAddr::new(0xffff_9200_0000_0000);
        let moved = model.at(base).unwrap();
        assert_eq!(moved.descriptor_address(Pfn::ZERO), Some(base));
        assert_eq!(moved.at(CONFIG.vmemmap_base), Ok(model));
        let align = 64 << 18;
        let between = VirtAddr::new(base.get() + align / 2);
        assert_eq!(model.at(between), Err(ModelError::Base { align }));
        let high = VirtAddr::new(0u64.wrapping_sub(1 << 39));
        let frames = 1 << 34;
        assert_eq!(model.at(high), Err(ModelError::Frames { frames }));
    }

    #[test]
    fn descriptors_and_frames_are_one_to_one_at_both_ends() {
        let model = MemoryModel::new(CONFIG).unwrap();
        let last = Pfn::new((1 << 34) - 1).unwrap();
        for frame in [Pfn::ZERO, last] {
            let at = model.descriptor_address(frame).unwrap();
            assert_eq!(model.frame_of_descriptor(at), Some(frame));
            assert_eq!(
                model.frame_of_descriptor(at.checked_add(63).unwrap()),
                Some(frame)
            );
        }
        assert_eq!(
            model.descriptor_address(last),
            Some(VirtAddr::new(0xffff_eaff_ffff_ffc0))
        );
        assert_eq!(model.descriptor_address(last.checked_add(1).unwrap()), None);
        assert_eq!(
            model.frame_of_descriptor(VirtAddr::new(0xffff_eb00_0000_0000)),
            None
        );
        assert_eq!(
            model.frame_of_descriptor(VirtAddr::new(0xffff_e9ff_ffff_ffff)),
            None
        );
    }

    #[test]
    fn a_vmemmap_may_end_with_the_last_address() {
        let config = ModelConfig {
            vmemmap_base: VirtAddr::new(0xffff_ff00_0000_0000),
            ..CONFIG
        };
        let model = MemoryModel::new(config).unwrap();
        let range = model.descriptors(model.all_frames()).unwrap();
        assert_eq!(range.last(), VirtAddr::new(u64::MAX));
        let config = ModelConfig {
            frames: CONFIG.frames + 1,
            ..config
        };
        assert_eq!(
            MemoryModel::new(config),
            Err(ModelError::Frames {
                frames: CONFIG.frames + 1
            })
        );
    }

    #[test]
    fn sizes_are_those_of_the_linux_model() {
        let model = MemoryModel::new(CONFIG).unwrap();
        assert_eq!(model.descriptors_per_page(), 64);
        assert_eq!(model.vmemmap_pages(model.subsection()), 8);
        assert_eq!(model.vmemmap_pages(model.section()), 512);
        assert_eq!(model.vmemmap_pages(Order::new(18).unwrap()), 4096);
        assert_eq!(model.vmemmap_pages(Order::BASE), 1);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let order = |order| Order::new(order).unwrap();
        let cases = [
            (
                ModelConfig {
                    descriptor_bytes: 56,
                    ..CONFIG
                },
                ModelError::DescriptorSize { bytes: 56 },
            ),
            (
                ModelConfig {
                    descriptor_bytes: 8192,
                    ..CONFIG
                },
                ModelError::DescriptorSize { bytes: 8192 },
            ),
            (
                ModelConfig {
                    subsection: order(5),
                    ..CONFIG
                },
                ModelError::Subsection {
                    min: order(6),
                    max: order(15),
                },
            ),
            (
                ModelConfig {
                    frames: 0,
                    ..CONFIG
                },
                ModelError::Frames { frames: 0 },
            ),
            (
                ModelConfig {
                    vmemmap_base: VirtAddr::new(0xffff_ea00_0010_0000),
                    ..CONFIG
                },
                ModelError::Base { align: 1 << 24 },
            ),
        ];
        for (config, error) in cases {
            assert_eq!(MemoryModel::new(config), Err(error));
        }
    }
}
