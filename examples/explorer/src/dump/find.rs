//! The description of the vmemmap in a dump: in a note, or at the start of a page of memory.

use super::Dump;
use crate::failure::Failure;
use crate::look::Unreadable;
use crate::look::description::{BYTES, Described, has_magic};
use mm_core::vmemmap::Description;
use std::fmt;

/// At which addresses a description may begin: pages are not smaller.
const STEP: u64 = 4096;

/// Where a description was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a note.
    Note,
    /// In the page at a physical address.
    Page(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note => f.write_str("a note"),
            Self::Page(at) => write!(f, "the page at {at:#x}"),
        }
    }
}

/// The description in `dump`, and where it is.
///
/// # Errors
///
/// A [`Failure`] where there is none, or none that makes sense: why the first one does not.
pub fn description(dump: &Dump) -> Result<(Described, Place), Failure> {
    let mut damaged: Option<Unreadable> = None;
    let notes = notes(dump.notes()).map(|bytes| (Place::Note, bytes.to_vec()));
    for (place, bytes) in notes.chain(pages(dump)) {
        match Described::parse(&bytes) {
            Ok(described) => return Ok((described, place)),
            Err(error) => {
                damaged.get_or_insert(error);
            }
        }
    }
    Err(match damaged {
        Some(error) => error.into(),
        None => Unreadable(
            "no description of a vmemmap is in the dump; the kernel has to write one (Vmemmap::describe) to a page of its own".to_owned(),
        )
        .into(),
    })
}

/// What the notes hold that are descriptions by name and type.
fn notes(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (head, rest) = bytes.split_at_checked(12)?;
            let word = |index: usize| {
                let word = head.get(index * 4..index * 4 + 4)?.try_into().ok()?;
                Some(u32::from_le_bytes(word))
            };
            let (name_bytes, bytes_of, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
            let (name, rest) = rest.split_at_checked(name_bytes.checked_next_multiple_of(4)?)?;
            let described = rest.get(..bytes_of)?;
            // The last one may lack what fills it up.
            let next = bytes_of.checked_next_multiple_of(4)?.min(rest.len());
            bytes = rest.get(next..)?;
            let name = name.get(..name_bytes)?.split(|byte| *byte == 0).next();
            if name == Some(Description::NOTE_NAME.as_bytes()) && kind == Description::NOTE {
                return Some(described);
            }
        }
    })
}

/// What begins as a description does, at starts of pages.
fn pages(dump: &Dump) -> impl Iterator<Item = (Place, Vec<u8>)> {
    dump.loads().iter().flat_map(move |load| {
        let first = load.physical.next_multiple_of(STEP);
        let end = load.physical + load.bytes;
        (first..end).step_by(STEP as usize).filter_map(move |at| {
            let mut magic = [0; 16];
            dump.read(at, &mut magic)?;
            if !has_magic(&magic) {
                return None;
            }
            let mut bytes = vec![0; BYTES];
            dump.read(at, &mut bytes)?;
            Some((Place::Page(at), bytes))
        })
    })
}
