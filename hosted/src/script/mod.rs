//! Scripts: sequences of operations on a machine with real tables, on the oracle, and on a model,
//! side by side.
//!
//! ```text
//!   bytes ──▶ Script ──▶ Interpreter ─┬─▶ machine with x86-64 tables ──bytes──▶ walker ─┐
//!                                     ├─▶ oracle: the flat map, the same frames         ├─ compared after
//!                                     └─▶ model: a plain map, and what must be answered ┘  every operation
//! ```
//!
//! Any bytes are a script, so that property tests and fuzzing share this. What each operation has
//! to answer, and what every page of the vmemmap has to be mapped to after it, comes from the
//! model, which knows no code of the library's. The oracle runs the library's algorithm on a page
//! table without tables and hands out the very frames that the machine did, so that frames and
//! their contents are compared one by one.

mod check;
mod interpreter;
mod model;
mod online;
mod op;
mod oracle;
mod trace;

pub use check::tables;
pub use interpreter::Tally;
pub use op::{Fault, OP_BYTES, Op, Request, Script, WINDOW_FRAMES};

use crate::{Machine, MachineConfig, RadixBackend, X86_64, X86_64La57};
use interpreter::{BothAltmaps, Ground, Interpreter, ScriptAltmap};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::{Altmap, DeviceAltmap};
use oracle::OracleParts;
use trace::Traced;

/// Frames for foreign tables.
const FOREIGN: (u64, u64) = (3 << 25, 256);

/// The most operations of a script that comes from fuzzing.
const MOST: usize = 48;

/// Runs the script that `bytes` stand for on the backend and with the encoding that the first of
/// them chooses.
///
/// # Errors
///
/// As for [`run`].
pub fn run_any(bytes: &[u8]) -> Result<Tally, String> {
    match bytes.first().map_or(0, |first| first >> 6) {
        0 => run::<X86_64, Pointer>(bytes, MOST),
        1 => run::<X86_64, Mask>(bytes, MOST),
        2 => run::<X86_64La57, Pointer>(bytes, MOST),
        _ => run::<X86_64La57, Mask>(bytes, MOST),
    }
}

/// Runs the script that `bytes` stand for, at most `most` operations, on `B` with the encoding `E`.
///
/// # Errors
///
/// What did not hold, and after which operation.
pub fn run<B: RadixBackend, E: TailEncoding>(bytes: &[u8], most: usize) -> Result<Tally, String> {
    let script = Script::decode(&B::MODEL, bytes, most);
    let foreign = constant(FOREIGN);
    let config = MachineConfig {
        devices: vec![script.window, foreign],
        // Any of it may be an altmap.
        backed: vec![script.window, foreign],
        ram_frames: 1 << 17,
    };
    let machine = Machine::<B>::new(&config).map_err(|error| error.to_string())?;
    let frames = Traced::new(machine.frames());
    let oracle = OracleParts::new(&machine)?;
    // One for each operation that could use one. Those of memory that is online at the same time do
    // not meet.
    let devices: Vec<_> = script
        .ops
        .iter()
        .map(|op| device_altmap(&machine, op))
        .collect();
    let altmaps: Vec<_> = devices
        .iter()
        .map(|device| {
            device.as_ref().map(|device| BothAltmaps {
                ours: Traced::new(device),
                theirs: oracle.altmap(device.reserved()),
            })
        })
        .collect();
    let ground = Ground {
        machine: &machine,
        frames: &frames,
        altmaps: &altmaps,
        oracle: &oracle,
    };
    let mut interpreter = Interpreter::<B, E>::new(ground, script.window, foreign)?;
    for (index, op) in script.ops.iter().enumerate() {
        interpreter
            .step(index, op)
            .map_err(|error| format!("operation {index}, {op:?}: {error}"))?;
    }
    interpreter.finish()
}

/// The altmap of an operation that asks for one.
fn device_altmap<'m, B: RadixBackend, E: TailEncoding>(
    machine: &'m Machine<B>,
    op: &Op,
) -> Option<ScriptAltmap<'m, E>> {
    let Op::Online(request) = op else { return None };
    let reserved = request.reserved()?;
    let (memory, node) = (machine.memory(), oracle::ALTMAP_NODE);
    // SAFETY: 1: memory of the machine that is in nobody's use but that of the altmap, since those
    // that are in use do not meet. 2: the machine has all of the window; a range outside of it
    // does not come online. 3 and 4: one vmemmap, one thread.
    unsafe { DeviceAltmap::new(&B::MODEL, memory, reserved, node) }.ok()
}

fn constant((start, frames): (u64, u64)) -> PfnRange {
    let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
    PfnRange::new(start, frames).unwrap_or(PfnRange::single(start))
}
