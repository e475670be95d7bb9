//! The list of backends. Everything that goes through all of them follows from it.

/// Calls the macro `callback` with a line for each backend, in square brackets, and then with
/// whatever else is given:
///
/// ```text
///   for_each_backend! { [callback] arguments }
///   callback! { [name: Type, flat|radix, page size; ...] arguments }
/// ```
///
/// - `name`: what tests of it are called;
/// - `Type`: the [`Backend`](crate::Backend), and the variant of
///   [`BackendKind`](crate::BackendKind);
/// - `flat` for a plain map, `radix` for tables that the library's engine writes;
/// - the size of its base pages.
///
/// The last two have to agree with the backend; otherwise this crate does not compile.
#[macro_export]
macro_rules! for_each_backend {
    ([$($callback:tt)+] $($arguments:tt)*) => {
        $($callback)+! {
            [
                sim: Sim, flat, pages_of_4k;
                x86_64: X86_64, radix, pages_of_4k;
                x86_64_la57: X86_64La57, radix, pages_of_4k;
                aarch64_4k: AArch64_4K, radix, pages_of_4k;
                aarch64_16k: AArch64_16K, radix, pages_of_16k;
                aarch64_64k: AArch64_64K, radix, pages_of_64k;
                riscv64_sv39: RiscV64Sv39, radix, pages_of_4k;
                riscv64_sv48: RiscV64Sv48, radix, pages_of_4k;
                riscv64_sv57: RiscV64Sv57, radix, pages_of_4k;
            ]
            $($arguments)*
        }
    };
}
