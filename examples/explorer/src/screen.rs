//! How wide the output is, and text that is as wide.

use std::io::{self, Write};

/// The widest that help and the survey get, whatever they are printed on.
pub const MOST_COLUMNS: usize = 90;

/// What is taken where there is no terminal.
pub const USUAL_COLUMNS: usize = 80;

/// So narrow a terminal breaks any line.
const LEAST_COLUMNS: usize = 40;

/// The columns to print in: what the environment's `COLUMNS` says, or else what the `terminal` has,
/// within reason.
pub fn columns(environment: Option<&str>, terminal: Option<u16>) -> usize {
    let said = environment.and_then(|text| text.trim().parse().ok());
    let said = said.filter(|columns| *columns > 0);
    said.or(terminal.map(usize::from))
        .unwrap_or(USUAL_COLUMNS)
        .clamp(LEAST_COLUMNS, MOST_COLUMNS)
}

/// Prints `text` in lines of at most `columns` characters, all but the first of them indented by
/// `indent`.
///
/// # Errors
///
/// Those of `out`.
pub fn print_wrapped(
    out: &mut dyn Write,
    text: &str,
    columns: usize,
    indent: usize,
) -> io::Result<()> {
    let mut line = String::new();
    for word in text.split(' ') {
        let width = line.chars().count() + 1 + word.chars().count();
        // A word that is wider than a line gets one of its own.
        if width > columns && !line.trim().is_empty() {
            writeln!(out, "{}", line.trim_end())?;
            line = format!("{:indent$}{word}", "");
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_goes_before_what_there_is() {
        assert_eq!(columns(Some("70"), Some(60)), 70);
        assert_eq!(columns(None, Some(60)), 60);
        assert_eq!(columns(Some("wide"), Some(60)), 60);
        assert_eq!(columns(Some("0"), None), 80);
        assert_eq!(columns(None, None), 80);
        assert_eq!(columns(None, Some(300)), 90);
        assert_eq!(columns(Some("1"), None), 40);
    }

    #[test]
    fn lines_break_between_words() {
        let wrapped = |text| {
            let mut out = Vec::new();
            print_wrapped(&mut out, text, 10, 2).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(wrapped("one two three"), "one two\n  three\n");
        assert_eq!(wrapped("0123456789 a b"), "0123456789\n  a b\n");
        assert_eq!(wrapped("a 0123456789abc d"), "a\n  0123456789abc\n  d\n");
        assert_eq!(wrapped("a  b"), "a  b\n");
    }
}
