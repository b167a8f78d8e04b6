//! `plinth kind`: how much of which kind of job runs, on all nodes.
//!
//! Invariant: a change keeps what it does not name. What holds for a kind is one value on the node, so a change reads it, changes it and puts
//! it back; of two at the same moment the later one holds.

use clap::Subcommand;
use plinth_client::Client;
use plinth_client::wire::jobs::KindSettings;

use super::job::advised;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{plain, table_or};
use crate::reference::nearest;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A kind that is paused goes on taking jobs in; none of them begins. What runs already runs on.

Examples:
  plinth kind pause http
  plinth kind limit infer --concurrency 4
  plinth kind limit http --rate 2.5                at most five jobs begin in two seconds
  plinth kind limit http --no-limit")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the kinds of jobs that the node knows
    #[command(visible_alias = "ls")]
    List,
    /// Let no job of a kind begin
    Pause(Named),
    /// Let jobs of a kind begin again
    Resume(Named),
    /// Say how many jobs of a kind run at a time, and how many begin in a second
    Limit(Limit),
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The kind
    #[arg(value_name = "KIND")]
    kind: String,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["concurrency", "rate", "no_limit"])))]
pub struct Limit {
    /// The kind
    #[arg(value_name = "KIND")]
    kind: String,

    /// At most so many at a time, on all nodes together
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,

    /// At most so many begun in a second, on all nodes together
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,

    /// Take both limits away
    #[arg(long, conflicts_with_all = ["concurrency", "rate"])]
    no_limit: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "want a number of jobs in a second, from 0.001 to 1000000".to_owned())
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => {
            let client = context.client()?;
            let kinds = context.wait(async { client.job_kinds().await.map_err(advised) })?;
            context.output.answer(&kinds, || table_or(&table(&kinds), "no kinds of jobs"))
        }
        Command::Pause(Named { kind }) => change(&kind, context, |settings| settings.paused = true),
        Command::Resume(Named { kind }) => change(&kind, context, |settings| settings.paused = false),
        Command::Limit(limit) => change(&limit.kind, context, |settings| limit.apply(settings)),
    }
}

impl Limit {
    fn apply(&self, settings: &mut KindSettings) {
        if self.no_limit {
            (settings.concurrency, settings.rate_per_second) = (None, None);
        }
        settings.concurrency = self.concurrency.or(settings.concurrency);
        settings.rate_per_second = self.rate.or(settings.rate_per_second);
    }
}

fn change(kind: &str, context: &Context, change: impl FnOnce(&mut KindSettings)) -> Result<(), Failure> {
    let client = context.client()?;
    let now = context.wait(async {
        let mut settings = found(kind, &client).await?;
        change(&mut settings);
        client.set_job_kind(kind, &settings).await.map_err(advised)
    })?;
    context.output.answer(&now, || sentence(&now))
}

async fn found(kind: &str, client: &Client) -> Result<KindSettings, Failure> {
    let all = client.job_kinds().await.map_err(advised)?;
    let near = nearest(kind, all.iter().map(|one| one.kind.as_str())).map(str::to_owned);
    let known: Vec<String> = all.iter().map(|one| one.kind.clone()).collect();
    all.into_iter().find(|one| one.kind == kind).ok_or_else(|| {
        let failure = Failure::new(Exit::NotFound, format!("there is no kind of job '{kind}'"));
        failure.next(near.map_or_else(|| format!("there is {}", known.join(", ")), |near| format!("did you mean '{near}'?")))
    })
}

fn table(kinds: &[KindSettings]) -> Table {
    let mut table = Table::new(&["KIND", "STATE", "AT A TIME#", "A SECOND#"]);
    let none = || Cell::new("no limit", Tone::Faint);
    for kind in kinds {
        table.row([
            (&kind.kind).into(),
            if kind.paused { Cell::new("paused", Tone::Warning) } else { Cell::new("open", Tone::Good) },
            kind.concurrency.map_or_else(none, |most| most.to_string().into()),
            kind.rate_per_second.map_or_else(none, |rate| rate.to_string().into()),
        ]);
    }
    table
}

/// What holds now.
fn sentence(kind: &KindSettings) -> String {
    let mut words = vec![if kind.paused { "is paused" } else { "is open" }.to_owned()];
    words.extend(kind.concurrency.map(|most| format!("at most {most} at a time")));
    words.extend(kind.rate_per_second.map(|rate| format!("at most {rate} begun in a second")));
    if words.len() == 1 {
        words.push("no limit".to_owned());
    }
    format!("{} {}", plain(&kind.kind), words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(paused: bool, concurrency: Option<u32>, rate_per_second: Option<f64>) -> KindSettings {
        KindSettings { kind: "http".into(), paused, concurrency, rate_per_second }
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let limit = |concurrency, rate, no_limit| Limit { kind: "http".into(), concurrency, rate, no_limit };
        for (change, after) in [
            (limit(Some(4), None, false), kind(true, Some(4), Some(2.5))),
            (limit(None, Some(1.0), false), kind(true, Some(9), Some(1.0))),
            (limit(None, None, true), kind(true, None, None)),
        ] {
            let mut settings = kind(true, Some(9), Some(2.5));
            change.apply(&mut settings);
            assert_eq!(settings, after);
        }
    }

    #[test]
    fn kinds_are_listed_and_told() {
        let text = table(&[kind(false, Some(4), None), kind(true, None, Some(0.5))]).render();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        KIND  STATE   AT A TIME  A SECOND
        http  open            4  no limit
        http  paused   no limit       0.5
        ");
        assert_eq!(sentence(&kind(true, Some(4), Some(2.5))), "http is paused, at most 4 at a time, at most 2.5 begun in a second");
        assert_eq!(sentence(&kind(false, None, None)), "http is open, no limit");
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("2.5").is_ok());
    }
}
