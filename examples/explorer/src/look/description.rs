//! What a kernel says of its vmemmap, read from bytes and checked.

use super::Unreadable;
use mm_core::addr::{Granule, Order, Pfn, PhysAddr, VirtAddr};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::vmemmap::Description;

/// How many bytes a description has.
pub const BYTES: usize = Description::WORDS * 8;

/// How a tail names its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// By the head's address.
    Pointer,
    /// By a mask.
    Mask,
    /// In a way that only the kernel knows.
    Other,
}

/// A description that makes sense.
#[derive(Clone, Debug)]
pub struct Described {
    /// Where descriptors and packed heads lie, and how large they are.
    pub model: MemoryModel,
    /// Where the word of a descriptor lies in it.
    pub word_offset: u64,
    /// Where its order does.
    pub order_offset: u64,
    /// How a tail names its head.
    pub scheme: Scheme,
    /// The root table.
    pub root: Pfn,
    /// How many levels of tables there are.
    pub levels: u64,
    /// The bit of entries that are the library's; 0 where nothing tells.
    pub owned: u64,
    /// The bit of tails and of links to shared tables.
    pub tail: u64,
    /// The order of the memory that a bitmap of marks is for.
    pub mark_order: u64,
    /// The chains of bitmaps.
    pub mark_chains: Vec<u64>,
}

/// Whether `bytes` begin as a description does.
pub fn has_magic(bytes: &[u8]) -> bool {
    let words = Description::MAGIC.map(u64::to_le_bytes);
    bytes.starts_with(words.as_flattened())
}

impl Described {
    /// Reads the description in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] with what does not fit.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let no =
            |what: &str| Unreadable(format!("the description of the vmemmap is damaged: {what}"));
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words
            .iter()
            .take(Description::WORDS)
            .map(|word| u64::from_le_bytes(*word))
            .collect();
        if !has_magic(bytes) {
            return Err(no("its magic is missing"));
        }
        let word = |index: usize| words.get(index).copied().ok_or_else(|| no("it is cut off"));
        let version = word(2)?;
        if version != Description::VERSION {
            return Err(Unreadable(format!(
                "the vmemmap is described in version {version}, and this program reads version {}",
                Description::VERSION
            )));
        }
        if word(3)? != BYTES as u64 || words.len() < Description::WORDS {
            return Err(no("it is cut off"));
        }
        if words
            .iter()
            .fold(0_u64, |sum, word| sum.wrapping_add(*word))
            != 0
        {
            return Err(no("its sum is wrong"));
        }
        let granules = [Granule::Size4K, Granule::Size16K, Granule::Size64K];
        let page = word(5)?;
        let granule = granules.into_iter().find(|granule| granule.bytes() == page);
        let granule = granule.ok_or_else(|| no("its pages have no size that there is"))?;
        let order = |index| -> Result<Order, Unreadable> {
            let order = u8::try_from(word(index)?).ok().and_then(Order::new);
            order.ok_or_else(|| no("an order is too large"))
        };
        let model = MemoryModel::new(ModelConfig {
            granule,
            descriptor_bytes: word(6)?,
            vmemmap_base: VirtAddr::new(word(10)?),
            frames: word(11)?,
            max_order: order(12)?,
            section: order(13)?,
            subsection: order(14)?,
        });
        let mut model = model.map_err(|error| no(&error.to_string()))?;
        if word(15)? != 0 {
            let placed = model.with_heads(VirtAddr::new(word(15)?));
            model = placed.map_err(|error| no(&error.to_string()))?;
        }
        let (word_offset, order_offset) = (word(7)?, word(8)?);
        let within = |offset: u64, bytes: u64| offset <= model.descriptor_bytes() - bytes;
        if !within(word_offset, 8) || !word_offset.is_multiple_of(8) || !within(order_offset, 1) {
            return Err(no("a field lies outside of a descriptor"));
        }
        let root = PhysAddr::new(word(17)?);
        let root = root
            .frame(granule)
            .filter(|frame| frame.base(granule) == root);
        let mark_order = word(21)?;
        if mark_order > 48 {
            return Err(no("an order is too large"));
        }
        Ok(Self {
            model,
            word_offset,
            order_offset,
            scheme: match word(9)? {
                1 => Scheme::Pointer,
                2 => Scheme::Mask,
                _ => Scheme::Other,
            },
            root: root.ok_or_else(|| no("its root is no page"))?,
            levels: word(18)?,
            owned: word(19)?,
            tail: word(20)?,
            mark_order,
            mark_chains: words.get(22..).unwrap_or_default().to_vec(),
        })
    }

    /// The words of a description as bytes.
    pub fn bytes_of(description: &Description) -> Vec<u8> {
        let words = description.words();
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Makes the sum of the description `bytes` what it has to be: of one that was changed to see what comes of that.
    pub fn make_sum_right(bytes: &mut [u8]) {
        let (words, _) = bytes.as_chunks_mut::<8>();
        if let Some(check) = words.get_mut(4) {
            *check = [0; 8];
        }
        let sum = words.iter().fold(0_u64, |sum, word| {
            sum.wrapping_add(u64::from_le_bytes(*word))
        });
        if let Some(check) = words.get_mut(4) {
            *check = sum.wrapping_neg().to_le_bytes();
        }
    }

    /// The size of a page.
    pub const fn granule(&self) -> Granule {
        self.model.granule()
    }

    /// The word of a head, or of a page by itself.
    pub const fn is_head(&self, word: u64) -> bool {
        match self.scheme {
            Scheme::Pointer => word == 0,
            Scheme::Mask => word == !1,
            Scheme::Other => true,
        }
    }

    /// Whether `word` is a stub's, whose page has its head elsewhere.
    pub fn is_stub(&self, word: u64) -> bool {
        self.scheme == Scheme::Mask && word & 3 == 3
    }

    /// Whether `word` is that of a tail, or a stub, of the page of `order` whose first descriptor is at `first`.
    pub fn leads_to(&self, word: u64, first: VirtAddr, order: Order) -> bool {
        let array = order.frames() << self.model.descriptor_bytes().trailing_zeros();
        match self.scheme {
            Scheme::Pointer => word == first.get() | 1,
            Scheme::Mask => word & !2 == !(array - 1) | 1,
            Scheme::Other => true,
        }
    }
}
