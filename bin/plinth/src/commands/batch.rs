//! `plinth batch`: files of rows against a model.

use clap::Subcommand;
use plinth_client::wire::jobs::Job;

use crate::context::Context;
use crate::exit::Failure;

mod follow;
mod output;
mod run;
mod show;

/// The kind of job behind it.
const KIND: &str = "bulk";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A batch is a job of the node: it goes on when this command is interrupted or the node starts again, and its output is the same as if it \
had never been. `plinth job` shows and ends it like every other.

Examples:
  plinth batch run --model digits rows.jsonl --out labels.jsonl
  plinth batch run --model digits rows.parquet --input image=pixels --detach
  plinth batch resume 01890a5d-ac96-774b-bcce-b302099a8057 --out labels.jsonl
  plinth batch list")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Upload a file, run its rows against a model, get the output
    Run(Box<run::Args>),
    /// Go on waiting for a batch, then get its output
    Resume(run::ResumeArgs),
    /// List batches, newest first
    #[command(visible_alias = "ls")]
    List(show::ListArgs),
    /// Show how far a batch is
    Show(show::Args),
    /// End a batch before it is done
    Cancel(show::CancelArgs),
    /// Get the output of a batch that has ended
    Output(output::Args),
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(&args, context),
        Command::Resume(args) => run::resume(&args, context),
        Command::List(args) => show::list(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Cancel(args) => show::cancel(&args, context),
        Command::Output(args) => output::run(&args, context),
    }
}

/// The model that a job is about.
fn model(job: &Job) -> &str {
    job.labels.get("model").map_or("", String::as_str)
}

/// The id of a job.
fn id(text: &str) -> Result<String, String> {
    crate::commands::job::id(text).map_err(|_| "want the id of a batch, as `plinth batch list` shows it".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn lines_are_judged_before_anything_is_sent() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        for good in [
            "plinth batch run --model digits rows.jsonl --out o.jsonl --allow-errors".to_owned(),
            "plinth batch run --model digits@3 rows.csv --input image=pixels --output label --output-format csv --detach".to_owned(),
            format!("plinth batch resume {id} --out o.jsonl"),
            format!("plinth batch output {id}"),
            format!("plinth batch cancel {id}"),
        ] {
            assert!(parse(&good).is_ok(), "{good}: {:?}", parse(&good).err().map(|e| e.to_string()));
        }
        for bad in [
            "plinth batch run rows.jsonl",
            "plinth batch run --model digits",
            "plinth batch run --model digits rows.jsonl --format xml",
            "plinth batch run --model digits rows.jsonl --detach --out o.jsonl",
            "plinth batch resume 17",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
