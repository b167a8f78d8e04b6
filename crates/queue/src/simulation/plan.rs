//! What a seed decides before the run begins: how large everything is, and which faults come when.

use super::chance::Chance;

/// A fault that comes at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chaos {
    /// A node's process is killed.
    Kill(usize),
    /// A node's process stands still for so many milliseconds.
    Pause(usize, u64),
    /// The ledger cannot be reached for so many milliseconds.
    Down(u64),
    /// The wall clock shows this much more (or less) than it should, in milliseconds.
    Wall(i64),
}

/// The size of a run and its faults.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// Jobs that a node runs at a time.
    pub(super) slots: u32,
    pub(super) tenants: usize,
    pub(super) clients: usize,
    /// What each client does.
    pub(super) actions: u32,
    pub(super) schedules: usize,
    /// When all faults end, in milliseconds.
    pub(super) calm_at: u64,
    pub(super) chaos: Vec<(u64, Chaos)>,
    /// A request or an answer is lost once in so many times.
    pub(super) lost: u64,
    /// A message is slow once in so many times.
    pub(super) slow: u64,
    /// A node dies at a step once in so many.
    pub(super) dies: u64,
}

/// Kinds of the jobs in a run.
pub(super) const KINDS: [&str; 2] = ["infer", "batch"];
/// How long a lease lasts, in milliseconds.
pub(super) const LEASE: u64 = 15_000;
/// How often leases are prolonged.
pub(super) const HEARTBEAT: u64 = 5_000;
/// How often a node sweeps.
pub(super) const SWEEP: u64 = 2_000;
/// How often a node asks for work though no bell rang.
pub(super) const POLL: u64 = 1_000;
/// How often a node looks at the schedules.
pub(super) const TICK: u64 = 700;
/// What a schedule's ticks are apart.
pub(super) const INTERVAL: i64 = 5_000;

impl Plan {
    pub(super) fn of(chance: &mut Chance) -> Self {
        let nodes = chance.between(2, 4) as usize;
        let calm_at = chance.between(20_000, 60_000);
        // One seed in eight has no faults at all: what fails there fails in daily life.
        let faults = !chance.one_in(8);
        let rate = |chance: &mut Chance, most| if faults { *[0, most, most * 4].get(chance.below(3)).unwrap_or(&0) } else { 0 };
        let mut plan = Self {
            nodes,
            slots: chance.between(1, 4) as u32,
            tenants: chance.between(1, 3) as usize,
            clients: chance.between(2, 3) as usize,
            actions: chance.between(4, 10) as u32,
            schedules: chance.below(3),
            calm_at,
            chaos: Vec::new(),
            lost: rate(chance, 8),
            slow: rate(chance, 10),
            dies: rate(chance, 25),
        };
        for _ in 0..if faults { chance.between(0, 5) } else { 0 } {
            let at = chance.between(500, calm_at - 1);
            let node = chance.below(nodes);
            plan.chaos.push((
                at,
                match chance.below(4) {
                    0 => Chaos::Kill(node),
                    1 => Chaos::Pause(node, chance.between(1_000, 40_000)),
                    2 => Chaos::Down(chance.between(500, 25_000)),
                    _ => Chaos::Wall(if chance.one_in(2) { 3_600_000 } else { -3_600_000 }),
                },
            ));
        }
        plan
    }
}
