//! How the program ends: what went wrong as an exit code that scripts can use.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::bench::LoadError;
use crate::client::ClientError;

use super::progress::say;

/// Shown at the end of `kv --help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  any other failure
  2  wrong usage or settings, or a file that cannot be opened; nothing was sent
  3  no node can be reached, what answers is none, or the connection broke
  4  user or password refused, or the user may not do this
  5  refused: the input is not UTF-8, too large, or not what the call takes; or the user or node that it names is not
     there, is there already, or cannot be changed so
  6  the node is overloaded, its disk is full, too few replicas answered, or the request came too slowly; the command may
     work later, an add that may be stored with the --request-id that its message names
A reader of standard output that has seen enough (`| head`) is no failure. What a signal ends has 1 where it says what
was done by then, and otherwise what the shell makes of the signal: 130 for Ctrl-C.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failure = 1,
    Usage = 2,
    Unreachable = 3,
    Credentials = 4,
    Refused = 5,
    Unavailable = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failure found by the command line itself.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    RefusedInput(String),
}

pub fn usage(text: impl Into<String>) -> anyhow::Error {
    CliError::Usage(text.into()).into()
}

/// A file that was named on the command line and cannot be opened.
pub fn unopened(path: &Path, error: &io::Error) -> anyhow::Error {
    usage(format!("cannot open {}: {error}", path.display()))
}

/// What an error means to a script: the first cause in its chain that says.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Failure)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<CliError>() {
        return Some(match error {
            CliError::Usage(_) => Exit::Usage,
            CliError::RefusedInput(_) => Exit::Refused,
        });
    }
    if cause.is::<crate::config::ConfigError>() {
        return Some(Exit::Usage);
    }
    // The reader of the output has seen enough.
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return (error.kind() == io::ErrorKind::BrokenPipe).then_some(Exit::Done);
    }
    if let Some(LoadError::Connect { .. }) = cause.downcast_ref() {
        return Some(Exit::Unreachable);
    }
    cause.downcast_ref::<ClientError>().map(exit_of_call)
}

fn exit_of_call(error: &ClientError) -> Exit {
    match error {
        ClientError::Setup(_) => Exit::Usage,
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::NoSuchCall { .. }
        | ClientError::BadAnswer { .. } => Exit::Unreachable,
        ClientError::Credentials { .. } | ClientError::Forbidden { .. } => Exit::Credentials,
        ClientError::BadRequest { .. } | ClientError::TooLarge { .. } => Exit::Refused,
        // Somebody or something is not there, or stands against it.
        ClientError::Refused { status: 404 | 409, .. } => Exit::Refused,
        ClientError::Unavailable { .. } | ClientError::DiskFull { .. } => Exit::Unavailable,
        ClientError::Refused { .. } | ClientError::Server { .. } => Exit::Failure,
    }
}

/// What to do about an error; attached to it as its outermost context.
#[derive(Debug)]
pub struct Advice(pub String);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The causes in one line, none of them twice: some errors say their cause themselves.
fn causes_text<'a>(causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in causes {
        let cause = cause.to_string();
        if text.ends_with(&cause) && !text.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Says on standard error what went wrong and what to do, and gives the code to end with.
pub fn report(error: &anyhow::Error) -> Exit {
    let exit = exit_of(error);
    if exit == Exit::Done {
        return exit;
    }
    let advice = error.downcast_ref::<Advice>();
    let causes = causes_text(error.chain().skip(usize::from(advice.is_some())));
    say(&format!("error: {causes}"));
    if let Some(advice) = advice {
        say(&format!("hint: {advice}"));
    }
    exit
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        exit_of(&error.into()) as u8
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let detail = || "d".to_owned();
        assert_eq!(code(anyhow::anyhow!("anything")), 1);
        assert_eq!(code(usage("u")), 2);
        assert_eq!(code(ClientError::Setup(detail())), 2);
        assert_eq!(code(ClientError::Unreachable { tried: Vec::new() }), 3);
        assert_eq!(code(ClientError::Credentials { detail: detail() }), 4);
        assert_eq!(code(ClientError::Forbidden { detail: detail() }), 4);
        assert_eq!(code(ClientError::BadRequest { fields: Vec::new() }), 5);
        assert_eq!(code(ClientError::TooLarge { detail: detail() }), 5);
        assert_eq!(code(CliError::RefusedInput(detail())), 5);
        let refused = |status| ClientError::Refused {
            status,
            detail: detail(),
        };
        assert_eq!([404, 409, 415].map(|status| code(refused(status))), [5, 5, 1]);
        let unknown = ClientError::NoSuchCall {
            url: detail(),
            path: detail(),
            status: 404,
        };
        assert_eq!(code(unknown), 3);
        let garbled = ClientError::BadAnswer {
            url: detail(),
            what: detail(),
        };
        assert_eq!(code(garbled), 3);
        assert_eq!(code(unopened(Path::new("f"), &io::ErrorKind::NotFound.into())), 2);
        assert_eq!(code(ClientError::DiskFull { detail: detail() }), 6);
        let overloaded = ClientError::Unavailable {
            detail: detail(),
            code: None,
            retry_after: None,
        };
        assert_eq!(code(overloaded), 6);
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let inner = || io::Error::other("disk gone");
        let error = anyhow::Error::new(inner())
            .context("cannot write f: disk gone")
            .context("line 3");
        assert_eq!(causes_text(error.chain()), "line 3: cannot write f: disk gone");
        let error = anyhow::Error::new(inner()).context("cannot write f");
        assert_eq!(causes_text(error.chain()), "cannot write f: disk gone");
    }

    #[test]
    fn context_does_not_hide_the_exit_code() {
        let error = Err::<(), _>(ClientError::DiskFull { detail: "d".to_owned() })
            .context("line 5")
            .unwrap_err();
        assert_eq!(exit_of(&error), Exit::Unavailable);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe)), 0);
        assert_eq!(code(io::Error::from(io::ErrorKind::NotFound)), 1);
    }
}
