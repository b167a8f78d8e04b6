//! From a model configuration to the settings of the batcher.

use std::time::Duration;

use plinth_policy::batching::{QueuePolicy, Settings};
use plinth_types::ByteSize;

use crate::model_config::{ModelConfig, pb};

/// The node's own bounds on what waits for one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub requests: usize,
    pub bytes: ByteSize,
}

/// The settings for a completed configuration.
pub(crate) fn settings(config: &ModelConfig, bounds: Bounds) -> Settings {
    let Some(batching) = config.dynamic_batching_settings() else {
        let sequence = config.sequence_settings();
        return Settings {
            max_rows: config.max_batch_size().max(1),
            preferred_rows: sequence.map(|s| s.preferred_rows.clone()).unwrap_or_default(),
            // What nobody may join is not kept back for company.
            max_delay: sequence.map_or(Some(Duration::ZERO), |s| s.max_delay),
            preserve_ordering: false,
            levels: 0,
            default_level: 0,
            default_policy: policy(None),
            level_policies: Default::default(),
            max_items: bounds.requests,
            max_bytes: bounds.bytes.0,
            ..Settings::default()
        };
    };
    let level = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Settings {
        max_rows: config.max_batch_size().max(1),
        preferred_rows: batching.preferred_batch_size.iter().filter_map(|n| u32::try_from(*n).ok()).collect(),
        max_delay: (batching.max_queue_delay_microseconds > 0).then(|| Duration::from_micros(batching.max_queue_delay_microseconds)),
        preserve_ordering: batching.preserve_ordering,
        levels: level(batching.priority_levels),
        default_level: level(batching.default_priority_level),
        default_policy: policy(batching.default_queue_policy.as_ref()),
        level_policies: batching.priority_queue_policy.iter().map(|(n, p)| (level(*n), policy(Some(p)))).collect(),
        max_items: bounds.requests,
        max_bytes: bounds.bytes.0,
        ..Settings::default()
    }
}

fn policy(policy: Option<&pb::ModelQueuePolicy>) -> QueuePolicy {
    let Some(policy) = policy else {
        // A request's own time-out counts unless the configuration says otherwise: whoever sends one means it.
        return QueuePolicy { reject_on_timeout: true, default_timeout: None, allow_timeout_override: true, max_items: None };
    };
    let timeout = policy.default_timeout_microseconds;
    QueuePolicy {
        reject_on_timeout: policy.timeout_action() == pb::model_queue_policy::TimeoutAction::Reject,
        default_timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
        allow_timeout_override: policy.allow_timeout_override,
        max_items: (policy.max_queue_size > 0).then_some(policy.max_queue_size as usize),
    }
}

/// Whether requests may share a batch: only where the configuration says so, because rows of a batch are not independent in
/// every model.
pub(crate) fn merges(config: &ModelConfig) -> bool {
    config.max_batch_size() > 1 && (config.dynamic_batching() || config.sequence_settings().is_some())
}
