//! `plinth job attempts`: the attempts of a job that failed.

use plinth_client::wire::jobs::Attempt;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Timestamp;

use super::{advised, id, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{plain, table_or};
use crate::table::Table;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

/// Lists.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let attempts = context.wait(async { client.job_attempts(&args.id).await.map_err(advised) })?;
    context.output.answer(&attempts, || render(&attempts, SystemClock.now()))
}

fn render(attempts: &[Attempt], now: Timestamp) -> String {
    let mut table = Table::new(&["ATTEMPT#", "BEGAN#", "TOOK#", "WORKER", "REASON"]);
    for one in attempts {
        table.row([
            one.attempt.to_string().into(),
            words::relative(one.started_at, now).into(),
            words::span(one.ended_at.since(one.started_at)).into(),
            (&one.worker).into(),
            one.error.reason.to_string().into(),
        ]);
    }
    let mut text = table_or(&table, "no attempt has failed");
    // Below the table, because they are often longer than a cell.
    for (at, one) in attempts.iter().enumerate() {
        text.push_str(&format!("{}{:>7}  {}", if at == 0 { "\n\n" } else { "\n" }, one.attempt, plain(&one.error.detail)));
    }
    text
}

#[cfg(test)]
mod tests {
    use plinth_client::wire::jobs::Failure as JobFailure;
    use plinth_types::Reason;

    use super::*;

    #[test]
    fn each_attempt_says_why_it_failed() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000).unwrap();
        let attempt = |attempt, reason, detail: &str| Attempt {
            attempt,
            worker: "node-1/x7".into(),
            started_at: at(60),
            ended_at: at(72),
            error: JobFailure { reason, detail: detail.into() },
        };
        let all = [
            attempt(1, Reason::UpstreamFailed, "the endpoint answered 503"),
            attempt(2, Reason::JobTimeout, "the job took longer than 10 s"),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&render(&all, at(200))).to_string(), @r"
        ATTEMPT      BEGAN  TOOK  WORKER     REASON
              1  2 min ago  12 s  node-1/x7  upstream_failed
              2  2 min ago  12 s  node-1/x7  job_timeout

              1  the endpoint answered 503
              2  the job took longer than 10 s
        ");
        assert_eq!(render(&[], at(0)), "no attempt has failed");
    }
}
