//! What a runner prints, passed on to the node's log.
//!
//! Invariant: a runner that floods costs the node a fixed buffer and a fixed number of log lines per second. Lines
//! are data: cut, control characters replaced, in a field of their own.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::Clock;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

const MAX_LINE: usize = 500;
const LINES_PER_SECOND: u32 = 20;
const BUFFER: usize = 16 << 10;

/// Reads until the runner's end is closed.
pub(crate) async fn forward(pipe: PipeReader, label: String, clock: Arc<dyn Clock>) {
    let mut pipe = match Receiver::from_owned_fd(OwnedFd::from(pipe)) {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::warn!(runner = label, %error, "output of the runner is not read");
            return;
        }
    };
    let (mut lines, mut gate) = (Lines::default(), Gate::default());
    let mut buffer = vec![0; BUFFER];
    while let Ok(n) = pipe.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        lines.feed(buffer.get(..n).unwrap_or_default(), |line| emit(&label, line, gate.pass(clock.monotonic())));
    }
    lines.finish(|line| emit(&label, line, gate.pass(clock.monotonic())));
}

fn emit(label: &str, line: &str, pass: Pass) {
    if let Pass::Yes { suppressed } = pass {
        if suppressed > 0 {
            tracing::warn!(runner = label, suppressed, "runner prints too much");
        }
        tracing::info!(runner = label, line, "runner output");
    }
}

/// Whether a line may be logged.
#[derive(Debug, PartialEq, Eq)]
enum Pass {
    Yes { suppressed: u64 },
    No,
}

/// So many lines per second, and a count of those held back.
#[derive(Default)]
struct Gate {
    second: u64,
    passed: u32,
    suppressed: u64,
}

impl Gate {
    fn pass(&mut self, now: Duration) -> Pass {
        if now.as_secs() != self.second {
            (self.second, self.passed) = (now.as_secs(), 0);
        }
        if self.passed >= LINES_PER_SECOND {
            self.suppressed += 1;
            return Pass::No;
        }
        self.passed += 1;
        Pass::Yes { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

/// Bytes to lines; of a long line only the beginning is kept.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = MAX_LINE - self.line.len().min(MAX_LINE);
            self.line.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                self.finish(&mut each);
            }
        }
    }

    fn finish(&mut self, mut each: impl FnMut(&str)) {
        let text: String = String::from_utf8_lossy(&self.line).trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line.clear();
        if !text.is_empty() {
            each(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_clean() {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for bytes in [&b"one\ntw"[..], b"o\x1b[31m\n\n\xff\n", &[b'x'; 3000], b"\nlast"] {
            lines.feed(bytes, |l| got.push(l.to_owned()));
        }
        lines.finish(|l| got.push(l.to_owned()));
        assert_eq!(got[..3], ["one", "two [31m", "\u{fffd}"]);
        assert_eq!((got[3].len(), got[4].as_str()), (MAX_LINE, "last"));
    }

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let mut gate = Gate::default();
        let second = |s: u64| Duration::from_secs(s);
        let passed = (0..1000).filter(|_| gate.pass(second(1)) != Pass::No).count();
        assert_eq!(passed, LINES_PER_SECOND as usize);
        assert_eq!(gate.pass(second(2)), Pass::Yes { suppressed: 980 });
        assert_eq!(gate.pass(second(2)), Pass::Yes { suppressed: 0 });
    }
}
