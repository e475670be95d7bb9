//! `docs/api` against the public API of the crates that are published: a line for each public item,
//! so that a change of it is seen where a change is looked through.
//!
//! - `names`: under which paths users find what;
//! - `lines`: the lines;
//! - `text`: source text on one line.

mod lines;
mod names;
mod text;

use crate::side_by_side;
use crate::source::Source;
use crate::toolchain::root;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The crates that are published.
pub(crate) const CRATES: [&str; 8] = [
    "mm-core",
    "arch-x86_64",
    "arch-aarch64",
    "arch-riscv64",
    "arch-sim",
    "hosted",
    "conformance",
    "any-table",
];

fn file_of(name: &str) -> PathBuf {
    root().join("docs/api").join(name).with_extension("txt")
}

/// The API of the crate `name`, as in its file.
fn api_of(name: &str) -> Result<String> {
    let read = || lines::lines(&Source::of_crate(&root().join(name))?);
    let mut text = read().with_context(|| name.to_owned())?.join("\n");
    text.push('\n');
    Ok(text)
}

/// Of all crates.
fn apis() -> Result<Vec<(&'static str, String)>> {
    let mut apis = Vec::new();
    let show = |name: &&'static str, api: Result<String>, _| apis.push(api.map(|api| (*name, api)));
    side_by_side::run(&CRATES, |name| api_of(name), show);
    apis.into_iter().collect()
}

/// Compares the files with the sources. Says how many lines they have.
///
/// # Errors
///
/// Where they differ: a line for each difference.
pub(crate) fn check() -> Result<usize> {
    let (mut lines, mut count) = (Vec::new(), 0);
    for (name, api) in apis()? {
        let said = fs::read_to_string(file_of(name)).unwrap_or_default();
        count += api.lines().count();
        lines.extend(differences(name, &said, &api));
    }
    ensure!(
        lines.is_empty(),
        "docs/api is not the public API; run `cargo xtask api --bless`, and look at what changes:\n{}",
        lines.join("\n")
    );
    Ok(count)
}

/// Writes the files. Says how many lines they have.
///
/// # Errors
///
/// Where a source cannot be read or a file not be written.
pub(crate) fn bless() -> Result<usize> {
    let mut count = 0;
    for (name, api) in apis()? {
        let file = file_of(name);
        count += api.lines().count();
        let directory = file.parent().map_or(Ok(()), fs::create_dir_all);
        let written = directory.and_then(|()| fs::write(&file, api));
        written.with_context(|| file.display().to_string())?;
    }
    Ok(count)
}

