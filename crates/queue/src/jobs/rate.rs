//! How many jobs of a kind may begin now: the generic cell rate algorithm (ITU-T I.371), as in `policy::limits`, over what a row can hold.
//!
//! A kind's row keeps the moment until which its rate is spoken for (milliseconds). One second's worth may begin at once, at least one job.

/// How many may begin at `now` when the rate is spoken for until `next_at`.
pub(super) fn room(now: i64, next_at: f64, rate: f64) -> u32 {
    let step = 1000.0 / rate.max(1e-6);
    let burst = rate.max(1.0).floor();
    let ahead = (next_at - now as f64).max(0.0) / step;
    (burst - ahead + 1e-9).floor().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Until when it is spoken for after `begun` jobs.
pub(super) fn after(now: i64, next_at: f64, rate: f64, begun: usize) -> f64 {
    (1000.0 / rate.max(1e-6)).mul_add(begun as f64, next_at.max(now as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_in_the_long_run() {
        for rate in [0.5, 1.0, 3.0, 10.0, 1000.0] {
            let (mut next, mut begun) = (0.0, 0u64);
            for now in (0..100_000).step_by(7) {
                let room = room(now, next, rate);
                next = after(now, next, rate, room as usize);
                begun += u64::from(room);
            }
            let most = rate * 100.0 + rate.max(1.0);
            assert!(begun as f64 <= most && begun as f64 >= most * 0.97 - 1.0, "{begun} at {rate}");
        }
    }
}
