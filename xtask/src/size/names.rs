//! What functions are called, short enough for a table.

use rustc_demangle::demangle;

/// Without the hash that tells copies of a generic function apart, and without what it is generic
/// over.
pub(super) fn readable(symbol: &str) -> String {
    let name = format!("{:#}", demangle(symbol));
    let (mut kept, mut depth) = (String::new(), 0_u32);
    let mut before = ' ';
    for letter in name.replace("::{{closure}}", " closure").chars() {
        match letter {
            // `<Type as Trait>::function` begins with one that is no list of parameters.
            '<' if depth > 0 || (before.is_alphanumeric() && !kept.is_empty()) => depth += 1,
            '>' if depth > 0 && before != '-' => depth -= 1,
            letter if depth == 0 => kept.push(letter),
            _ => {}
        }
        before = letter;
    }
    without_modules(&kept)
}

/// `mm_core::vmemmap::online::Vmemmap::online` without all but the last module.
fn without_modules(name: &str) -> String {
    let mut short = String::new();
    let mut word = String::new();
    let words = |word: &str| {
        let parts: Vec<&str> = word.split("::").collect();
        let from = parts.len().saturating_sub(2);
        parts.get(from..).unwrap_or_default().join("::")
    };
    for letter in name.chars() {
        if matches!(letter, '<' | '>' | ' ' | '(' | ')' | '&' | ',') {
            short.push_str(&words(&word));
            short.push(letter);
            word.clear();
        } else {
            word.push(letter);
        }
    }
    short + &words(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_modules_are_left_out() {
        for (symbol, name) in [
            (
                "_ZN112_$LT$mm_core..vmemmap..piece_source..PieceSource$LT$D$C$A$C$M$GT$$u20$as$u20$\
                 mm_core..paging..run..RunSource$GT$8next_run17h8195715a2786bc0bE",
                "<piece_source::PieceSource as run::RunSource>::next_run",
            ),
            ("footprint_online", "footprint_online"),
            ("_ZN7mm_core4addr3mod4next17h8195715a2786bc0bE", "mod::next"),
        ] {
            assert_eq!(readable(symbol), name);
        }
    }
}
