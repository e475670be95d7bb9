//! What repeats, once: the first of many alike, and how many more there are.

/// A part of a sequence whose repeats are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The item with this index.
    Item(usize),
    /// So many more times the `period` items before, from the index `from` on.
    Repeats {
        /// The first item that is left out.
        from: usize,
        /// How many items are one repeat.
        period: usize,
        /// How many repeats are left out.
        times: usize,
    },
}

/// The longest pattern that is looked for.
const LONGEST: usize = 4;

/// Folds `items`, so that what is repeated more than `shown` times in a row is there `shown` times.
pub fn fold<T: PartialEq>(items: &[T], shown: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < items.len() {
        let best = (1..=LONGEST)
            .map(|period| (period, repeats(items, at, period)))
            .find(|(_, times)| *times > shown + 1);
        match best {
            Some((period, times)) => {
                parts.extend((at..at + shown * period).map(Part::Item));
                parts.push(Part::Repeats {
                    from: at + shown * period,
                    period,
                    times: times - shown,
                });
                at += times * period;
            }
            None => {
                parts.push(Part::Item(at));
                at += 1;
            }
        }
    }
    parts
}

/// How often the `period` items from `at` on come one after the other.
fn repeats<T: PartialEq>(items: &[T], at: usize, period: usize) -> usize {
    let rest = items.get(at..).unwrap_or_default();
    let alike = rest
        .iter()
        .zip(rest.iter().skip(period))
        .take_while(|(a, b)| a == b);
    match rest.len() < period {
        true => 0,
        false => alike.count() / period + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str, shown: usize) -> String {
        let items: Vec<char> = text.chars().collect();
        let parts = fold(&items, shown).into_iter().map(|part| match part {
            Part::Item(index) => items[index].to_string(),
            Part::Repeats { period, times, .. } => format!("({period}x{times})"),
        });
        parts.collect()
    }

    #[test]
    fn repeats_are_shown_once_or_twice_with_how_many_more_there_are() {
        for (text, shown, expected) in [
            ("", 1, ""),
            ("ab", 1, "ab"),
            ("aa", 1, "aa"),
            ("aaa", 1, "a(1x2)"),
            ("abababab", 1, "ab(2x3)"),
            ("abababab", 2, "abab(2x2)"),
            ("xabababy", 1, "xab(2x2)y"),
            ("abbbbabbbb", 1, "ab(1x3)ab(1x3)"),
            ("aaaabcbcbc", 2, "aa(1x2)bcbcbc"),
        ] {
            assert_eq!(folded(text, shown), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_lost() {
        for text in ["abcabcabcabd", "aabbaabbaabb", "aaaaaaaaab"] {
            for shown in 1..4 {
                let items: Vec<char> = text.chars().collect();
                let count: usize = fold(&items, shown)
                    .into_iter()
                    .map(|part| match part {
                        Part::Item(_) => 1,
                        Part::Repeats { period, times, .. } => period * times,
                    })
                    .sum();
                assert_eq!(count, items.len(), "{text}");
            }
        }
    }
}
