//! The executor with steps that a test answers by hand.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use plinth_runtime::SystemClock;
use plinth_types::{DataType, Shape};

use super::graph::tests::{diamond, spec, step};
use super::*;

fn tensor(name: &str, data: &'static [u8]) -> Tensor {
    Tensor::new(name, DataType::Uint8, Shape::new(vec![data.len() as u64]).unwrap(), Bytes::from_static(data)).unwrap()
}

fn request(inputs: Vec<Tensor>) -> InferRequest {
    InferRequest {
        tenant: "default".parse().unwrap(),
        model: "pipe".parse().unwrap(),
        version: None,
        inputs,
        outputs: Vec::new(),
        deadline: Duration::from_secs(10),
        queue_timeout: None,
        priority: 3,
        sequence: None,
        parameters: plinth_types::Parameters::default(),
        trace: None,
    }
}

/// Model, names of inputs, wished outputs, priority, depth.
type Seen = (String, Vec<String>, Vec<String>, u64, u8);

/// Every step takes so long and answers its only input under the name of each wished output; `join` answers all that it gets.
#[derive(Default)]
struct Echo {
    takes: BTreeMap<&'static str, Duration>,
    fails: BTreeMap<&'static str, Reason>,
    seen: Mutex<Vec<Seen>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// The address of the first input's bytes, by model.
    addresses: Mutex<BTreeMap<String, usize>>,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Steps for Echo {
    async fn infer(&self, request: InferRequest, depth: u8) -> Result<Vec<Tensor>> {
        let running = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.at_once);
        self.most_at_once.fetch_max(running, Ordering::SeqCst);
        let model = request.model.to_string();
        let names = request.inputs.iter().map(|t| t.name().to_owned()).collect();
        self.seen.lock().unwrap().push((model.clone(), names, request.outputs.clone(), request.priority, depth));
        self.addresses.lock().unwrap().insert(model.clone(), request.inputs[0].data().as_ptr() as usize);
        tokio::time::sleep(self.takes.get(model.as_str()).copied().unwrap_or_default()).await;
        if let Some(reason) = self.fails.get(model.as_str()) {
            return Err(Error::new(*reason, "no").field("inputs[0]").diagnostic("for the log"));
        }
        if model == "join" {
            let bytes = request.inputs.iter().flat_map(|t| t.data().to_vec()).collect::<Vec<_>>();
            let shape = Shape::new(vec![bytes.len() as u64]).unwrap();
            return Ok(vec![Tensor::new("y", DataType::Uint8, shape, bytes.into()).unwrap()]);
        }
        let answer = |name: &String| request.inputs[0].clone().with_name(name.as_str()).unwrap();
        Ok(request.outputs.iter().map(answer).collect())
    }
}

fn pipeline(spec: &GraphSpec, limits: PipelineLimits) -> Pipeline {
    Pipeline::of("pipe".parse().unwrap(), Graph::new(spec).unwrap(), limits, Arc::new(SystemClock))
}

const WIDE: PipelineLimits = PipelineLimits { max_requests: 100, max_bytes: 1 << 20 };

