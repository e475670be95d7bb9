//! Bad arguments in one line: which argument, and what it takes.

use crate::args::Cli;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};
use std::error::Error as _;

/// One line that names the argument and what it takes.
pub fn one_line(error: &Error) -> String {
    let argument = text(error, ContextKind::InvalidArg);
    let line = match (error.kind(), argument) {
        (ErrorKind::ValueValidation, Some(argument)) => {
            error.source().map(|why| format!("{argument}: {why}"))
        }
        (ErrorKind::InvalidValue, Some(argument)) => Some(invalid_value(error, &argument)),
        (ErrorKind::MissingRequiredArgument, Some(argument)) => {
            Some(format!("{argument} is missing; --help says what it takes"))
        }
        (ErrorKind::UnknownArgument, Some(argument)) => Some(unknown_argument(error, &argument)),
        (ErrorKind::ArgumentConflict, Some(argument)) => Some(conflict(error, &argument)),
        // An option before a command; clap names both.
        (ErrorKind::ArgumentConflict, None) => Some(format!(
            "{}; options of a command go behind it",
            first_line(error)
        )),
        (ErrorKind::InvalidSubcommand, _) => {
            text(error, ContextKind::InvalidSubcommand).map(|name| invalid_command(error, &name))
        }
        (ErrorKind::InvalidUtf8, _) => Some("arguments must be UTF-8 text".to_owned()),
        _ => None,
    };
    let line = line.unwrap_or_else(|| first_line(error));
    // An argument may contain line breaks, and what controls a terminal.
    line.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_debug().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

fn conflict(error: &Error, argument: &str) -> String {
    match text(error, ContextKind::PriorArg) {
        Some(other) if other != argument => {
            format!("{argument} cannot be used with {other}; leave one of them out")
        }
        _ => format!("{argument} is given twice; give it once"),
    }
}

fn invalid_command(error: &Error, name: &str) -> String {
    // Behind 'help', clap does not say what is near; it does where the command itself is asked for.
    let asked = match error.get(ContextKind::SuggestedSubcommand) {
        Some(_) => None,
        None => Cli::command()
            .try_get_matches_from(["explorer", name])
            .err(),
    };
    let error = asked.as_ref().unwrap_or(error);
    let meant = did_you_mean(error, ContextKind::SuggestedSubcommand);
    format!(
        "'{name}' is no command{meant} takes online, fold, reorder, lazy, draw, chart, inspect, dump, plan or help, or nothing"
    )
}

fn invalid_value(error: &Error, argument: &str) -> String {
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("takes one of {}", valid.join(", "))
        }
        _ => "takes a value; --help says which".to_owned(),
    };
    let meant = did_you_mean(error, ContextKind::SuggestedValue);
    match text(error, ContextKind::InvalidValue) {
        Some(value) if !value.is_empty() => format!("{argument}: not '{value}'{meant} {valid}"),
        _ => format!("{argument} {valid}"),
    }
}

fn unknown_argument(error: &Error, argument: &str) -> String {
    let meant = did_you_mean(error, ContextKind::SuggestedArg);
    format!("unknown argument '{argument}'{meant} --help lists what there is")
}

/// What is much like what was said, if anything is, up to the next part of the sentence.
fn did_you_mean(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(near)) => format!("; did you mean '{near}'?"),
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            format!("; did you mean '{}'?", near.join("' or '"))
        }
        _ => ";".to_owned(),
    }
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    }
}

fn first_line(error: &Error) -> String {
    let all = error.to_string();
    let line = all.lines().next().unwrap_or("bad arguments");
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
