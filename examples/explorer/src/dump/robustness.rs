//! What must hold for any dump: shared by fuzzing and the tests that replay its corpus.

use super::{Dump, core, look, of_simulation};
use crate::live::Region;
use crate::look::Budget;
use crate::look::description::Described;
use crate::need::Limits;
use crate::picture::of_look::picture;
use crate::picture::svg;
use crate::size::ByteRange;
use mm_core::pagemap::{Heads, Tables, Tails};
use object::elf::EM_X86_64;
use std::sync::OnceLock;

/// So little that any dump is done with at once.
const BUDGET: Budget = Budget {
    entries: 1 << 14,
    runs: 1 << 10,
};

/// A dump with nothing wrong: pages with tails per order, in tables that are shared where they can be.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let region = Region {
            heads: Heads::Packed,
            ranges: vec![ByteRange {
                start: 24 << 30,
                size: 8 << 20,
            }],
            tails: Tails::PerOrder,
            tables: Tables::Shared,
            ..Region::default()
        };
        of_simulation(&region, &Limits::default()).unwrap_or_default()
    })
}

/// Looks into the dump that `bytes` make, and draws it: a file, if the first byte is even; a sound dump with bytes
/// exchanged otherwise, four for the place and one to be put there; and if it is 3 more than a multiple of 4, in a
/// description whose sum is right nevertheless. Answers with whether it could be read.
///
/// # Errors
///
/// What does not hold.
pub fn check(bytes: &[u8]) -> Result<bool, String> {
    let Some((way, rest)) = bytes.split_first() else {
        return Ok(false);
    };
    let file = match way % 4 {
        0 | 2 => rest.to_vec(),
        1 => patched(whole(), rest),
        _ => described(rest),
    };
    let looked = Dump::of_bytes(file).and_then(|dump| look(&dump, BUDGET));
    match looked {
        Ok(look) => {
            let drawn = svg::draw(&picture(&look, "a dump".to_owned(), ""));
            match drawn.contains("NaN") {
                true => Err("a picture with places that are no numbers".to_owned()),
                false => Ok(true),
            }
        }
        Err(failure) if failure.message.lines().count() != 1 => {
            Err(format!("more than a line: {failure}"))
        }
        Err(_) => Ok(false),
    }
}

/// `file` with the bytes exchanged that `patches` say.
fn patched(file: &[u8], patches: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let length = file.len().max(1);
    for patch in patches.as_chunks::<5>().0 {
        let [a, b, c, d, value] = *patch;
        let place = u32::from_le_bytes([a, b, c, d]) as usize % length;
        if let Some(byte) = file.get_mut(place) {
            *byte = value;
        }
    }
    file
}

/// The sound dump with another description, whose sum is made right.
fn described(patches: &[u8]) -> Vec<u8> {
    let Ok(dump) = Dump::of_bytes(whole().to_vec()) else {
        return Vec::new();
    };
    let memory = dump.loads().iter().map(|load| {
        let mut bytes = vec![0; load.bytes as usize];
        let read = dump.read(load.physical, &mut bytes);
        (load.physical, read.map(|()| bytes).unwrap_or_default())
    });
    let notes = dump.notes();
    let start = notes.len().saturating_sub(crate::look::description::BYTES);
    let mut description = patched(notes.get(start..).unwrap_or_default(), patches);
    Described::make_sum_right(&mut description);
    core::file(
        EM_X86_64,
        &core::note(&description),
        &memory.collect::<Vec<_>>(),
    )
}
