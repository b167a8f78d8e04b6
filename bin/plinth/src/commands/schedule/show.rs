//! `plinth schedule list` and `show`.

use plinth_client::wire::jobs::Schedule;
use plinth_types::Timestamp;
use serde_json::Value;

use super::pause::job;
use crate::commands::job::words;
use crate::output::{plain, table_or};
use crate::table::{Cell, Table, Tone};

/// All schedules as a table.
pub fn list(schedules: &[Schedule], now: Timestamp) -> String {
    let mut table = Table::new(&["NAME", "WHEN", "ZONE", "STATE", "NEXT", "LAST", "KIND"]);
    let moment = |at: Option<Timestamp>| at.map_or_else(|| Cell::new("-", Tone::Faint), |at| words::relative(at, now).into());
    for schedule in schedules {
        table.row([
            (&schedule.name).into(),
            (&schedule.cron).into(),
            (&schedule.zone).into(),
            state(schedule),
            moment(schedule.next_at),
            moment(schedule.last_at),
            kind(schedule).into(),
        ]);
    }
    table_or(&table, "no schedules; make one with `plinth schedule put NAME --cron WHEN ...`")
}

/// One with what it hands in.
pub fn one(schedule: &Schedule, now: Timestamp) -> String {
    let mut facts = Table::facts();
    facts.fact("schedule", Cell::new(&schedule.name, Tone::Strong));
    facts.fact("when", format!("{}, {}", schedule.cron, schedule.zone));
    facts.fact("state", state(schedule));
    let moment = |at: Option<Timestamp>, none: &str| at.map_or_else(|| none.to_owned(), |at| words::moment(at, now));
    facts.fact("next", moment(schedule.next_at, "never"));
    facts.fact("last", moment(schedule.last_at, "never"));
    if let Some(rule) = schedule.more.get("catch_up").and_then(Value::as_str) {
        facts.fact("catches up", rule);
    }
    if let Some(jitter) = schedule.more.get("jitter_seconds").and_then(Value::as_f64).filter(|jitter| *jitter > 0.0) {
        facts.fact("put off by", format!("up to {jitter} s"));
    }
    facts.fact("kind", kind(schedule));
    if let Some(input) = schedule.more.get("input").filter(|input| !input.is_null()) {
        // As far as a cell goes; `--json` shows all of it.
        facts.fact("input", input.to_string());
    }
    let Some(job) = job(schedule) else { return facts.render() };
    let pretty = serde_json::to_string_pretty(&said(&job)).unwrap_or_default();
    let lines: Vec<_> = pretty.lines().map(plain).collect();
    format!("{}\n\n{}", facts.render(), lines.join("\n"))
}

/// What came of a change.
pub fn sentence(schedule: &Schedule, now: Timestamp) -> String {
    let name = plain(&schedule.name);
    match schedule.next_at {
        _ if schedule.paused => format!("{name} rests until `plinth schedule resume {name}`"),
        Some(next) => format!("{name} hands in its next job at {}", words::moment(next, now)),
        None => format!("{name} never comes: its time does not exist"),
    }
}

fn state(schedule: &Schedule) -> Cell {
    if schedule.paused { Cell::new("paused", Tone::Warning) } else { Cell::new("active", Tone::Good) }
}

fn kind(schedule: &Schedule) -> &str {
    schedule.more.get("job").and_then(|job| job.get("kind")).and_then(Value::as_str).unwrap_or("-")
}

/// Without what nobody has said.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(_, value)| !empty(value)).map(|(name, value)| (name.clone(), said(value))).collect()
        }
        other => other.clone(),
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn schedules_are_shown() {
        let now = Timestamp::from_millis(300_000).unwrap();
        let strip = |text: String| anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(strip(list(&[example(false), example(true)], now)), @r"
        NAME     WHEN             ZONE           STATE   NEXT    LAST       KIND
        nightly  0 3 * * MON-FRI  Europe/Berlin  active  in 1 h  5 min ago  infer
        nightly  0 3 * * MON-FRI  Europe/Berlin  paused  -       5 min ago  infer
        ");
        insta::assert_snapshot!(strip(one(&example(false), now)), @r#"
        schedule    nightly
        when        0 3 * * MON-FRI, Europe/Berlin
        state       active
        next        1970-01-01T02:00:00.000Z (in 1 h)
        last        1970-01-01T00:00:00.000Z (5 min ago)
        catches up  once
        put off by  up to 60 s
        kind        infer
        input       {"inputs":[1]}

        {
          "kind": "infer",
          "labels": {
            "model": "digits"
          },
          "model": "digits",
          "priority": 0,
          "version": "2"
        }
        "#);
        assert_eq!(list(&[], now), "no schedules; make one with `plinth schedule put NAME --cron WHEN ...`");
        assert_eq!(sentence(&example(false), now), "nightly hands in its next job at 1970-01-01T02:00:00.000Z (in 1 h)");
        assert!(sentence(&example(true), now).contains("resume nightly"));
    }
}
