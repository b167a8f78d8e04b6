//! Progress bars on standard error: only when it is a terminal, gone when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A bar that counts bytes; draws nothing where nobody watches. Cheap to clone.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn bytes(output: Output, what: &'static str) -> Self {
        let target = if output.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        let template = "{msg:>9} {bar:30.cyan/dim} {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec:>12}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        Self(bar)
    }

    /// Something that takes a while and has no measure.
    pub fn spinner(output: Output, what: &'static str) -> Self {
        let target = if output.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    pub fn of(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub fn total(&self, total: u64) {
        self.0.set_length(total);
    }

    pub fn done(&self, done: u64) {
        self.0.set_position(done);
    }

    pub fn message(&self, what: &'static str) {
        self.0.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // An error leaves early; its text must not stand beside a half-drawn bar.
        self.0.finish_and_clear();
    }
}
