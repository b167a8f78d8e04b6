//! With how many broken connections in a row a command puts up while it waits for a job.
//!
//! Invariant: the job goes on without anybody who waits, so a break costs nothing but time; a node that stays away ends the command.

use std::time::Duration;

use plinth_client::Error;
use plinth_client::jobs::may_pass;

/// About half a minute in all: as long as a node takes to start again.
const MOST: u32 = 8;
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// Counts breaks in a row.
#[derive(Debug, Default)]
pub struct Patience {
    breaks: u32,
}

impl Patience {
    /// The node has answered.
    pub const fn renew(&mut self) {
        self.breaks = 0;
    }

    /// Whether to try again after `error`; returns when the time has come.
    pub async fn again(&mut self, error: &Error) -> bool {
        let Some(pause) = self.pause(error) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    fn pause(&mut self, error: &Error) -> Option<Duration> {
        if !may_pass(error) || self.breaks == MOST {
            return None;
        }
        let pause = FIRST.saturating_mul(1 << self.breaks).min(LONGEST);
        self.breaks += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use plinth_client::error::{TransportError, TransportKind};

    use super::*;

    #[test]
    fn breaks_in_a_row_are_put_up_with_for_half_a_minute() {
        let broken = |kind| Error::Transport(TransportError { kind, server: String::new(), detail: String::new() });
        let mut patience = Patience::default();
        let gone = broken(TransportKind::Unreachable);
        let all: Vec<Duration> = std::iter::from_fn(|| patience.pause(&gone)).collect();
        assert_eq!(all.len(), 8);
        assert!((20..60).contains(&all.iter().sum::<Duration>().as_secs()), "{all:?}");
        patience.renew();
        assert_eq!(patience.pause(&gone), Some(FIRST));
        assert_eq!(patience.pause(&broken(TransportKind::Tls)), None);
        assert_eq!(patience.pause(&Error::Settings(String::new())), None);
    }
}
