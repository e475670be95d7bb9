//! Text on a kernel's serial port.

/// Gives each byte of `text` to `put`, with a carriage return before each line feed, as terminals
/// want it.
pub fn put_text(text: &str, put: impl Fn(u8)) {
    for byte in text.bytes() {
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
}

/// Prints a line to a port that takes everything.
#[macro_export]
macro_rules! print_line {
    ($port:expr, $($arguments:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($port, $($arguments)*);
    }};
}
