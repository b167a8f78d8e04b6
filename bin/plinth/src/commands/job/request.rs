//! The options that say what a job does: those of `plinth job submit` and of `plinth schedule put`.
//!
//! Invariant: what was not said is not sent, so that the node's defaults hold; whether names, times and addresses are right is judged by the
//! node, except for what would only be a slip of the hand.

use std::time::Duration;

use plinth_client::Client;
use plinth_client::jobs::{HttpTarget, NewJob, Retry, Webhook};
use plinth_types::{Label, ModelName};

use super::{duration, input, label};
use crate::exit::Failure;
use crate::reference::Selector;

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "What it does")]
pub struct JobArgs {
    /// Kind of work; said by --model and --url already
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,

    /// Ask this model
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    model: Option<ModelName>,

    /// Version of the model, a number or an alias, which is looked up now; the champion of the day when absent
    #[arg(long, value_name = "VERSION", requires = "model")]
    version: Option<Selector>,

    /// Call this HTTP endpoint
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// How to call it [default: POST]
    #[arg(long, value_name = "METHOD", requires = "url", value_parser = ["POST", "PUT", "GET", "DELETE"], hide_possible_values = true)]
    method: Option<String>,

    /// What it works on: JSON, a file with JSON, or - for standard input
    #[arg(long, short, value_name = "JSON|FILE|-")]
    input: Option<String>,

    /// A label by which it is found; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label, help_heading = "How it runs")]
    labels: Vec<(String, String)>,

    /// Which jobs go first when the node is busy: critical, default, sheddable, background
    #[arg(long, value_name = "CLASS", value_parser = ["critical", "default", "sheddable", "background"], hide_possible_values = true)]
    #[arg(help_heading = "How it runs")]
    class: Option<String>,

    /// Smaller goes first within the class, -1000 to 1000
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i16).range(-1000..=1000), allow_negative_numbers = true)]
    #[arg(help_heading = "How it runs")]
    priority: Option<i16>,

    /// How long one attempt may take, such as 90s or 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "How it runs")]
    timeout: Option<Duration>,

    /// How often it is tried before it is a dead letter, 1 to 100
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "How it runs")]
    attempts: Option<u32>,

    /// The pause before the second attempt; each further one is longer
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "How it runs", hide_short_help = true)]
    backoff: Option<Duration>,

    /// The longest pause between attempts
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "How it runs", hide_short_help = true)]
    max_backoff: Option<Duration>,

    /// Give it up when it has not begun after this time
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "How it runs", hide_short_help = true)]
    expires: Option<Duration>,

    /// Keep it and its result for so long after its end
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "How it runs", hide_short_help = true)]
    keep: Option<Duration>,

    /// Tell its end to this address
    #[arg(long, value_name = "URL", help_heading = "How it runs")]
    webhook: Option<String>,

    /// Name of the secret that signs it [default: default]
    #[arg(long, value_name = "NAME", requires = "webhook", help_heading = "How it runs", hide_short_help = true)]
    webhook_secret: Option<Label>,
}

impl JobArgs {
    /// The job, with its input in it. Asks the node what an alias stands for.
    pub async fn job(&self, client: &Client) -> Result<NewJob, Failure> {
        let mut job = self.checked()?;
        if let (Some(model), Some(selector)) = (&self.model, &self.version) {
            job.version = Some(selector.number(model, client).await?.to_string());
        }
        Ok(job)
    }

    /// The job without its version.
    pub fn checked(&self) -> Result<NewJob, Failure> {
        let kind = self.kind()?;
        if kind == "infer" && self.input.is_none() {
            return Err(Failure::usage("a job that asks a model needs `--input`")
                .next("it is the JSON that /v2/models/NAME/infer takes, such as {\"inputs\": [...]}"));
        }
        let retry =
            Retry { attempts: self.attempts, base_seconds: seconds(self.backoff), factor: None, cap_seconds: seconds(self.max_backoff) };
        Ok(NewJob {
            kind,
            model: self.model.as_ref().map(ToString::to_string),
            http: self.url.clone().map(|url| HttpTarget { url, method: self.method.clone() }),
            input: self.input.as_deref().map(|text| input::read("--input", text)).transpose()?,
            class: self.class.clone(),
            priority: self.priority,
            expires_seconds: seconds(self.expires),
            timeout_seconds: seconds(self.timeout),
            keep_seconds: seconds(self.keep),
            retry: (retry != Retry::default()).then_some(retry),
            webhook: self.webhook.clone().map(|url| Webhook { url, secret: self.webhook_secret.as_ref().map(ToString::to_string) }),
            labels: self.labels.iter().cloned().collect(),
            ..NewJob::default()
        })
    }

    fn kind(&self) -> Result<String, Failure> {
        let implied = match (&self.model, &self.url) {
            (Some(_), _) => Some(("infer", "--model")),
            (None, Some(_)) => Some(("http", "--url")),
            (None, None) => None,
        };
        match (self.kind.as_deref(), implied) {
            (Some(kind), Some((other, option))) if kind != other => {
                Err(Failure::usage(format!("`{option}` is for jobs of the kind {other}, not {kind}"))
                    .next(format!("leave `--kind` or `{option}` out")))
            }
            (Some("infer"), None) => Err(Failure::usage("a job of the kind infer asks a model").next("name it with `--model NAME`")),
            (Some("http"), None) => Err(Failure::usage("a job of the kind http calls an endpoint").next("name it with `--url URL`")),
            (_, Some((kind, _))) | (Some(kind), None) => Ok(kind.to_owned()),
            (None, None) => Err(Failure::usage("it is not said what the job does").next(
                "give `--model NAME` to ask a model, `--url URL` to call an endpoint, or `--kind KIND`; `plinth kind list` shows the kinds",
            )),
        }
    }
}

pub fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        job: JobArgs,
    }

    fn job(line: &str) -> Result<serde_json::Value, Failure> {
        let only = Only::try_parse_from(std::iter::once("x").chain(line.split(' '))).unwrap_or_else(|error| panic!("{line}: {error}"));
        only.job.checked().map(|job| serde_json::to_value(job).unwrap())
    }

    #[test]
    fn what_was_said_is_sent_and_nothing_else() {
        assert_eq!(job("--model digits --input [1]").unwrap(), json!({ "kind": "infer", "model": "digits", "input": [1] }));
        assert_eq!(job("--url https://h/x").unwrap(), json!({ "kind": "http", "http": { "url": "https://h/x" } }));
        let all = "--kind embed -i {} --class background --priority -3 --timeout 90s --attempts 5 --backoff 500ms --max-backoff 1m --expires 1h \
                   --keep 7d --webhook https://h --webhook-secret shop --label a=b --label c=d";
        let wanted = json!({
            "kind": "embed", "input": {}, "class": "background", "priority": -3, "timeout_seconds": 90.0, "expires_seconds": 3600.0,
            "keep_seconds": 604_800.0, "retry": { "attempts": 5, "base_seconds": 0.5, "cap_seconds": 60.0 },
            "webhook": { "url": "https://h", "secret": "shop" }, "labels": { "a": "b", "c": "d" },
        });
        assert_eq!(job(&all.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap(), wanted);
    }

    #[test]
    fn what_cannot_be_meant_says_what_to_do() {
        for (line, word) in [
            ("--input {}", "--model"),
            ("--kind infer --input {}", "--model"),
            ("--kind http", "--url"),
            ("--kind http --model digits --input {}", "--kind"),
            ("--model digits", "/v2/models"),
        ] {
            let failure = job(line).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::Usage, "{line}");
            assert!(failure.next[0].contains(word), "{line}: {failure:?}");
        }
    }
}
