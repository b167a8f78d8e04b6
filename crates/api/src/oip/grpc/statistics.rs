//! What versions have done: `ModelStatistics`.

use plinth_identity::Principal;
use plinth_serving::ModelStatistics;
use plinth_serving::statistics::{BatchTotals, Total};
use plinth_types::Result;

use super::pb::inference as pb;
use super::request::{its, version};
use crate::Services;

/// Of one model, of one version, or of all the tenant's models when none is named.
pub(super) async fn statistics(
    services: Services,
    who: Principal,
    asked: pb::ModelStatisticsRequest,
) -> Result<pb::ModelStatisticsResponse> {
    let model = if asked.name.is_empty() { None } else { Some(its(&who, &asked.name)?) };
    let statistics = services.serving.statistics(&who.tenant, model.as_ref(), version(&asked.version)?)?;
    let mine = statistics.into_iter().filter(|s| who.may_use(&s.model));
    Ok(pb::ModelStatisticsResponse { model_stats: mine.map(of_version).collect() })
}

fn duration(total: Total) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count: total.count, ns: total.ns })
}

fn of_version(s: ModelStatistics) -> pb::ModelStatistics {
    let batch = |(rows, totals): (u32, BatchTotals)| pb::InferBatchStatistics {
        batch_size: u64::from(rows),
        compute_input: duration(totals.input),
        compute_infer: duration(totals.infer),
        compute_output: duration(totals.output),
    };
    pb::ModelStatistics {
        name: s.model.to_string(),
        version: s.version.to_string(),
        last_inference: s.last_inference.map_or(0, |at| at.millis()),
        inference_count: s.inferences,
        execution_count: s.executions,
        // All eight are always there; clients read them without looking.
        inference_stats: Some(pb::InferStatistics {
            success: duration(s.success),
            fail: duration(s.fail),
            queue: duration(s.queue),
            compute_input: duration(s.compute_input),
            compute_infer: duration(s.compute_infer),
            compute_output: duration(s.compute_output),
            cache_hit: duration(s.cache_hit),
            cache_miss: duration(s.cache_miss),
        }),
        batch_stats: s.batches.into_iter().map(batch).collect(),
        memory_usage: vec![pb::MemoryUsage { r#type: "CPU".to_owned(), id: 0, byte_size: s.memory }],
        // By response of decoupled models, of which there are none.
        response_stats: Default::default(),
    }
}