/// What `said` has otherwise than `api`: lines that are gone with a minus, new ones with a plus.
fn differences(name: &str, said: &str, api: &str) -> Vec<String> {
    if said == api {
        return vec![];
    }
    let [old, new] = [said, api].map(|text| text.lines().collect::<BTreeSet<_>>());
    let gone = old.difference(&new).map(|line| format!("-{name}: {line}"));
    let come = new.difference(&old).map(|line| format!("+{name}: {line}"));
    let lines: Vec<_> = gone.chain(come).collect();
    match lines.is_empty() {
        true => vec![format!("{name}: the lines are in another order")],
        false => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_the_public_api() {
        let lines = check().unwrap_or_else(|error| panic!("{error:#}"));
        assert!(lines > 0);
    }

    fn api(source: &str) -> Vec<String> {
        lines::lines(&Source::of_text(source).unwrap()).unwrap()
    }

    #[test]
    fn each_public_item_has_a_line_under_the_path_that_users_write() {
        let lines = api("
            pub mod outer {
                mod inner {
                    /// Documented.
                    #[derive(Clone, Copy)]
                    #[repr(transparent)]
                    pub struct Number(u64);
                    impl Number {
                        pub const ZERO: Self = Self(0);
                        #[must_use = \"it is a number\"]
                        pub const fn get(
                            self,
                        ) -> u64 { self.0 }
                        fn private(self) {}
                    }
                    impl super::Counts for Number {
                        type Item = u64;
                        fn count(&self) -> u64 { 0 }
                    }
                    impl super::Secret for Number {}
                    struct Hidden;
                    impl super::Counts for Hidden { type Item = u8; fn count(&self) -> u64 { 0 } }
                }
                pub use inner::Number;
                pub unsafe trait Counts: Sized {
                    type Item: Copy;
                    fn count(&self) -> u64;
                    fn twice(&self) -> u64 { self.count() }
                }
                trait Secret {}
                unsafe impl<T: Counts> Counts for &T { type Item = T::Item; fn count(&self) -> u64 { 0 } }
            }
            pub use outer::Number;
            pub struct Range<T> where T: Copy { pub start: T, end: T }
            impl<T: Copy> Range<T> { pub fn with(mut self, end: &mut T) -> Self {} }
            #[non_exhaustive]
            pub enum Error { Empty, At { place: u64 }, Of(u8) }
            pub type Bytes = Range<u8>;
            macro_rules! errors { ($x:ident) => { impl From<$x> for Error {} } }
            errors! { One }
            macro_rules! names { ($x:ident) => { fn $x() -> impl Sized {} } }
            names! { one }
            #[cfg(test)]
            mod tests { pub fn tried() {} }
        ");
        assert_eq!(
            lines,
            [
                "type Bytes = Range<u8>",
                "#[non_exhaustive] enum Error",
                "variant Error::At { place: u64 }",
                "variant Error::Empty",
                "variant Error::Of(u8)",
                "#[repr(transparent)] struct Number(..)",
                "const Number::ZERO: Self",
                "#[must_use] const fn Number::get(self) -> u64",
                "derive Clone, Copy for Number",
                "impl super::Counts for Number with Item = u64",
                "struct Range<T> { .. } where T: Copy",
                "field Range::start: T",
                "fn Range::with(self, end: &mut T) -> Self  [impl<T: Copy> Range<T>]",
                "unsafe trait outer::Counts: Sized",
                "required type outer::Counts::Item: Copy",
                "required fn outer::Counts::count(&self) -> u64",
                "provided fn outer::Counts::twice(&self) -> u64",
                "unsafe impl<T: Counts> Counts for &T with Item = T::Item",
                "use outer::Number = Number",
                "impls of errors! { One }",
            ]
        );
    }

    #[test]
    fn two_types_of_one_name_are_told_by_their_modules() {
        let lines = api("
            pub mod one { pub struct Check; impl Check { pub fn first(&self) {} } }
            mod two {
                use super::{one::Check as Other, *};
                pub struct Check;
                impl Check { pub fn second(&self) {} }
                impl Other { pub fn third(&self) {} }
                impl Third { pub fn fourth(&self) {} }
            }
            pub struct Third;
            pub use two::Check;
            pub use core::fmt::Write as Text;
        ");
        assert_eq!(
            lines,
            [
                "struct Check",
                "fn Check::second(&self)",
                "use Text = core::fmt::Write",
                "struct Third",
                "fn Third::fourth(&self)",
                "struct one::Check",
                "fn one::Check::first(&self)",
                "fn one::Check::third(&self)",
            ]
        );
    }

    #[test]
    fn what_cannot_be_seen_is_an_error() {
        for source in [
            "make! { pub fn hidden() {} }",
            "pub struct Value; impl Value { make! {} }",
            "pub trait Outer { make! {} }",
            "mod inner { pub struct Value; } pub use inner::*;",
            "impl Value { pub fn get() {} }",
            "macro_rules! make { () => { pub fn hidden() {} } }",
        ] {
            let source = Source::of_text(source).unwrap();
            assert!(lines::lines(&source).is_err());
        }
    }

    #[test]
    fn a_difference_is_a_line_with_its_sign() {
        assert_eq!(differences("core", "a\nb\n", "a\nb\n"), [""; 0]);
        assert_eq!(
            differences("core", "a\nb\n", "b\nc\n"),
            ["-core: a", "+core: c"]
        );
        let swapped = differences("core", "b\na\n", "a\nb\n");
        assert_eq!(swapped, ["core: the lines are in another order"]);
    }
}
