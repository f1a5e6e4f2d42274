//! A password that is typed at a terminal.
//!
//! Invariant: however the question ends, the terminal shows again what is typed.

use std::io::{self, BufRead};
use std::sync::Arc;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{self, usage};
use super::progress::{say, write_to_stderr};
use super::secret::password_from_text;

/// Asks twice on standard error, and reads from standard input; both have to be a terminal.
pub fn new_password(name: &str) -> anyhow::Result<String> {
    let hidden = Arc::new(Hidden::new()?);
    end_with_the_terminal_restored(hidden.clone())?;
    let typed = ask_twice(name);
    hidden.restore();
    typed
}

fn ask_twice(name: &str) -> anyhow::Result<String> {
    let password = ask(&format!("New password of {name:?}: "))?;
    match ask("The same again: ")? == password {
        true => Ok(password),
        false => Err(usage("these are two different passwords; nothing was changed")),
    }
}

fn ask(question: &str) -> anyhow::Result<String> {
    write_to_stderr(question);
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    // The line end that was typed is not shown either.
    say("");
    read.map_err(|error| usage(format!("cannot read the password: {error}")))?;
    password_from_text(&line).map_err(|why| usage(format!("the password {why}; nothing was changed")))
}

/// A terminal that does not show what is typed.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // What was typed before the question is in sight, and no answer to it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }

    fn restore(&self) {
        // When the terminal is gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// A signal ends this program as ever, but not in the middle of a question.
fn end_with_the_terminal_restored(hidden: Arc<Hidden>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let by = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
        };
        hidden.restore();
        say(&format!("\nerror: stopped by {by}"));
        std::process::exit(exit::Exit::Failure as i32);
    });
    Ok(())
}
