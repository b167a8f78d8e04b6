//! How many jobs of a kind may begin now: the generic cell rate algorithm (ITU-T I.371), as in `policy::limits`, over what a row can hold.
//!
//! A kind's row keeps the moment until which its rate is spoken for (milliseconds). One second's worth may begin at once, at least one job.

/// How many may begin at `now` when the rate is spoken for until `next_at`.
pub(super) fn room(now: i64, next_at: f64, rate: f64) -> u32 {
    let (step, burst) = step_and_burst(rate);
    (burst - ahead(now, next_at, rate) / step + 1e-9).floor().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Until when it is spoken for after `begun` jobs.
pub(super) fn after(now: i64, next_at: f64, rate: f64, begun: usize) -> f64 {
    let (step, _) = step_and_burst(rate);
    step.mul_add(begun as f64, now as f64 + ahead(now, next_at, rate))
}

fn step_and_burst(rate: f64) -> (f64, f64) {
    (1000.0 / rate.max(1e-6), rate.max(1.0).floor())
}

/// For how long it is spoken for. More than one burst cannot be: the clock was set back, or the rate raised, and it begins anew.
fn ahead(now: i64, next_at: f64, rate: f64) -> f64 {
    let (step, burst) = step_and_burst(rate);
    let ahead = (next_at - now as f64).max(0.0);
    if ahead > (burst + 1.0) * step { 0.0 } else { ahead }
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

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let hour = 3_600_000;
        for rate in [0.5, 1.0, 3.0, 1000.0] {
            let next = after(hour, 0.0, rate, room(hour, 0.0, rate) as usize);
            assert_eq!(room(hour, next, rate), 0);
            let again = room(0, next, rate);
            assert_eq!(again, rate.max(1.0) as u32, "a burst, as at the beginning");
            assert_eq!(room(0, after(0, next, rate, again as usize), rate), 0, "and no more");
        }
    }
}
