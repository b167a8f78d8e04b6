//! Progress bars on standard error: only when it is a terminal and the work is worth it, gone when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Less than this is over before a bar can be read.
const WORTH_A_BAR: u64 = 4 << 20;

/// A bar that counts bytes; draws nothing where nobody watches. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    watched: bool,
}

impl Progress {
    pub fn bytes(output: Output, what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_message(what);
        let template = "{msg:>9} {bar:30.cyan/dim} {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec:>12}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        Self { bar, watched: output.draws_progress() }
    }

    /// A bar that counts things, each of which takes a while.
    pub fn count(output: Output, what: &'static str, total: u64) -> Self {
        let watched = output.draws_progress();
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg:>9} {bar:30.cyan/dim} {human_pos} of {human_len}  {per_sec}  {eta} left") {
            bar.set_style(style.progress_chars("━━─"));
        }
        Self { bar, watched }
    }

    /// Something that takes a while and has no measure.
    pub fn spinner(output: Output, what: &'static str) -> Self {
        let watched = output.draws_progress();
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, watched }
    }

    pub fn of(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.total(total);
        }
        self.bar.set_position(done);
    }

    pub fn total(&self, total: u64) {
        self.bar.set_length(total);
        if self.watched && total >= WORTH_A_BAR {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    pub fn done(&self, done: u64) {
        self.bar.set_position(done);
    }

    pub fn message(&self, what: &'static str) {
        self.bar.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // An error leaves early; its text must not stand beside a half-drawn bar.
        self.bar.finish_and_clear();
    }
}
