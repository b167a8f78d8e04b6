//! The power of two choices (Mitzenmacher 2001): of two endpoints drawn by chance, the cheaper one.
//!
//! Nearly as good as the least loaded of all, without looking at all, and without everybody running to the same one. Invariants:
//! an endpoint is chosen whenever one is ready; each ready one is as likely to be drawn as any other. Cost is by
//! [`Load::cost`](super::ewma::Load::cost), which has the weight in it.

use super::hash;

/// How often to draw again before looking who is ready.
const TRIES: u32 = 8;

/// One of `n` endpoints; `None` when none is ready. `cost` is that of an endpoint, lower is better, `None` when it is not ready (or was tried already).
/// It is asked for a few of them; for all only when few are ready.
#[must_use]
pub fn pick(n: usize, draws: (u64, u64), cost: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    let (first, first_cost) = sample(n, draws.0, &cost)?;
    // All others, in their order, so that the second is never the first.
    let other = |place: usize| place + usize::from(place >= first);
    match sample(n - 1, draws.1, &|place| cost(other(place))) {
        Some((second, second_cost)) if second_cost < first_cost => Some(other(second)),
        Some(_) | None => Some(first),
    }
}

fn sample(n: usize, mut draw: u64, cost: &impl Fn(usize) -> Option<f64>) -> Option<(usize, f64)> {
    for _ in 0..TRIES {
        let place = hash::index(draw, n)?;
        if let Some(cost) = cost(place) {
            return Some((place, cost));
        }
        draw = hash::mix(draw, 1);
    }
    let ready = || (0..n).filter_map(|place| cost(place).map(|cost| (place, cost)));
    // Readiness may change between the two looks.
    ready().nth(hash::index(draw, ready().count())?).or_else(|| ready().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_few_ready_each_is_drawn_alike() {
        let n = 200;
        let ready = [3, 77, 78];
        let mut counts = [0_u32; 3];
        for draw in 0..30_000 {
            let draws = (hash::mix(draw, 5), hash::mix(draw, 6));
            let chosen = pick(n, draws, |place| ready.contains(&place).then_some(1.0)).unwrap();
            counts[ready.iter().position(|place| *place == chosen).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_dearest_is_never_taken_while_there_is_another() {
        for draw in 0..10_000 {
            let chosen = pick(5, (hash::mix(draw, 1), hash::mix(draw, 2)), |place| Some(place as f64));
            assert_ne!(chosen, Some(4));
        }
    }

    proptest! {
        #[test]
        fn somebody_is_chosen_whenever_somebody_is_ready(
            costs in proptest::collection::vec(proptest::option::weighted(0.3, 0.0f64..10.0), 0..40),
            draws: (u64, u64),
        ) {
            let chosen = pick(costs.len(), draws, |place| costs[place]);
            match chosen {
                Some(place) => prop_assert!(costs[place].is_some()),
                None => prop_assert!(costs.iter().all(Option::is_none)),
            }
        }
    }
}