#[tokio::test(start_paused = true)]
async fn independent_steps_run_at_the_same_time() {
    let steps = Echo { takes: [("one", Duration::from_secs(2)), ("two", Duration::from_secs(3))].into(), ..Echo::default() };
    let pipeline = pipeline(&diamond(), WIDE);
    let began = tokio::time::Instant::now();
    let photo = tensor("photo", b"ab");
    let address = photo.data().as_ptr() as usize;
    let answer = pipeline.execute(&steps, request(vec![photo]), 0).await.unwrap();
    assert_eq!(answer, [tensor("answer", b"abab")]);
    assert_eq!(began.elapsed().as_secs(), 3, "the longer of the two, not their sum");
    assert_eq!(steps.most_at_once.load(Ordering::SeqCst), 2);
    let seen = steps.seen.lock().unwrap();
    assert_eq!(seen[0], ("decode".to_owned(), vec!["raw".to_owned()], vec!["out".to_owned()], 3, 1));
    assert_eq!(seen[3].1, ["l", "r"]);
    assert!(steps.addresses.lock().unwrap().iter().all(|(_, a)| *a == address), "the bytes are handed on, not copied");
    assert_eq!(pipeline.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_its_step_and_cancels_the_others() {
    let takes = [("one", Duration::from_secs(1)), ("two", Duration::from_secs(1000))].into();
    let steps = Echo { takes, fails: [("one", Reason::ModelExecutionFailed)].into(), ..Echo::default() };
    let pipeline = pipeline(&diamond(), WIDE);
    let began = tokio::time::Instant::now();
    let error = pipeline.execute(&steps, request(vec![tensor("photo", b"a")]), 0).await.unwrap_err();
    assert_eq!(error.public_text(), "step 'one' of pipeline 'pipe': no");
    assert_eq!((error.reason(), error.field_name()), (Reason::ModelExecutionFailed, None));
    assert_eq!(error.log_text(), "for the log");
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(steps.at_once.load(Ordering::SeqCst), 0, "the other one was dropped");
    assert_eq!(pipeline.in_flight(), 0);
}

#[tokio::test]
async fn a_step_that_nothing_answers_for_makes_the_pipeline_not_ready() {
    for (reason, as_seen) in [
        (Reason::ModelNotFound, Reason::ModelNotReady),
        (Reason::VersionNotFound, Reason::ModelNotReady),
        (Reason::ModelNotReady, Reason::ModelNotReady),
        (Reason::QueueFull, Reason::QueueFull),
        (Reason::InvalidTensor, Reason::InvalidTensor),
        (Reason::UnknownTensor, Reason::ModelExecutionFailed),
    ] {
        let steps = Echo { fails: [("decode", reason)].into(), ..Echo::default() };
        let error = pipeline(&diamond(), WIDE).execute(&steps, request(vec![tensor("photo", b"a")]), 0).await.unwrap_err();
        assert_eq!(error.reason(), as_seen);
        assert!(error.public_text().contains("step 'decode'"), "{error}");
        assert_eq!(error.retry_delay().is_some(), as_seen == Reason::ModelNotReady);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_for_all_steps_together() {
    let takes = [("decode", Duration::from_secs(8)), ("two", Duration::from_secs(8))].into();
    let steps = Echo { takes, ..Echo::default() };
    let began = tokio::time::Instant::now();
    let error = pipeline(&diamond(), WIDE).execute(&steps, request(vec![tensor("photo", b"a")]), 0).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DeadlineExceeded);
    assert!(error.public_text().ends_with("was at 'two'"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(steps.at_once.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn the_entry_refuses_at_once_and_what_is_inside_goes_on() {
    let steps = Echo { takes: [("decode", Duration::from_secs(5))].into(), ..Echo::default() };
    let limits = PipelineLimits { max_requests: 2, ..WIDE };
    let pipeline = pipeline(&diamond(), limits);
    let began = tokio::time::Instant::now();
    let ask = || pipeline.execute(&steps, request(vec![tensor("photo", b"a")]), 0);
    let (one, two, three) = tokio::join!(ask(), ask(), async {
        let error = ask().await.unwrap_err();
        (error.reason(), began.elapsed(), error.retry_delay())
    });
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(three, (Reason::QueueFull, Duration::ZERO, Some(Duration::from_secs(1))));
    // A caller that goes away gives its place back.
    let left = tokio::time::timeout(Duration::from_secs(1), ask()).await;
    assert!(left.is_err());
    assert_eq!((pipeline.in_flight(), steps.at_once.load(Ordering::SeqCst)), (0, 0));
    let large = pipeline.execute(&steps, request(vec![tensor("photo", &[0; 2 << 20])]), 0).await.unwrap_err();
    assert_eq!(large.reason(), Reason::QueueFull);
}

/// Makes much of little.
struct Inflate;

#[async_trait]
impl Steps for Inflate {
    async fn infer(&self, request: InferRequest, _depth: u8) -> Result<Vec<Tensor>> {
        let large = |name: &String| tensor(name, &[0; 2000]);
        Ok(request.outputs.iter().map(large).collect())
    }
}

#[tokio::test]
async fn tensors_between_steps_have_a_limit() {
    let limits = |max_bytes| PipelineLimits { max_requests: 4, max_bytes };
    let ask = async |max_bytes| pipeline(&diamond(), limits(max_bytes)).execute(&Inflate, request(vec![tensor("photo", b"a")]), 0).await;
    assert!(ask(2000).await.is_ok(), "two of them are held at a time");
    assert_eq!(ask(1999).await.unwrap_err().reason(), Reason::OverCapacity);
}

#[tokio::test]
async fn only_wished_outputs_are_made_and_unknown_ones_are_refused() {
    let steps = vec![step("a", &[("x", "in")], &[("y", "left")]), step("b", &[("x", "in")], &[("y", "right")])];
    let pipeline = pipeline(&spec(steps, &["in"], &["left", "right"]), WIDE);
    let echo = Echo::default();
    let ask = async |outputs: &[&str]| {
        let outputs = outputs.iter().map(|o| (*o).to_owned()).collect();
        pipeline.execute(&echo, InferRequest { outputs, ..request(vec![tensor("in", b"a")]) }, 0).await
    };
    assert_eq!(ask(&["right"]).await.unwrap(), [tensor("right", b"a")]);
    assert_eq!(echo.seen.lock().unwrap().len(), 1);
    let names = |tensors: Vec<Tensor>| tensors.iter().map(|t| t.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(ask(&["right", "left"]).await.unwrap()), ["right", "left"]);
    assert_eq!(ask(&["other"]).await.unwrap_err().reason(), Reason::UnknownTensor);
}

#[tokio::test]
async fn pipelines_in_pipelines_have_an_end() {
    /// Answers every model by the same pipeline.
    struct Again(Pipeline);
    #[async_trait]
    impl Steps for Again {
        async fn infer(&self, request: InferRequest, depth: u8) -> Result<Vec<Tensor>> {
            let outputs = request.outputs.clone();
            let inner = InferRequest { inputs: vec![tensor("in", b"a")], outputs: vec![], ..request };
            let answer = self.0.execute(self, inner, depth).await?;
            Ok(answer.into_iter().zip(outputs).map(|(t, name)| t.with_name(name).unwrap()).collect())
        }
    }
    let again = Again(pipeline(&spec(vec![step("pipe", &[("x", "in")], &[("y", "out")])], &["in"], &["out"]), WIDE));
    let error = again.0.execute(&again, request(vec![tensor("in", b"a")]), 0).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ModelNotReady);
    assert!(error.public_text().contains("nested more than 8 deep"), "{error}");
}

#[test]
fn the_entry_is_as_wide_as_the_steps_queues() {
    let queue = PipelineLimits { max_requests: 64, max_bytes: 1000 };
    let graph = |spec: &GraphSpec| Graph::new(spec).unwrap();
    let twice = spec(vec![step("m", &[("x", "in")], &[("y", "mid")]), step("m", &[("x", "mid")], &[("y", "out")])], &["in"], &["out"]);
    assert_eq!(PipelineLimits::for_graph(&graph(&diamond()), 0, queue), queue);
    assert_eq!(PipelineLimits::for_graph(&graph(&twice), 0, queue).max_requests, 32);
    assert_eq!(PipelineLimits::for_graph(&graph(&twice), 5, queue), PipelineLimits { max_requests: 5, max_bytes: 1000 });
    assert_eq!(PipelineLimits::for_graph(&graph(&twice), 0, PipelineLimits { max_requests: 1, ..queue }).max_requests, 1);
}

#[test]
fn a_pipeline_describes_itself_as_a_model_does() {
    let text = br#"platform: "ensemble" max_batch_size: 2
        input [ { name: "a" data_type: TYPE_FP32 dims: 1 }, { name: "b" data_type: TYPE_FP32 dims: 1 optional: true } ]
        output { name: "z" data_type: TYPE_FP32 dims: 1 }
        ensemble_scheduling { step { model_name: "m" input_map { key: "x" value: "a" } input_map { key: "y" value: "b" }
            output_map { key: "z" value: "z" } } max_inflight_requests: 3 }"#;
    let name: ModelName = "pipe".parse().unwrap();
    let config = ModelConfig::parse_pbtxt(text).unwrap().complete_pipeline(&name, &|_, _| None).unwrap();
    let pipeline = Pipeline::new(name.clone(), &config, WIDE, Arc::new(SystemClock)).unwrap();
    let metadata = pipeline.metadata();
    assert_eq!((metadata.platform.as_str(), metadata.engine.as_str()), ("ensemble", "pipeline, steps: 1"));
    assert_eq!((metadata.inputs.len(), metadata.outputs.len(), &metadata.optional_inputs), (2, 1, &vec!["b".to_owned()]));
    let passes: Vec<_> = std::iter::from_fn(|| pipeline.gate.enter(1)).collect();
    assert_eq!(passes.len(), 3, "max_inflight_requests");
    assert!(Pipeline::new(name, &ModelConfig::default(), WIDE, Arc::new(SystemClock)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_inside_but_not_for_ever() {
    let steps = Echo { takes: [("decode", Duration::from_secs(5))].into(), ..Echo::default() };
    let pipeline = pipeline(&diamond(), WIDE);
    let began = tokio::time::Instant::now();
    let ask = || pipeline.execute(&steps, request(vec![tensor("photo", b"a")]), 0);
    let (answer, ()) = tokio::join!(ask(), pipeline.stop(Duration::from_secs(60)));
    assert!(answer.is_ok());
    assert_eq!(began.elapsed().as_secs(), 5);
    pipeline.ended().await;
    assert!(ask().await.is_ok(), "who comes late is served");
    let began = tokio::time::Instant::now();
    let (answer, at) = tokio::join!(ask(), async {
        pipeline.stop(Duration::from_secs(1)).await;
        began.elapsed().as_secs()
    });
    assert!(answer.is_ok());
    assert_eq!(at, 1);
}
