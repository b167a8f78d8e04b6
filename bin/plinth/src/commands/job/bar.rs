//! The bar that stands on standard error while a command waits for jobs: gone when the waiting is over.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plinth_client::wire::jobs::Job;
use plinth_types::Timestamp;

use super::words;
use crate::output::Output;

/// Thousandths make a bar that moves smoothly.
const WHOLE: u64 = 1000;

/// A bar with a line about where the job stands.
pub struct Bar {
    bar: ProgressBar,
    /// How many jobs it stands for.
    jobs: usize,
    watched: bool,
}

impl Bar {
    pub fn new(output: Output, jobs: usize) -> Self {
        let watched = output.draws_progress();
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(WHOLE), target);
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {bar:30.cyan/dim} {percent:>3}%  {elapsed:>4.dim}  {wide_msg}") {
            bar.set_style(style.progress_chars("━━─"));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, jobs, watched }
    }

    /// Whether somebody looks, so that it is worth asking often.
    pub const fn watched(&self) -> bool {
        self.watched
    }

    /// `done` jobs have ended, and this one stands like this.
    pub fn show(&self, done: usize, job: &Job, now: Timestamp) {
        self.bar.set_position(position(done, self.jobs, job));
        let standing = words::standing(job, now);
        let text = if self.jobs > 1 { format!("{done} of {} jobs ended; {standing}", self.jobs) } else { standing };
        self.bar.set_message(text);
    }
}

/// Thousandths of all jobs together.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 1000")]
fn position(done: usize, jobs: usize, job: &Job) -> u64 {
    let this = (job.progress.clamp(0.0, 1.0) * 1000.0) as u64;
    (done as u64).saturating_mul(WHOLE).saturating_add(this).checked_div(jobs as u64).unwrap_or(0).min(WHOLE)
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_jobs_share_one_bar() {
        let half = Job { progress: 0.5, ..words::example("running") };
        assert_eq!(position(0, 1, &half), 500);
        assert_eq!(position(1, 2, &half), 750);
        assert_eq!(position(2, 2, &half), WHOLE);
        assert_eq!(position(0, 1, &Job { progress: f64::NAN, ..half }), 0);
    }
}
