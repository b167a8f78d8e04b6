//! What the kernel knows of a process: memory, open files, children.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Resident memory in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory that there ever was, in KiB.
pub fn peak_kib(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// Raises the number of files that this process and those it starts may open to what is allowed; at least so many are needed.
pub fn need_files(least: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(most >= least, "{least} open files are needed and {most} allowed: raise the hard limit (ulimit -Hn) and try again");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).context("raising the limit of open files")
}

/// The part of the resident memory that is the process's own: no file's pages.
pub fn anonymous_kib(pid: u32) -> Result<u64> {
    status(pid, "RssAnon:")
}

/// How many file descriptors are open.
pub fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(of(pid).join("fd")).context("open files of the node")?.count())
}

/// How many processes it is the parent of; those that ended and were not waited for count too.
pub fn children(pid: u32) -> Result<usize> {
    let processes = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(processes.filter(|child| status(*child, "PPid:").is_ok_and(|parent| parent == u64::from(pid))).count())
}

/// The processor time that this process has used, in user and kernel mode.
pub fn own_cpu_seconds() -> Result<f64> {
    cpu_seconds(std::process::id())
}

/// The processor time that a process has used, in user and kernel mode.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(of(pid).join("stat")).with_context(|| format!("process {pid} has gone"))?;
    // The name may hold spaces and ends with the last bracket; then comes field 3.
    let (_, fields) = text.rsplit_once(')').context("no fields")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Sends a signal.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(number, signal).with_context(|| format!("sending a signal to process {pid}"))
}

/// Puts all threads of this process on one processor.
pub fn stay_on(processor: usize) -> Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-a", "-p", "-c", &processor.to_string(), &std::process::id().to_string()]);
    let status = command.stdout(Stdio::null()).status().context("running taskset")?;
    ensure!(status.success(), "taskset failed: this part needs two processors");
    Ok(())
}

fn of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(of(pid).join("status")).with_context(|| format!("process {pid} has gone"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(value.trim().trim_end_matches("kB").trim().parse()?)
}
