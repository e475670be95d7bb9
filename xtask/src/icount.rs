//! A kernel that counts its instructions, and what it counted beside Linux.

use crate::MachineArguments;
use crate::kernel::{Kernel, Parts};
use crate::linux::linux;
use crate::qemu::{self, Verdict};
use crate::toolchain;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::io;
use std::process::ExitCode;

/// Whether a kernel counts, on such a machine.
///
/// # Errors
///
/// Where it does not.
pub(crate) fn check(kernel: Kernel, machine: &MachineArguments) -> Result<()> {
    ensure!(
        kernel == Kernel::X86_64,
        "{kernel} does not count; use x86_64 or leave out --icount"
    );
    ensure!(
        machine.cpus.is_none(),
        "instructions are counted on one CPU; leave out --cpus"
    );
    Ok(())
}

/// Builds it, boots it, and prints a table.
///
/// # Errors
///
/// Where it cannot be built or booted, or counts nothing.
pub(crate) fn run(machine: &MachineArguments) -> Result<ExitCode> {
    let (verdict, text) = counted(machine)?;
    print!("{text}");
    eprintln!("kernel count-x86_64: {verdict}");
    Ok(ExitCode::from(verdict.status()))
}

/// The verdict, and the table; what it printed where it has not passed.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn counted(machine: &MachineArguments) -> Result<(Verdict, String)> {
    let parts = &Parts::COUNTING;
    let directory = toolchain::target_directory()?;
    let built = qemu::build(&[parts.package], parts, &directory)?;
    let (_, built) = built.first().context("nothing was built")?;
    let (verdict, output) = qemu::boot_counting(built, machine, io::sink())?;
    let text = match verdict {
        Verdict::Passed(_) => format!("{}\n{}", table(&slopes(&output)?), lazily(&output)?),
        _ => output,
    };
    Ok((verdict, text))
}

/// Instructions per GiB of one case.
#[derive(Debug, PartialEq)]
struct Slope {
    /// Pages, tails, tables, piece.
    case: [String; 4],
    online: f64,
    offline: f64,
}

/// A line of the kernel: the case, GiB, and instructions online and offline.
fn line(line: &str) -> Option<([String; 4], [f64; 3])> {
    let words: Vec<&str> = line.strip_prefix("counted ")?.split_whitespace().collect();
    let (case, numbers) = words.split_at_checked(4)?;
    let case: Vec<String> = case.iter().map(|word| (*word).to_owned()).collect();
    let numbers: Vec<f64> = numbers
        .iter()
        .filter_map(|word| word.parse().ok())
        .collect();
    Some((case.try_into().ok()?, numbers.try_into().ok()?))
}

/// Two lines of each case follow each other: of little memory and of much.
fn slopes(output: &str) -> Result<Vec<Slope>> {
    let lines: Vec<_> = output.lines().filter_map(line).collect();
    let pairs = lines.chunks(2).map(|pair| {
        let [(case, few), (same, many)] = pair else {
            anyhow::bail!("a case was counted once: {pair:?}");
        };
        ensure!(case == same && many[0] > few[0], "not one case: {pair:?}");
        let per_gib = |column: usize| (many[column] - few[column]) / (many[0] - few[0]);
        Ok(Slope {
            case: case.clone(),
            online: per_gib(1),
            offline: per_gib(2),
        })
    });
    let slopes: Vec<Slope> = pairs.collect::<Result<_>>()?;
    ensure!(!slopes.is_empty(), "nothing was counted");
    Ok(slopes)
}

