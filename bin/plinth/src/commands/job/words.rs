//! How times and states of jobs are put into words.
//!
//! Invariant: what is read by people only; programs get `--json`, with moments and seconds.

use std::time::Duration;

use plinth_client::wire::jobs::Job;
use plinth_types::Timestamp;

use crate::table::{Cell, Tone};

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];

/// The two largest units; tenths below ten seconds, thousandths below one.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{} ms", duration.as_millis().max(1));
    }
    if seconds < 10 {
        let tenths = duration.as_millis() / 100;
        return if tenths.is_multiple_of(10) { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) };
    }
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, length) in UNITS {
        if rest >= length {
            words.push(format!("{} {unit}", rest / length));
        }
        rest %= length;
    }
    words.truncate(2);
    words.join(" ")
}

/// The largest unit, for columns.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, length) = UNITS.into_iter().find(|(_, length)| seconds >= *length).unwrap_or(("s", 1));
    format!("{} {unit}", seconds / length)
}

/// `5 min ago`, `in 2 h`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        return format!("in {}", short(at.since(now).max(Duration::from_secs(1))));
    }
    match now.since(at) {
        moment if moment < Duration::from_secs(1) => "now".to_owned(),
        past => format!("{} ago", short(past)),
    }
}

/// A moment with how far it is.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{at} ({})", relative(at, now))
}

/// Whether a job in this state has ended.
pub fn ended(state: &str) -> bool {
    matches!(state, "succeeded" | "dead" | "cancelled")
}

/// A state in its colour.
pub fn state(state: &str) -> Cell {
    Cell::new(state, tone(state))
}

fn tone(state: &str) -> Tone {
    match state {
        "succeeded" => Tone::Good,
        "dead" => Tone::Bad,
        "running" => Tone::Strong,
        "blocked" | "scheduled" => Tone::Warning,
        "cancelled" => Tone::Faint,
        _ => Tone::Normal,
    }
}

/// Where a job stands, in its colour.
pub fn standing_cell(job: &Job, now: Timestamp) -> Cell {
    Cell::new(standing(job, now), tone(&job.state))
}

/// Where a job stands, with what can be said about its line.
pub fn standing(job: &Job, now: Timestamp) -> String {
    let mut text = job.state.clone();
    match job.state.as_str() {
        "ready" => {
            if let Some(position) = job.position {
                text.push_str(&if position == 0 { ", next in line".to_owned() } else { format!(", {position} before it") });
            }
            if let Some(wait) = job.wait_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                text.push_str(&format!(", begins in about {}", span(wait)));
            }
        }
        "scheduled" if job.attempt > 0 => text.push_str(&format!(", tried again {}", relative(job.run_at, now))),
        "scheduled" => text.push_str(&format!(", begins {}", relative(job.run_at, now))),
        "blocked" => text.push_str(&format!(", waits for {}", count(u64::from(job.waits_for), "job"))),
        "running" if job.cancel_asked => text.push_str(", asked to end"),
        "running" if job.attempt > 1 => text.push_str(&format!(", attempt {} of {}", job.attempt, job.max_attempts)),
        _ => {}
    }
    text
}

/// `42%`; nothing for what has not begun to count.
pub fn progress(job: &Job) -> String {
    let begun = job.progress > 0.0 || job.state == "running";
    if begun { format!("{:.0}%", (job.progress * 100.0).clamp(0.0, 100.0).floor()) } else { "-".to_owned() }
}

/// `name=value` pairs.
pub fn labels(job: &Job) -> String {
    job.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// `1 job`, `2 jobs`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// For how long it has run, or ran the last time.
pub fn took(job: &Job, now: Timestamp) -> Option<Duration> {
    let begun = job.started_at?;
    Some(job.ended_at.unwrap_or(now).since(begun))
}

/// A job for tests.
#[cfg(test)]
pub fn example(state: &str) -> Job {
    let at = |millis| Timestamp::from_millis(millis).unwrap();
    Job {
        id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        kind: "infer".into(),
        state: state.into(),
        class: "default".into(),
        priority: 0,
        attempt: 1,
        max_attempts: 3,
        progress: 0.0,
        position: None,
        wait_seconds: None,
        waits_for: 0,
        cancel_asked: false,
        created_at: at(60_000),
        run_at: at(60_000),
        started_at: None,
        ended_at: None,
        worker: None,
        parent: None,
        actor: "key/a".into(),
        labels: [("team".to_owned(), "vision".to_owned())].into(),
        webhook: None,
        error: None,
        result_size: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000).unwrap()
    }

    #[test]
    fn spans_have_two_units_and_tenths_when_short() {
        for (millis, text) in [
            (0, "0 s"),
            (340, "340 ms"),
            (1_250, "1.2 s"),
            (2_000, "2 s"),
            (12_999, "12 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (90_061_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (119, "1 min"), (7300, "2 h"), (200_000, "2 d")] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn moments_are_told_from_now() {
        assert_eq!(relative(at(100), at(100)), "now");
        assert_eq!(relative(at(100), at(400)), "5 min ago");
        assert_eq!(relative(at(8000), at(400)), "in 2 h");
        assert_eq!(moment(at(0), at(5)), "1970-01-01T00:00:00.000Z (5 s ago)");
    }

    #[test]
    fn what_a_job_waits_for_is_said() {
        let text = |job: &Job| standing(job, at(60));
        let ready = Job { position: Some(3), wait_seconds: Some(12.0), ..example("ready") };
        assert_eq!(text(&ready), "ready, 3 before it, begins in about 12 s");
        assert_eq!(text(&Job { position: Some(0), ..example("ready") }), "ready, next in line");
        assert_eq!(text(&Job { run_at: at(90), attempt: 0, ..example("scheduled") }), "scheduled, begins in 30 s");
        assert_eq!(text(&Job { run_at: at(90), ..example("scheduled") }), "scheduled, tried again in 30 s");
        assert_eq!(text(&Job { waits_for: 1, ..example("blocked") }), "blocked, waits for 1 job");
        assert_eq!(text(&Job { attempt: 2, ..example("running") }), "running, attempt 2 of 3");
        assert_eq!(text(&Job { cancel_asked: true, ..example("running") }), "running, asked to end");
        assert_eq!(text(&example("dead")), "dead");
    }

    #[test]
    fn progress_is_never_rounded_up_to_done() {
        for (state, done, text) in [("ready", 0.0, "-"), ("running", 0.0, "0%"), ("running", 0.999, "99%"), ("succeeded", 1.0, "100%")] {
            assert_eq!(progress(&Job { progress: done, ..example(state) }), text);
        }
    }
}
