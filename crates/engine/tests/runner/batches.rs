//! Batches of several parts through a real runner: together when all is well, and together when it is not.

use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, onnx_model, strings, tensor};
use plinth_engine::{Batch, Lane, Part, Runner, RunnerError, RunnerExit, SendError};
use plinth_types::{DataType, Dim, Tensor};

use crate::support::{SOON, spec, start, villain};

/// Rows of a villain's input `x`.
fn rows(values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor("x", DataType::Fp32, &[values.len() as u64, 1], bytes)
}

fn part(values: &[f32]) -> Part {
    Part { inputs: vec![rows(values)], outputs: vec!["x".to_owned()], trace: None }
}

fn batch(id: u64, parts: Vec<Part>) -> Batch {
    Batch { id, parts, batched: true, deadline: SOON }
}

fn lane(runner: &Runner) -> Lane {
    let mut lanes = runner.take_lanes();
    assert!(runner.take_lanes().is_empty(), "they are given away once");
    lanes.remove(0)
}

#[tokio::test]
async fn parts_are_executed_together_and_answered_apart() {
    let model = ModelDirectory::onnx(&onnx_model::identity(DataType::Bytes, &[Dim::Any, Dim::Fixed(2)]));
    let runner = start(spec(&model)).await;
    let mut lane = lane(&runner);
    let texts = |values: &[&str]| {
        let data = strings("x", values).data().clone();
        tensor("x", DataType::Bytes, &[values.len() as u64 / 2, 2], data)
    };
    let parts = [texts(&["a", "bc", "", "é"]), texts(&["last", "one"])];
    let batch = batch(3, parts.iter().map(|x| Part { inputs: vec![x.clone()], ..Part::default() }).collect());
    lane.sender.send(batch).unwrap();
    let done = lane.receiver.receive().await.unwrap();
    assert_eq!(done.id, 3);
    assert!(done.timing.infer > Duration::ZERO);
    let got = done.outcome.unwrap();
    for (got, sent) in got.iter().zip(&parts) {
        assert_eq!((got[0].data(), got[0].shape()), (sent.data(), sent.shape()));
    }
    assert!(matches!(runner.infer(vec![parts[0].clone()], vec![], SOON).await, Err(RunnerError::Start(_))), "the lane is taken");
    runner.stop(SOON).await;
    assert!(lane.receiver.receive().await.is_none());
}

#[tokio::test]
async fn a_poisonous_row_takes_the_whole_batch_with_it() {
    let traps = "batch = true\n[[rows]]\nvalue = 666\ndeed = 'crash'\n[[rows]]\nvalue = 13\ndeed = 'fail unlucky'\n";
    let runner = villain(traps).await;
    let mut lane = lane(&runner);
    lane.sender.send(batch(1, vec![part(&[1.0]), part(&[2.0, 13.0])])).unwrap();
    let done = lane.receiver.receive().await.unwrap();
    assert!(matches!(done.outcome, Err(RunnerError::Execution(text)) if text == "unlucky"));
    lane.sender.send(batch(2, vec![part(&[1.0]), part(&[2.0])])).unwrap();
    assert_eq!(lane.receiver.receive().await.unwrap().outcome.unwrap(), vec![vec![rows(&[1.0])], vec![rows(&[2.0])]]);
    lane.sender.send(batch(3, vec![part(&[1.0]), part(&[7.0, 666.0]), part(&[2.0])])).unwrap();
    lane.sender.send(batch(4, vec![part(&[1.0])])).unwrap();
    assert!(lane.receiver.receive().await.is_none());
    assert_eq!(runner.ended().await, RunnerExit::Signal(11));
    let Err(SendError::Ended(back)) = lane.sender.send(batch(5, vec![part(&[1.0])])) else { panic!("a dead runner takes nothing") };
    assert_eq!((back.id, lane.sender.outstanding()), (5, 0));
}

#[tokio::test]
async fn a_row_too_few_is_a_broken_promise() {
    let runner = villain("batch = true\n[[rows]]\nvalue = 5\ndeed = 'wrong_rows'\n").await;
    let mut lane = lane(&runner);
    lane.sender.send(batch(1, vec![part(&[5.0]), part(&[2.0])])).unwrap();
    let done = lane.receiver.receive().await.unwrap();
    assert!(matches!(&done.outcome, Err(RunnerError::BrokeProtocol(text)) if text.contains("1 rows for a batch of 2")), "{done:?}");
    lane.sender.send(batch(2, vec![part(&[2.0])])).unwrap();
    assert!(lane.receiver.receive().await.unwrap().outcome.is_ok(), "and lives on");
}

#[tokio::test]
async fn what_is_too_late_is_not_begun() {
    let runner = villain("batch = true\ncrash_after = 1\ncost = '50ms'").await;
    let mut lane = lane(&runner);
    lane.sender.send(batch(1, vec![part(&[1.0])])).unwrap();
    lane.sender.send(Batch { deadline: Duration::from_millis(10), ..batch(2, vec![part(&[1.0])]) }).unwrap();
    assert!(matches!(lane.sender.send(batch(3, vec![part(&[1.0])])), Err(SendError::Busy(_))));
    assert!(lane.receiver.receive().await.unwrap().outcome.is_ok());
    // A second execution would crash.
    let late = lane.receiver.receive().await.unwrap();
    assert!(matches!(late.outcome, Err(RunnerError::Deadline("queued"))), "{late:?}");
}

#[tokio::test]
async fn a_villain_costs_what_it_says() {
    let runner = villain("batch = true\ncost = '20ms'\ncost_per_row = '5ms'\nversion = '3'").await;
    let mut lane = lane(&runner);
    let parts = vec![part(&[1.0, 2.0]), Part { outputs: vec![], ..part(&[3.0]) }];
    lane.sender.send(batch(1, parts)).unwrap();
    let done = lane.receiver.receive().await.unwrap();
    assert!(done.timing.infer >= Duration::from_millis(35), "{:?}", done.timing);
    let parts = done.outcome.unwrap();
    let version = parts[1].iter().find(|t| t.name() == "version").unwrap();
    assert_eq!((version.byte_elements().next().unwrap(), version.shape().dims()), (&b"3"[..], &[1, 1][..]));
    assert_eq!(parts[0].len(), 1);
}

#[tokio::test]
async fn stop_lets_batches_finish() {
    let runner = villain("batch = true\ncost = '60ms'").await;
    let mut lane = lane(&runner);
    lane.sender.send(batch(1, vec![part(&[1.0])])).unwrap();
    lane.sender.send(batch(2, vec![part(&[2.0])])).unwrap();
    let receive = async {
        let both = [lane.receiver.receive().await.map(|d| d.id), lane.receiver.receive().await.map(|d| d.id)];
        (both, lane.receiver.receive().await.is_none())
    };
    let ((both, ended), ()) = tokio::join!(receive, runner.stop(SOON));
    assert_eq!((both, ended), ([Some(1), Some(2)], true));
    assert_eq!(runner.ended().await, RunnerExit::Stopped);
}
