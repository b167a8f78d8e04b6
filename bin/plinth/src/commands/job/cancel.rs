//! `plinth job cancel`: ends jobs before they are done.

use plinth_client::wire::jobs::Job;

use super::{advised, id, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A job that waits has ended at once; one that runs is asked to end, and `plinth job wait` says when it has.

Examples:
  plinth job cancel 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct Args {
    /// The job, or several
    #[arg(value_name = "ID", value_parser = id, required = true)]
    ids: Vec<String>,
}

/// Cancels them all; those that cannot be cancelled do not keep the others.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (mut jobs, mut failures) = (Vec::new(), Vec::new());
    context.wait(async {
        for id in &args.ids {
            match client.cancel_job(id).await {
                Ok(job) => jobs.push(job),
                Err(error) => failures.push((id.as_str(), advised(error))),
            }
        }
        Ok(())
    })?;
    if let (true, [job], []) = (args.ids.len() == 1, &jobs[..], &failures[..]) {
        context.output.answer(job, || sentence(job))?;
    } else if !jobs.is_empty() {
        context.output.answer(&jobs, || jobs.iter().map(sentence).collect::<Vec<_>>().join("\n"))?;
    }
    together(failures, args.ids.len())
}

/// One failure of those that there were among `all`.
fn together(failures: Vec<(&str, Failure)>, all: usize) -> Result<(), Failure> {
    let bad = failures.len();
    let also: Vec<String> = failures.iter().map(|(id, failure)| format!("{id}: {}", failure.message)).collect();
    match failures.into_iter().next() {
        None => Ok(()),
        Some((_, failure)) if all == 1 => Err(failure),
        Some((_, failure)) => {
            let whole = Failure::new(failure.exit, format!("{bad} of {all} jobs were not cancelled")).also(also);
            Err(failure.next.into_iter().fold(whole, Failure::next))
        }
    }
}

fn sentence(job: &Job) -> String {
    let id = plain(&job.id);
    if words::ended(&job.state) { format!("{id} is {}", plain(&job.state)) } else { format!("{id} is asked to end") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn what_failed_is_told_together() {
        let failure = |text: &str| Failure::new(Exit::Conflict, text).next("do this");
        assert!(together(Vec::new(), 2).is_ok());
        assert_eq!(together(vec![("a", failure("has ended"))], 1).unwrap_err().message, "has ended");
        let several = together(vec![("a", failure("has ended")), ("b", failure("is gone"))], 3).unwrap_err();
        assert_eq!((several.message.as_str(), several.exit), ("2 of 3 jobs were not cancelled", Exit::Conflict));
        assert_eq!(several.next, ["do this"]);
        assert!(sentence(&words::example("cancelled")).ends_with("is cancelled"));
        assert!(sentence(&words::example("running")).ends_with("is asked to end"));
    }
}
