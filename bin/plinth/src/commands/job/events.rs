//! `plinth job events`: what a job tells while it runs.
//!
//! Invariant: each event is shown once. After a broken connection the stream is taken up behind the last event that had an id; how the job
//! stands (`job`, without an id) is told anew by each connection, and is shown again only when it has changed.

use std::time::Duration;

use plinth_client::jobs::{Event, Events};
use plinth_client::wire::jobs::Job;
use plinth_client::{Client, Error};
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::patience::Patience;
use super::{advised, id, words};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, plain};

/// When nothing more comes for so long, all that was there has been told.
const QUIET: Duration = Duration::from_millis(700);
/// Before a stream is opened again that the node has closed.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --json each event is one line: {\"id\": ..., \"event\": ..., \"data\": ...}.

Examples:
  plinth job events 01890a5d-ac96-774b-bcce-b302099a8057 -f
  plinth job events 01890a5d-ac96-774b-bcce-b302099a8057 --after 17 --json")]
pub struct Args {
    /// The job
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    /// Go on until the job has ended
    #[arg(long, short)]
    follow: bool,

    /// Begin after the event with this id
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
}

/// Shows them.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let mut told = Told { after: args.after.clone(), stands: None, output: context.output };
    if args.follow {
        return context.wait(follow(&args.id, &client, &mut told));
    }
    context.wait(async {
        let mut events = client.job_events(&args.id, told.after.as_deref()).await.map_err(advised)?;
        while let Ok(next) = tokio::time::timeout(QUIET, events.next()).await {
            let Some(event) = next? else { break };
            told.tell(&event)?;
        }
        Ok(())
    })
}

async fn follow(id: &str, client: &Client, told: &mut Told) -> Result<(), Failure> {
    let mut patience = Patience::default();
    loop {
        let end = match client.job_events(id, told.after.as_deref()).await {
            Ok(events) => drain(events, told, &mut patience).await?,
            Err(error) => Err(error),
        };
        match end {
            _ if told.ended() => return Ok(()),
            // The node goes and its successor knows the rest.
            Ok(()) => tokio::time::sleep(PAUSE).await,
            Err(error) if patience.again(&error).await => {}
            Err(error) => return Err(advised(error)),
        }
    }
}

/// Tells a connection's events; how the connection ended.
async fn drain(mut events: Events, told: &mut Told, patience: &mut Patience) -> Result<Result<(), Error>, Failure> {
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                patience.renew();
                told.tell(&event)?;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// What has been shown.
struct Told {
    after: Option<String>,
    /// How the job stood when it was last told.
    stands: Option<Job>,
    output: Output,
}

impl Told {
    fn ended(&self) -> bool {
        self.stands.as_ref().is_some_and(|job| words::ended(&job.state))
    }

    fn tell(&mut self, event: &Event) -> Result<(), Failure> {
        if event.own_id {
            self.after.clone_from(&event.id);
        } else if let Some(job) = stands(event) {
            let moved = self
                .stands
                .as_ref()
                .is_none_or(|last| (last.state.as_str(), last.progress, last.attempt) != (job.state.as_str(), job.progress, job.attempt));
            self.stands = Some(job);
            if !moved {
                return Ok(());
            }
        }
        self.output.print(&if self.output.is_json() { json(event)? } else { line(event, SystemClock.now()) })
    }
}

/// The job, when the event tells how it stands.
fn stands(event: &Event) -> Option<Job> {
    if event.name == "job" && !event.own_id { serde_json::from_str(&event.data).ok() } else { None }
}

#[derive(Serialize)]
struct Line<'a> {
    id: Option<&'a str>,
    event: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(Box<RawValue>),
    Text(&'a str),
}

fn json(event: &Event) -> Result<String, Failure> {
    // In one line whatever the job has written.
    let compact = serde_json::from_str::<serde_json::Value>(&event.data).ok().filter(|_| event.data.contains('\n'));
    let data = match compact {
        Some(value) => RawValue::from_string(value.to_string()).ok(),
        None => serde_json::from_str(&event.data).ok(),
    };
    let id = event.id.as_deref().filter(|_| event.own_id);
    let line = Line { id, event: &event.name, data: data.map_or(Data::Text(&event.data), Data::Json) };
    serde_json::to_string(&line).map_err(|e| Failure::new(Exit::Failed, format!("the event cannot be written as JSON: {e}")))
}

fn line(event: &Event, now: Timestamp) -> String {
    if let Some(job) = stands(event) {
        let progress = if job.state == "running" { format!(", {}", words::progress(&job)) } else { String::new() };
        return format!("{:>4}  {:<10}  {}{progress}", "-", "job", plain(&words::standing(&job, now)));
    }
    let id = event.id.as_deref().filter(|_| event.own_id).unwrap_or("-");
    format!("{:>4}  {:<10}  {}", plain(id), plain(&event.name), plain(&event.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(own_id: bool, data: &str) -> Event {
        Event { id: Some("7".into()), own_id, name: "step".into(), data: data.into() }
    }

    fn standing(job: &Job) -> Event {
        Event { id: None, own_id: false, name: "job".into(), data: serde_json::to_string(job).unwrap() }
    }

    #[test]
    fn an_event_is_a_line() {
        let now = Timestamp::from_millis(0).unwrap();
        assert_eq!(line(&event(true, "{\"done\":0.5}"), now), "   7  step        {\"done\":0.5}");
        assert_eq!(line(&event(false, "a\u{1b}b\nc"), now), "   -  step        a\u{fffd}b\u{fffd}c");
        let running = Job { progress: 0.5, attempt: 2, ..words::example("running") };
        assert_eq!(line(&standing(&running), now), "   -  job         running, attempt 2 of 3, 50%");
        assert_eq!(json(&event(true, "{\"n\": 1.0}")).unwrap(), r#"{"id":"7","event":"step","data":{"n": 1.0}}"#);
        assert_eq!(json(&event(true, "{\n\"n\":1}")).unwrap(), r#"{"id":"7","event":"step","data":{"n":1}}"#);
        assert_eq!(json(&event(false, "plain\ntext")).unwrap(), r#"{"id":null,"event":"step","data":"plain\ntext"}"#);
    }

    #[test]
    fn the_stream_is_taken_up_after_the_last_id_and_ends_with_the_job() {
        let mut told = Told { after: None, stands: None, output: Output::new(true, true, false) };
        told.tell(&standing(&words::example("running"))).unwrap();
        assert_eq!((told.after.as_deref(), told.ended()), (None, false));
        told.tell(&event(true, "1")).unwrap();
        assert_eq!(told.after.as_deref(), Some("7"));
        told.tell(&standing(&words::example("succeeded"))).unwrap();
        assert!(told.ended() && told.after.as_deref() == Some("7"));
    }
}
