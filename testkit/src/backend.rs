//! A backend that is chosen at run time, for tests.

use crate::engine::WithEngine;
use crate::testbed::{Setup, Testbed, on_testbed};
use hosted::{BackendKind, Inspect, RadixBackend, for_each_backend};

/// Something to do with a backend that is chosen at run time, and looked at from outside.
pub trait WithInspect {
    /// What comes of it.
    type Output;

    /// Does it with `B`.
    fn with<B: Inspect>(self) -> Self::Output;
}

/// Something to do with a backend that is chosen at run time and whose tables are the engine's.
pub trait WithRadix {
    /// What comes of it.
    type Output;

    /// Does it with `R`.
    fn with<R: RadixBackend + WithEngine>(self) -> Self::Output;
}

/// What tests do with a [`BackendKind`].
pub trait OnBackend: Sized {
    /// Does `job` with the backend.
    fn run_inspect<J: WithInspect>(self, job: J) -> J::Output;

    /// Does `job` with the backend; `None` where its tables are not the engine's.
    fn run_radix<J: WithRadix>(self, job: J) -> Option<J::Output>;

    /// Makes the machine of `setup` with this backend and hands it to `test`, after which nothing
    /// may be left of what it did.
    fn testbed(self, setup: &Setup, test: impl FnOnce(&mut dyn Testbed<'_>));
}

/// [`OnBackend`] out of the lines of the list.
macro_rules! on_backend {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*]) => {
        impl OnBackend for BackendKind {
            fn run_inspect<J: WithInspect>(self, job: J) -> J::Output {
                match self {
                    $(Self::$Type => job.with::<hosted::$Type>(),)*
                }
            }

            fn run_radix<J: WithRadix>(self, job: J) -> Option<J::Output> {
                match self {
                    $(Self::$Type => run_on!([$tables] $Type job),)*
                }
            }

            fn testbed(self, setup: &Setup, test: impl FnOnce(&mut dyn Testbed<'_>)) {
                let mut test = Some(test);
                on_testbed(self, setup, &mut |bed| {
                    if let Some(test) = test.take() {
                        test(bed);
                    }
                });
            }
        }
    };
}

/// What [`OnBackend::run_radix`] does on one backend.
macro_rules! run_on {
    ([flat] $Type:ident $job:ident) => {{
        drop($job);
        None
    }};
    ([radix] $Type:ident $job:ident) => {
        Some($job.with::<hosted::$Type>())
    };
}

for_each_backend! { [on_backend] }

/// The backend that a byte of fuzzing's chooses. Its lowest bit chooses something else.
pub(crate) fn chosen_backend(choice: u8) -> BackendKind {
    let all = BackendKind::ALL;
    let index = usize::from(choice / 2) % all.len();
    all.get(index).copied().unwrap_or(BackendKind::X86_64)
}

/// A `#[test]` for each backend out of functions that take a [`BackendKind`], in a module with the
/// function's name.
///
/// `all`: every backend; `radix`: those whose tables are the engine's; `pages_of_4k`: those with 4
/// KiB pages. See [`for_each_backend!`].
///
/// ```
/// fn online_costs_frames(kind: hosted::BackendKind) {
///     let _ = kind;
/// }
///
/// testkit::on_backends!(all: online_costs_frames);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_backends {
    ($which:ident: $($test:ident),* $(,)?) => {
        $(
            mod $test {
                ::hosted::for_each_backend! { [$crate::tests_on_backends] $which $test }
            }
        )*
    };
}

/// The tests of one function: see [`on_backends!`].
#[doc(hidden)]
#[macro_export]
macro_rules! tests_on_backends {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*] $which:ident $test:ident) => {
        $($crate::test_on_backend! { $which [$tables $pages] $name $Type $test })*
    };
}

/// The test of one function on one backend, if it is one of those that are asked for.
#[doc(hidden)]
#[macro_export]
macro_rules! test_on_backend {
    (radix [flat $pages:ident] $($rest:tt)*) => {};
    (pages_of_4k [$tables:ident pages_of_16k] $($rest:tt)*) => {};
    (pages_of_4k [$tables:ident pages_of_64k] $($rest:tt)*) => {};
    ($which:ident [$tables:ident $pages:ident] $name:ident $Type:ident $test:ident) => {
        #[test]
        fn $name() {
            super::$test(::hosted::BackendKind::$Type);
        }
    };
}

/// A `#[test]` for each backend whose tables are the engine's out of functions that are generic over
/// [`Radix`](hosted::Radix), in a module with the function's name.
#[macro_export]
macro_rules! on_radix_backends {
    ($($test:ident),* $(,)?) => {
        $(
            mod $test {
                ::hosted::for_each_backend! { [$crate::tests_on_radix_backends] $test }
            }
        )*
    };
}

/// The tests of one function: see [`on_radix_backends!`].
#[doc(hidden)]
#[macro_export]
macro_rules! tests_on_radix_backends {
    ([$($name:ident: $Type:ident, $tables:ident, $pages:ident;)*] $test:ident) => {
        $($crate::test_on_radix_backend! { [$tables] $name $Type $test })*
    };
}

/// The test of one generic function on one backend, if its tables are the engine's.
#[doc(hidden)]
#[macro_export]
macro_rules! test_on_radix_backend {
    ([flat] $($rest:tt)*) => {};
    ([radix] $name:ident $Type:ident $test:ident) => {
        #[test]
        fn $name() {
            super::$test::<::hosted::$Type>();
        }
    };
}
