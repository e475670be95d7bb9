//! What a dump of memory has to say so that a program can find the vmemmap in it, and read it.
//!
//! A kernel keeps a [`Description`] at the start of a page of its own, and may put the same bytes into a note
//! of the dump, of the type [`Description::NOTE`] and by the name [`Description::NOTE_NAME`]. A reader looks
//! for its magic, checks version and sum, and walks the page tables from the root. `explorer inspect` is
//! such a reader.

use super::Vmemmap;
use super::marks::BUCKETS;
use crate::addr::{Granule, Pfn};
use crate::descriptor::{DescriptorLayout, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::EntryFormat;
use crate::readers::ReadersOf;
use core::mem::size_of;

/// How the page tables are read that the vmemmap is mapped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeDescription {
    /// The root table.
    pub root: Pfn,
    /// How many levels of tables there are, the root included.
    pub levels: u32,
    /// The bit by which an entry says that it is this library's; 0 where none does.
    pub owned: u64,
    /// The bit by which such an entry says "tail" of a leaf and "shared" of a link; 0 where none does.
    pub tail: u64,
}

impl TreeDescription {
    /// Tables in the format `F` below `root`, written by the radix engine.
    pub const fn of<F: EntryFormat>(root: Pfn) -> Self {
        Self {
            root,
            levels: F::LEVELS.len() as u32,
            owned: F::OWNED,
            tail: F::TAIL,
        }
    }
}

/// A vmemmap, as a program reads it that has nothing but a dump of memory.
///
/// All fields are words in the byte order of the machine, one behind the other. Orders are base-2 logarithms of
/// numbers of frames, addresses are in bytes. A later version has more fields behind these, and another
/// [`version`](Self::version) where one of them changes its meaning.
///
/// The value is a copy: it is right until marks come or go, and for as long as root and model stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Description {
    /// [`Description::MAGIC`].
    pub magic: [u64; 2],
    /// [`Description::VERSION`].
    pub version: u64,
    /// The size of this value in bytes.
    pub bytes: u64,
    /// What makes the sum of all words, without carries, zero.
    pub check: u64,
    /// The bytes of a page, and of a table.
    pub page_bytes: u64,
    /// The bytes of a descriptor.
    pub descriptor_bytes: u64,
    /// Where in a descriptor the word lies by which a tail names its head.
    pub word_offset: u64,
    /// Where in a descriptor the byte lies that is the order of its page.
    pub order_offset: u64,
    /// How a tail names its head: [`TailEncoding::SCHEME`].
    pub scheme: u64,
    /// The virtual address of the descriptor of frame 0.
    pub vmemmap_base: u64,
    /// How many frames the vmemmap has room for.
    pub frames: u64,
    /// The order of the largest compound page.
    pub max_order: u64,
    /// The order of a section.
    pub section: u64,
    /// The order of a subsection.
    pub subsection: u64,
    /// The virtual address of packed heads; 0 where the model has no place for them.
    pub heads_base: u64,
    /// How many bytes of addresses packed heads have.
    pub heads_bytes: u64,
    /// The physical address of the root table.
    pub root: u64,
    /// [`TreeDescription::levels`].
    pub levels: u64,
    /// [`TreeDescription::owned`].
    pub owned: u64,
    /// [`TreeDescription::tail`].
    pub tail: u64,
    /// The order of the memory that one bitmap of marks is for.
    pub mark_order: u64,
    /// The frame of the first bitmap of each chain, plus 1, or 0. A bitmap has the next one's likewise, the number of
    /// its block of memory, how many bits are set, and the bits.
    pub mark_chains: [u64; BUCKETS],
}

const _: () = assert!(size_of::<Description>() == Description::WORDS * 8);
const _: () = assert!(size_of::<Description>() <= Granule::Size4K.bytes() as usize);

impl Description {
    /// What a description begins with.
    pub const MAGIC: [u64; 2] = [
        u64::from_ne_bytes(*b"vmemmap-"),
        u64::from_ne_bytes(*b"describe"),
    ];

    /// The version of this layout.
    pub const VERSION: u64 = 1;

    /// How many words a description has.
    pub const WORDS: usize = 22 + BUCKETS;

    /// The name of an ELF note that holds a description.
    pub const NOTE_NAME: &'static str = "VMEMMAP";

    /// The type of such a note.
    pub const NOTE: u32 = 1;

