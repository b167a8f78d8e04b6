//! `plinth completions`: a script for the shell, on standard output.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth completions bash > ~/.local/share/bash-completion/completions/plinth
  plinth completions zsh  > ~/.zfunc/_plinth
  plinth completions fish > ~/.config/fish/completions/plinth.fish")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "plinth", &mut script);
    crate::output::Output::default().print(&String::from_utf8_lossy(&script))
}
