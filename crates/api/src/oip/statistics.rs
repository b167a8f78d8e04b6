//! The body of the statistics extension.
//!
//! Invariant: all eight parts of `inference_stats` are always there; clients read them without looking.

use plinth_serving::ModelStatistics;
use plinth_serving::statistics::{BatchTotals, Total};
use serde::Serialize;

/// `GET /v2/models/stats` and its kin.
#[derive(Debug, Serialize)]
pub struct StatisticsReply {
    model_stats: Vec<Model>,
}

#[derive(Debug, Serialize)]
struct Model {
    name: String,
    version: String,
    /// Milliseconds since 1970; 0 before the first.
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Inference,
    /// By response of decoupled models, of which there are none.
    response_stats: Empty,
    batch_stats: Vec<Batch>,
    memory_usage: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Empty {}

#[derive(Debug, Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

#[derive(Debug, Serialize)]
struct Inference {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Debug, Serialize)]
struct Batch {
    batch_size: u32,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

#[derive(Debug, Serialize)]
struct Memory {
    #[serde(rename = "type")]
    kind: &'static str,
    id: u64,
    byte_size: u64,
}

impl From<Total> for Duration {
    fn from(Total { count, ns }: Total) -> Self {
        Self { count, ns }
    }
}

impl From<(u32, BatchTotals)> for Batch {
    fn from((batch_size, BatchTotals { input, infer, output }): (u32, BatchTotals)) -> Self {
        Self { batch_size, compute_input: input.into(), compute_infer: infer.into(), compute_output: output.into() }
    }
}

impl From<ModelStatistics> for Model {
    fn from(of: ModelStatistics) -> Self {
        let memory = Memory { kind: "CPU", id: 0, byte_size: of.memory };
        Self {
            name: of.model.to_string(),
            version: of.version.to_string(),
            last_inference: of.last_inference.map_or(0, |t| t.millis()),
            inference_count: of.inferences,
            execution_count: of.executions,
            inference_stats: Inference {
                success: of.success.into(),
                fail: of.fail.into(),
                queue: of.queue.into(),
                compute_input: of.compute_input.into(),
                compute_infer: of.compute_infer.into(),
                compute_output: of.compute_output.into(),
                cache_hit: of.cache_hit.into(),
                cache_miss: of.cache_miss.into(),
            },
            response_stats: Empty {},
            batch_stats: of.batches.into_iter().map(Batch::from).collect(),
            memory_usage: if of.memory == 0 { Vec::new() } else { vec![memory] },
        }
    }
}

impl From<Vec<ModelStatistics>> for StatisticsReply {
    fn from(all: Vec<ModelStatistics>) -> Self {
        Self { model_stats: all.into_iter().map(Model::from).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{Timestamp, VersionNumber};

    #[test]
    fn the_body_has_what_perf_analyzer_reads_without_looking() {
        let total = |n: u64| Total { count: n, ns: n * 10 };
        let statistics = ModelStatistics {
            model: "m".parse().unwrap(),
            version: VersionNumber::FIRST,
            last_inference: Timestamp::from_millis(1_700_000_000_000).ok(),
            inferences: 9,
            executions: 4,
            success: total(1),
            fail: total(2),
            queue: total(3),
            compute_input: total(4),
            compute_infer: total(5),
            compute_output: total(6),
            cache_hit: total(7),
            cache_miss: total(8),
            batches: [(4, BatchTotals { input: total(1), infer: total(2), output: total(3) })].into(),
            memory: 1000,
        };
        let json = serde_json::to_value(StatisticsReply::from(vec![statistics])).unwrap();
        let expected = serde_json::json!({"model_stats": [{
            "name": "m", "version": "1", "last_inference": 1_700_000_000_000u64, "inference_count": 9, "execution_count": 4,
            "inference_stats": {
                "success": {"count": 1, "ns": 10}, "fail": {"count": 2, "ns": 20}, "queue": {"count": 3, "ns": 30},
                "compute_input": {"count": 4, "ns": 40}, "compute_infer": {"count": 5, "ns": 50},
                "compute_output": {"count": 6, "ns": 60}, "cache_hit": {"count": 7, "ns": 70}, "cache_miss": {"count": 8, "ns": 80}
            },
            "response_stats": {},
            "batch_stats": [{
                "batch_size": 4, "compute_input": {"count": 1, "ns": 10}, "compute_infer": {"count": 2, "ns": 20},
                "compute_output": {"count": 3, "ns": 30}
            }],
            "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 1000}]
        }]});
        assert_eq!(json, expected);
    }
}
