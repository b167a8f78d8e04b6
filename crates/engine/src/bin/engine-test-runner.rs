//! The smallest program that can be a runner: what this crate's own tests start. Not installed with anything.

fn main() -> std::process::ExitCode {
    plinth_engine::runner_main()
}