    /// The words of the description, in the order in which they lie in memory.
    pub fn words(&self) -> [u64; Self::WORDS] {
        let [magic, more] = self.magic;
        let fields = [
            magic,
            more,
            self.version,
            self.bytes,
            self.check,
            self.page_bytes,
            self.descriptor_bytes,
            self.word_offset,
            self.order_offset,
            self.scheme,
            self.vmemmap_base,
            self.frames,
            self.max_order,
            self.section,
            self.subsection,
            self.heads_base,
            self.heads_bytes,
            self.root,
            self.levels,
            self.owned,
            self.tail,
            self.mark_order,
        ];
        let mut words = [0; Self::WORDS];
        let all = fields.iter().chain(&self.mark_chains);
        words.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        words
    }

    /// The same with the check that belongs to it.
    fn checked(mut self) -> Self {
        self.check = 0;
        let sum = self
            .words()
            .iter()
            .fold(0_u64, |sum, word| sum.wrapping_add(*word));
        self.check = sum.wrapping_neg();
        self
    }
}

impl<D: DescriptorLayout, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// What a program needs to read this vmemmap in a dump of memory, mapped by the tables of `tree`.
    ///
    /// A kernel writes it to the start of a page that it keeps for that, when it starts; and again after
    /// the first mark of a block of memory or the last, if marks are to be found. A wrong `tree` misleads readers of dumps and
    /// nobody else.
    ///
    /// ```
    /// use mm_core::descriptor::DescriptorLayout;
    /// use mm_core::frame::{DirectMap, FrameAllocator};
    /// use mm_core::vmemmap::{Description, TreeDescription, Vmemmap};
    ///
    /// /// A page that holds nothing else: a `static` of the kernel.
    /// #[repr(C, align(4096))]
    /// struct ForDumps(Description);
    ///
    /// fn describe<D: DescriptorLayout, A: FrameAllocator, M: DirectMap>(
    ///     vmemmap: &Vmemmap<D, A, M>,
    ///     tree: &TreeDescription,
    ///     page: &mut ForDumps,
    /// ) {
    ///     page.0 = vmemmap.describe(tree);
    /// }
    /// ```
    pub fn describe(&self, tree: &TreeDescription) -> Description {
        let model = &self.model;
        let (config, granule) = (model.config(), model.granule());
        let heads = model.heads();
        Description {
            magic: Description::MAGIC,
            version: Description::VERSION,
            bytes: size_of::<Description>() as u64,
            check: 0,
            page_bytes: granule.bytes(),
            descriptor_bytes: model.descriptor_bytes(),
            word_offset: D::WORD_OFFSET as u64,
            order_offset: D::ORDER_OFFSET as u64,
            scheme: D::Encoding::SCHEME as u64,
            vmemmap_base: config.vmemmap_base.get(),
            frames: config.frames,
            max_order: config.max_order.get().into(),
            section: config.section.get().into(),
            subsection: config.subsection.get().into(),
            heads_base: heads.map_or(0, |heads| heads.start().get()),
            heads_bytes: heads.map_or(0, |heads| heads.last().get() - heads.start().get() + 1),
            root: tree.root.base(granule).get(),
            levels: tree.levels.into(),
            owned: tree.owned,
            tail: tree.tail,
            mark_order: self.bits_order().into(),
            mark_chains: self.marks.chain_words(),
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_they_lie_in_memory_and_add_up_to_zero() {
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        let description = Description {
            magic: [next(), next()],
            version: next(),
            bytes: next(),
            check: next(),
            page_bytes: next(),
            descriptor_bytes: next(),
            word_offset: next(),
            order_offset: next(),
            scheme: next(),
            vmemmap_base: next(),
            frames: next(),
            max_order: next(),
            section: next(),
            subsection: next(),
            heads_base: next(),
            heads_bytes: next(),
            root: next(),
            levels: next(),
            owned: next(),
            tail: next(),
            mark_order: next(),
            mark_chains: core::array::from_fn(|_| next()),
        };
        // SAFETY: the value is that many words, without padding.
        let memory: [u64; Description::WORDS] = unsafe { core::mem::transmute(description) };
        assert_eq!(description.words(), memory);
        assert!(memory.iter().zip(1..).all(|(word, index)| *word == index));
        let sum = |words: [u64; Description::WORDS]| {
            words
                .iter()
                .fold(0_u64, |sum, word| sum.wrapping_add(*word))
        };
        assert_eq!(sum(description.checked().words()), 0);
    }
}