/// In thousands.
fn table(slopes: &[Slope]) -> String {
    let mut text =
        "instructions per GiB, in thousands, in a kernel under QEMU; Linux 7.3 likewise\n\
                    pages  tails         tables   piece      online    Linux  offline    Linux\n"
            .to_owned();
    for Slope {
        case: [pages, tails, tables, piece],
        online,
        offline,
    } in slopes
    {
        let thousands = |count: f64| format!("{:.1}", count / 1e3);
        let linux = linux(pages);
        let beside = |count: Option<f64>| count.map_or("-".to_owned(), thousands);
        let _ = writeln!(
            text,
            "{pages:<5}  {tails:<12}  {tables:<7}  {piece:<7}  {:>8}  {:>7}  {:>7}  {:>7}",
            thousands(*online),
            beside(linux.map(|linux| linux.online_per_gib)),
            thousands(*offline),
            beside(linux.map(|linux| linux.offline_per_gib)),
        );
    }
    text
}

/// What the kernel says of RAM as it is used, as a table.
fn lazily(output: &str) -> Result<String> {
    let steps: Vec<_> = output.lines().filter_map(lazy_line).collect();
    ensure!(!steps.is_empty(), "RAM as it is used was not counted");
    let mut text = format!(
        "{:<42}  frames  instructions\n",
        "8 GiB of RAM, in blocks of 2 MiB"
    );
    for (what, [frames, instructions]) in steps {
        let _ = writeln!(text, "{what:<42}  {frames:>6}  {instructions:>12}");
    }
    Ok(text)
}

/// A line of the kernel: frames, instructions, and what was done.
fn lazy_line(line: &str) -> Option<(&str, [u64; 2])> {
    let (frames, rest) = line.trim_end().strip_prefix("lazy ")?.split_once(' ')?;
    let (instructions, what) = rest.split_once(' ')?;
    Some((what, [frames.parse().ok()?, instructions.parse().ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Command};
    use clap::Parser;

    const OUTPUT: &str = "count-x86_64\r\n\
        counted 4K none private section 4 1000 300\r\n\
        ok 4K\r\n\
        counted 4K none private section 8 9000 700\r\n\
        3 passed, 0 failed, 0 skipped\r\n";

    #[test]
    fn what_is_compared_is_the_slope_between_two_sizes() {
        let slope = Slope {
            case: ["4K", "none", "private", "section"].map(str::to_owned),
            online: 2000.0,
            offline: 100.0,
        };
        assert_eq!(slopes(OUTPUT).unwrap(), [slope]);
        let text = table(&slopes(OUTPUT).unwrap());
        let row = text.lines().last().unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[4..], ["2.0", "11906.5", "0.1", "90.7"]);
    }

    #[test]
    fn a_kernel_that_counts_too_little_is_told() {
        assert!(slopes("").is_err());
        let one: Vec<&str> = OUTPUT.lines().take(2).collect();
        assert!(slopes(&one.join("\n")).is_err());
        let other = OUTPUT.replacen("4K none", "2M none", 1);
        assert!(slopes(&other).is_err());
    }

    #[test]
    fn ram_as_it_is_used_is_a_table_of_its_own() {
        let output =
            "ok 4K\r\nlazy 32770 8000000 base pages at once\r\nlazy 20 9000 in large pages\r\n";
        let text = lazily(output).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        let words: Vec<&str> = rows[0].split_whitespace().collect();
        assert_eq!(words, ["base", "pages", "at", "once", "32770", "8000000"]);
        assert_eq!(rows.len(), 2);
        assert!(lazily(OUTPUT).is_err());
    }

    #[test]
    fn what_does_not_count_is_refused() {
        let checked = |arguments: &str| {
            let words = ["xtask", "qemu"].into_iter().chain(arguments.split(' '));
            match Arguments::try_parse_from(words).unwrap().command {
                Command::Qemu {
                    kernel, machine, ..
                } => check(kernel, &machine),
                _ => panic!("{}", "another command"),
            }
        };
        assert!(checked("x86_64 --icount").is_ok());
        assert!(checked("x86_64 --icount --memory 2G").is_ok());
        assert!(checked("x86_64 --icount --cpus 1").is_err());
        assert!(checked("aarch64 --icount").is_err());
    }
}
