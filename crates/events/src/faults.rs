//! Faults for this crate's tests: a child process that dies by SIGKILL.
//!
//! A test that needs a child runs its own binary again with itself as the only test; [`orders`] tells the child what to do.

use std::process::{Command, Stdio};

use plinth_runtime::{CrashPoint, CrashPoints, World};

/// Carries the orders: point, pass and place, with line feeds between them.
const VARIABLE: &str = "PLINTH_TEST_CHILD";

#[allow(clippy::disallowed_methods, reason = "tests are told by their caller what to require, and children what to do")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The world with its crash point armed, and the place, when this process is a child.
pub(crate) fn orders() -> Option<(World, String)> {
    let text = variable(VARIABLE)?;
    let mut parts = text.splitn(3, '\n');
    let (point, pass, place) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let crash = if point.is_empty() { CrashPoints::none() } else { CrashPoints::arm(point, pass.parse().unwrap()).unwrap() };
    Some((World { crash, ..World::real() }, place.to_owned()))
}

/// A command that runs `test` (its whole path) alone, as a child with these orders.
pub(crate) fn child(test: &str, point: Option<CrashPoint>, pass: u32, place: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let orders = format!("{}\n{pass}\n{place}", point.map_or("", CrashPoint::name));
    let (_crate, test) = test.split_once("::").unwrap();
    command.args(["--exact", test, "--nocapture"]).env(VARIABLE, orders).stdin(Stdio::null());
    command
}
