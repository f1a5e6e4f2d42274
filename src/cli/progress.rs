//! What a person is told on standard error: sentences, and progress bars when it is a terminal.
//!
//! Invariant: whether anybody can read it changes nothing else. A full disk under a log, or a pipe that nobody reads any more, would end the program
//! if it were told with `eprintln!`.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, WeakProgressBar};
use parking_lot::Mutex;

/// Bars for less than this would only flicker.
pub const SHOWN_FROM_BYTES: u64 = 8 * 1024 * 1024;
/// How often a spinner turns when nothing else redraws it.
const TICK: Duration = Duration::from_millis(200);

/// The bar that is shown; a command has one at a time.
static SHOWN: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Says something in a line of its own, above the bar if one is shown.
pub fn say(text: &str) {
    let bar = SHOWN.lock().clone();
    match bar.and_then(|bar| bar.upgrade()) {
        Some(bar) => bar.suspend(|| write_to_stderr(&format!("{text}\n"))),
        None => write_to_stderr(&format!("{text}\n")),
    }
}

pub fn write_to_stderr(text: &str) {
    // Where this cannot be said, that it cannot cannot be said either.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn shown(bar: ProgressBar) -> ProgressBar {
    *SHOWN.lock() = Some(bar.downgrade());
    bar
}

/// Bytes done of `total_bytes`.
pub fn bytes_bar(total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
    style(bar, "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}")
}

/// Bytes done; nobody knows of how many.
pub fn bytes_spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let bar = style(bar, "{spinner} {bytes} {bytes_per_sec} {msg}");
    bar.enable_steady_tick(TICK);
    bar
}

fn style(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that does not parse leaves the usual look.
    shown(match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}

/// Shows a hidden bar as a spinner of bytes.
pub fn show_on_stderr(bar: &ProgressBar) {
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}") {
        bar.set_style(style);
    }
    shown(bar.clone());
}

/// Things done of `total`.
pub fn count_bar(total: u64, things: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_message(things);
    style(bar, "{bar:30} {human_pos}/{human_len} {msg} {eta}")
}

/// One line of text that is written over.
pub fn text_line() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    style(bar, "{msg}")
}
