//! Padding what is made of several parts as one, without a heap.

use core::fmt;

/// Writes `text`, at most 16 characters, with the width and alignment of `f`.
pub(crate) fn pad(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    let mut buffer = TextBuffer::default();
    fmt::write(&mut buffer, text)?;
    f.pad(buffer.as_str())
}

/// A few characters, to be padded as one.
#[derive(Default)]
struct TextBuffer {
    bytes: [u8; 16],
    used: usize,
}

impl TextBuffer {
    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.used).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used + text.len();
        let room = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}
