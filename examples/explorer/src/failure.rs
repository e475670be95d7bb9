//! Why an operation was not done: a kind for programs, a message for people.

use hosted::MachineError;
use mm_core::addr::RangeError;
use mm_core::error::ErrorKind;
use mm_core::vmemmap::{FoldError, OnlineError};
use serde::Serialize;
use std::fmt;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The library's name for the kind of error, or `too-large` or `host` where the simulation is
    /// at its limit.
    pub kind: &'static str,
    /// What went wrong and, where there is something, what to do.
    pub message: String,
}

impl Failure {
    /// A failure of a kind that the library names.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind: kind.name(),
            message: message.to_string(),
        }
    }

    /// What was asked for is more than the simulation may use of the host.
    pub fn too_large(message: String) -> Self {
        Self {
            kind: "too-large",
            message,
        }
    }

    /// The simulation does not work as it should.
    pub fn host(message: impl fmt::Display) -> Self {
        Self {
            kind: "host",
            message: message.to_string(),
        }
    }

    /// The same, with what was being done.
    pub fn while_doing(self, what: impl fmt::Display) -> Self {
        Self {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    /// `what` is no range, or no altmap.
    pub fn range(what: impl fmt::Display, error: RangeError) -> Self {
        Self::new(error.kind(), format_args!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<OnlineError> for Failure {
    fn from(error: OnlineError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<FoldError> for Failure {
    fn from(error: FoldError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::NoRoomForRam { .. } => Self::too_large(error.to_string()),
            error => Self::host(error),
        }
    }
}
