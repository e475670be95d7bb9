//! Source text on one line.

use syn::Attribute;
use syn::spanned::Spanned;

/// Attributes that are a part of what users may do.
const ATTRIBUTES: [&str; 4] = ["deprecated", "must_use", "non_exhaustive", "repr"];

/// The source of `node` on one line. Nothing for what is not written there.
pub(super) fn text(node: &impl Spanned) -> String {
    one_line(&node.span().source_text().unwrap_or_default())
}

/// `text` after a space, if there is one.
pub(super) fn spaced(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(" {text}"),
    }
}

/// The attributes that matter to users, each with a space behind it. Reasons and hints do not.
pub(super) fn attributes(attributes: &[Attribute]) -> String {
    let named = |attribute: &Attribute| {
        let name = attribute.path().get_ident()?.to_string();
        match name.as_str() {
            "repr" => Some(format!("{} ", text(attribute))),
            name if ATTRIBUTES.contains(&name) => Some(format!("#[{name}] ")),
            _ => None,
        }
    };
    attributes.iter().filter_map(named).collect()
}

/// Without line breaks, comments, and the commas before closing brackets that go with them.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim) {
        if part.is_empty() || part.starts_with("//") {
            continue;
        }
        if line.ends_with(',') && part.starts_with([')', ']', '>', '}', '{']) {
            line.pop();
        }
        let is_inside = line.ends_with(['(', '[', '<']);
        let closes = part.starts_with([')', ']', '>', ',']);
        if !line.is_empty() && !is_inside && !closes {
            line.push(' ');
        }
        line.push_str(part);
    }
    let kept = line.trim_end_matches(',').len();
    line.truncate(kept);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_one_line_however_it_is_formatted() {
        let source = "
            fn long<
                A: First,
            >(
                &self,
                // The first.
                first: Option<(u8, A)>,
            ) -> Result<(), Error>
            where
                A: Second,
        ";
        assert_eq!(
            one_line(source),
            "fn long<A: First>(&self, first: Option<(u8, A)>) -> Result<(), Error> where A: Second"
        );
        assert_eq!(one_line("fn short(&self)"), "fn short(&self)");
        assert_eq!(one_line(""), "");
    }
}
