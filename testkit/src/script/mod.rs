//! Scripts: sequences of operations on a machine with real tables, on the oracle, and on a model,
//! side by side.
//!
//! ```text
//!   bytes ──▶ Script ──▶ Interpreter ─┬─▶ machine with the tables of a backend ──bytes──▶ reader ─┐
//!                                     ├─▶ oracle: the flat map, the same frames                   ├─ compared
//!                                     └─▶ model: every page, table and mark, by plain rules       ┘
//! ```
//!
//! Any bytes are a script, so that property tests and fuzzing share this. What each operation has
//! to answer, how every page of the vmemmap has to be mapped after it, what its descriptors say and
//! what all of it costs comes from the model, which knows no code of the library's.
//!
//! In some scripts heads are packed, beside others that are in place. Where that is, and what it costs, the model counts
//! as in a heap.
//!
//! Some scripts have readers, others none. Readers are asked about all that an operation has touched, keep
//! references while memory changes, and memory is frozen beside them. Duties come first: before something is
//! done that nobody may have references for, they are given back.
//!
//! Scripts are [wide or narrow](Width). Wide ones are about thousands of pages, with the oracle at
//! their side: it runs the library's algorithm on a page table without tables and hands out the very
//! frames that the machine did, until a change of order makes them others; everything is compared after every operation. Narrow ones are about
//! tens of pages and a thousand times as fast; what an operation has touched is compared after it,
//! everything now and then.

mod ahead;
mod attempt;
mod check;
mod decode;
mod fold;
mod frames;
mod frozen_offline;
mod frozen_units;
mod interpreter;
mod model;
mod offline;
mod online;
mod op;
mod oracle;
mod places;
mod readers;
mod reorder;
mod replay;
mod reserve;
mod scale;
mod tally;
mod trace;
mod world;

pub use decode::OP_BYTES;
pub use op::{
    Change, Ending, Fault, Fold, Frozen, How, Odd, One, Op, Reorder, Request, Script, Target,
};
pub use scale::Width;
pub use tally::Tally;

use crate::TestMachine;
use crate::backend::chosen_backend;
use hosted::{BackendKind, MachineConfig};
use interpreter::{BothAltmaps, Interpreter, Parts, ScriptAltmap};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::{Altmap, DeviceAltmap};
use mm_core::readers::NoReaders;
use oracle::OracleParts;
use readers::{ReaderParts, ScriptReaders};
use scale::Scale;
use trace::Traced;

/// Frames for foreign tables.
const FOREIGN: (u64, u64) = (3 << 25, 256);

/// The most operations of a script that comes from fuzzing.
const MOST: usize = 64;

/// How tails name their head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// [`Pointer`].
    Pointer,
    /// [`Mask`].
    Mask,
}

