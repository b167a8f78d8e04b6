//! Waiting for a batch with a bar that counts rows.
//!
//! Invariant: the batch belongs to the node; whoever stops waiting ends nothing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plinth_client::wire::files::BulkRows;
use plinth_client::wire::jobs::Job;
use plinth_client::{Client, Error};
use plinth_runtime::{Clock, SystemClock};

use crate::commands::job::advised;
use crate::commands::job::patience::Patience;
use crate::commands::job::words;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Before a stream that the node has closed is opened again.
const PAUSE: Duration = Duration::from_millis(250);

/// The bar.
struct Bar {
    bar: ProgressBar,
    /// When the first rows were told, and how many there were.
    since: Option<(Duration, u64)>,
}

impl Bar {
    fn new(output: Output) -> Self {
        let target = if output.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {bar:30.cyan/dim} {percent:>3}%  {elapsed:>4.dim}  {wide_msg}") {
            bar.set_style(style.progress_chars("━━─"));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, since: None }
    }

    fn job(&self, job: &Job) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 1000")]
        self.bar.set_position((job.progress.clamp(0.0, 1.0) * 1000.0) as u64);
        if job.state != "running" {
            self.bar.set_message(words::standing(job, SystemClock.now()));
        }
    }

    fn rows(&mut self, told: BulkRows) {
        let now = SystemClock.monotonic();
        let (since, first) = *self.since.get_or_insert((now, told.rows));
        self.bar.set_message(line(told, told.rows - first.min(told.rows), now.saturating_sub(since)));
    }
}

/// `120000 rows, 3 with errors, 41000 a second`.
fn line(told: BulkRows, counted: u64, took: Duration) -> String {
    let mut text = words::count(told.rows, "row");
    if told.failed > 0 {
        text.push_str(&format!(", {} with errors", told.failed));
    }
    if counted > 0 && !took.is_zero() {
        text.push_str(&format!(", {:.0} a second", counted as f64 / took.as_secs_f64()));
    }
    text
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The job when it has ended. An interruption ends the waiting alone, and says how to go on.
pub async fn until_ended(client: &Client, id: &str, output: Output) -> Result<Job, Failure> {
    tokio::select! {
        ended = ended(client, id, output) => ended,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::new(Exit::Failed, "interrupted; the batch goes on")
                .next(format!("`plinth batch resume {id}` waits for it and gets its output"))
                .next(format!("`plinth batch cancel {id}` ends it")))
        }
    }
}

async fn ended(client: &Client, id: &str, output: Output) -> Result<Job, Failure> {
    let mut bar = Bar::new(output);
    let mut patience = Patience::default();
    let mut after: Option<String> = None;
    loop {
        let end = async {
            let mut events = client.job_events(id, after.as_deref()).await?;
            while let Some(event) = events.next().await? {
                patience.renew();
                if event.own_id {
                    after.clone_from(&event.id);
                }
                match event.name.as_str() {
                    "rows" => {
                        if let Ok(told) = serde_json::from_str(&event.data) {
                            bar.rows(told);
                        }
                    }
                    "job" => {
                        if let Ok(job) = serde_json::from_str::<Job>(&event.data) {
                            bar.job(&job);
                            if words::ended(&job.state) {
                                return Ok(Some(job));
                            }
                        }
                    }
                    _ => {}
                }
            }
            Ok::<_, Error>(None)
        };
        match end.await {
            Ok(Some(job)) => return Ok(job),
            // The node goes and its successor knows the rest.
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Err(error) if patience.again(&error).await => {}
            Err(error) => return Err(advised(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let told = BulkRows { rows: 3000, failed: 0 };
        assert!(!line(told, 0, Duration::ZERO).contains("second"));
        let text = line(BulkRows { failed: 2, ..told }, 1000, Duration::from_millis(500));
        assert!(text.contains("2 with errors, 2000 a second"), "{text}");
    }
}
