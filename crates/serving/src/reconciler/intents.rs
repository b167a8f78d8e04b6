//! What of a model shall be loaded, before anybody has looked whether there is room.
//!
//! Invariant: nothing begins here. A slot gets an [`Intent`], or sleeps until somebody asks; `admission` does the rest.

use std::time::Duration;

use plinth_policy::Phase;
use plinth_policy::memory::Urgency;
use plinth_types::VersionNumber;

use super::{ModelState, OPERATORS_PATIENCE};
use crate::memory::{Holding, Intent};
use crate::slot::Slot;
use crate::table::State;
use crate::{ModelWish, Purpose};

/// A version that is wished for and was not known: it shall be loaded, or waits until somebody asks.
pub(super) fn new_slot(settled: bool, wish: &ModelWish, version: VersionNumber, model: &ModelState, now: Duration) -> Option<Slot> {
    let deployment = &wish.deployment;
    let wanted = wish.purpose(version);
    let holding = Holding::new(wish.file_bytes(version), now);
    let mut slot = Slot::new(wish.fingerprint(version)?, deployment.generation, wanted, holding);
    slot.permission = wish.permission(version).map(str::to_owned);
    (slot.holding.pinned, slot.holding.idle_after) = (deployment.pinned, wish.idle_after());
    // With nothing to answer, the version to fall back to does not wait in line.
    let skip_line = wanted == Purpose::FallBack && model.default.is_none();
    let explicit = wanted == Purpose::Answer && model.generation.is_some_and(|g| g != deployment.generation);
    let successor = wanted == Purpose::Answer && model.default.is_some_and(|d| model.slots.get(&d).is_some_and(|s| s.instance.is_some()));
    if deployment.on_demand && !explicit && !successor && !skip_line {
        (slot.state, slot.dormant) = (State::Unloaded, true);
        return Some(slot);
    }
    // At the start nobody makes room for what nobody asked for; later a new wish is somebody's act.
    let urgency = if settled || skip_line || deployment.pinned { Urgency::Demanded } else { Urgency::Wished };
    slot.intent = Some(Intent { urgency, skip_line, ..asked_for(now) });
    Some(slot)
}

/// Starts what is due and what has changed.
pub(super) fn refresh(wish: &ModelWish, model: &mut ModelState, now: Duration) {
    let generation = wish.deployment.generation;
    let explicit = model.generation.is_some_and(|g| g != generation);
    let woken = model.on_demand && !wish.deployment.on_demand;
    let mut forgotten = Vec::new();
    for (version, slot) in &mut model.slots {
        let Some(fingerprint) = wish.fingerprint(*version) else { continue };
        let wanted = wish.purpose(*version);
        let changed = slot.fingerprint != fingerprint;
        // Whether the same bytes may answer is judged again when these change; they need not be loaded again for it.
        let permission = wish.permission(*version).map(str::to_owned);
        let terms_changed = slot.wanted != wanted || slot.permission != permission;
        slot.permission = permission;
        let asked_again = slot.generation != generation && slot.refusal.is_some();
        (slot.generation, slot.wanted, slot.fingerprint) = (generation, wanted, fingerprint);
        if changed {
            slot.holding.measured = None;
            slot.holding.files = wish.file_bytes(*version);
        }
        let stale = changed || ((asked_again || terms_changed) && slot.phase() == Phase::Failed);
        // Who waits at its gate goes on waiting there.
        if slot.dormant && slot.instance.is_none() && stale {
            slot.sleep();
        } else if slot.instance.is_none() && stale {
            forgotten.push(*version);
            continue;
        }
        (slot.holding.pinned, slot.holding.idle_after) = (wish.deployment.pinned, wish.idle_after());
        let due = !slot.is_coming() && slot.retry_at.is_some_and(|t| t <= now);
        // Nobody waits for it any more: the next request tries again.
        if due && slot.dormant && slot.state == State::Failed {
            slot.sleep();
            continue;
        }
        if slot.state == State::Unloaded {
            let stays_loaded = slot.holding.pinned && !wish.deployment.on_demand && slot.holding.idle_after.is_none();
            let asked = (explicit || woken) && wanted == Purpose::Answer;
            if (asked || stays_loaded) && !slot.is_coming() {
                slot.intent = Some(asked_for(now));
            }
            continue;
        }
        let unjudged = terms_changed && slot.instance.is_some() && !slot.is_cleared();
        if changed || due || unjudged || (asked_again && slot.instance.is_some()) {
            (slot.retry_at, slot.attempt) = (None, None);
            // What has left nothing to answer comes before all who wait.
            let bare = slot.instance.is_none();
            slot.intent = Some(if bare { Intent { skip_line: true, deadline: now, ..asked_for(now) } } else { asked_for(now) });
        }
    }
    // Without its slot a version is as never seen: the plan begins it afresh if it is still wanted.
    for version in forgotten {
        model.slots.remove(&version);
    }
}

/// The intent of somebody who waits for it, though not with a request.
pub(super) fn asked_for(now: Duration) -> Intent {
    Intent { urgency: Urgency::Demanded, deadline: now.saturating_add(OPERATORS_PATIENCE), skip_line: false }
}