/// Runs the script that `bytes` stand for on the backend and with the encoding that the first of
/// them chooses.
///
/// # Errors
///
/// As for [`run_on`].
pub fn run_any(width: Width, bytes: &[u8]) -> Result<Tally, String> {
    let (choice, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let backend = chosen_backend(*choice);
    let encoding = match choice % 2 {
        0 => Encoding::Pointer,
        _ => Encoding::Mask,
    };
    run_on(backend, encoding, width, bytes, MOST)
}

/// Runs the script that `bytes` stand for, at most `most` operations.
///
/// # Errors
///
/// What did not hold, and after which operation.
pub fn run_on(
    backend: BackendKind,
    encoding: Encoding,
    width: Width,
    bytes: &[u8],
    most: usize,
) -> Result<Tally, String> {
    match encoding {
        Encoding::Pointer => run::<Pointer>(backend, width, bytes, most),
        Encoding::Mask => run::<Mask>(backend, width, bytes, most),
    }
}

/// See [`run_on`].
fn run<E: TailEncoding>(
    kind: BackendKind,
    width: Width,
    bytes: &[u8],
    most: usize,
) -> Result<Tally, String> {
    let facts = kind.facts();
    let scale = Scale::new(&facts.model, width);
    let script = Script::decode(&scale, bytes, most);
    let foreign = constant(FOREIGN);
    let config = MachineConfig {
        devices: vec![script.window, foreign],
        // Any of it may be an altmap.
        backed: vec![script.window, foreign],
        ram_frames: scale.ram_frames(),
        ..MachineConfig::default()
    };
    let machine = TestMachine::new(kind, &config).map_err(|error| error.to_string())?;
    let frames = Traced::new(machine.frames());
    let oracle = match width {
        // The backend without tables is the oracle itself.
        Width::Wide if facts.has_tables => Some(OracleParts::new(&machine)?),
        _ => None,
    };
    // One for each operation that could use one.
    let devices: Vec<_> = script
        .ops
        .iter()
        .map(|op| altmap_of(&machine, op))
        .collect();
    let altmaps: Vec<_> = devices
        .iter()
        .map(|device| {
            device.as_ref().map(|device| BothAltmaps {
                ours: Traced::new(device),
                theirs: oracle
                    .as_ref()
                    .map(|oracle| oracle.altmap(device.reserved())),
            })
        })
        .collect();
    let parts = Parts {
        machine: &machine,
        frames: &frames,
        altmaps: &altmaps,
        oracle: oracle.as_ref(),
    };
    let places = [script.window, foreign];
    if !script.has_readers {
        let none = [Some(NoReaders); 2];
        return run_with::<E, _>(parts, scale, &script, places, none);
    }
    let memory = oracle.as_ref().map(|oracle| &oracle.memory);
    let memories = [Some(machine.memory()), memory];
    let readers = memories.map(|memory| Some(ReaderParts::new(kind, &machine, memory?)));
    let kernels = [0, 1].map(|index| readers[index].as_ref().map(ReaderParts::kernel));
    let readers = |index: usize| {
        let both = readers[index].as_ref().zip(kernels[index].as_ref());
        both.map(|(parts, kernel)| parts.readers(facts.model, kernel))
            .transpose()
    };
    let readers = [readers(0)?, readers(1)?];
    run_with::<E, _>(parts, scale, &script, places, readers)
}

/// Runs `script` with these readers, of the machine and of the oracle, if any.
fn run_with<'s, E: TailEncoding, R: ScriptReaders<'s, E>>(
    parts: Parts<'s>,
    scale: Scale,
    script: &'s Script,
    [window, foreign]: [PfnRange; 2],
    readers: [Option<R>; 2],
) -> Result<Tally, String> {
    let name = parts.machine.facts().name;
    let mut interpreter = Interpreter::<E, R>::new(parts, scale, window, foreign, readers)?;
    interpreter.packs = script.packs;
    for (index, op) in script.ops.iter().enumerate() {
        let done = interpreter.step(index, op);
        done.map_err(|error| report(name, &error, script, index + 1))?;
    }
    let tally = interpreter.finish();
    tally.map_err(|error| report(name, &error, script, script.ops.len()))
}

/// What went wrong, and which operations lead there.
fn report(backend: &str, error: &str, script: &Script, done: usize) -> String {
    let ops = script.ops.iter().take(done).enumerate();
    let ops = ops.map(|(index, op)| format!("\n  {index}: {op:?}"));
    let ops: String = ops.collect();
    format!(
        "{}: {error}\nwindow {}, operations:{ops}",
        backend, script.window
    )
}

/// The altmap of an operation that asks for one.
fn altmap_of<'m>(machine: &'m TestMachine, op: &Op) -> Option<ScriptAltmap<'m>> {
    let Op::Online(request) = op else { return None };
    device_altmap(machine, request.altmap()?)
}

/// An altmap over `reserved`, with new counts.
fn device_altmap(machine: &TestMachine, reserved: PfnRange) -> Option<ScriptAltmap<'_>> {
    let (memory, node) = (machine.memory(), oracle::ALTMAP_NODE);
    if !memory.contains(reserved) {
        // Does not come online.
        return None;
    }
    // SAFETY: 1: memory of the machine that is in nobody's use but that of the altmap, since those
    // that are in use do not meet. 2: the machine has it. 3: one vmemmap.
    unsafe { DeviceAltmap::new(&machine.model(), memory, reserved, node) }.ok()
}

fn constant((start, frames): (u64, u64)) -> PfnRange {
    let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
    PfnRange::new(start, frames).unwrap_or(PfnRange::single(start))
}
