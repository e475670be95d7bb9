//! Printing as JSON: exactly one object, and a line break.

use serde::Serialize;
use std::io::{self, Write};

/// Prints `value`.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}
