//! Runs with a model that is a function, interrupted anywhere.

use std::io::{Seek, Write};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use plinth_types::tensor::{Dim, Shape, Tensor, TensorSpec};
use plinth_types::{DataType, Digest};
use proptest::prelude::*;

use super::super::score::Refusal;
use super::super::table::Facts;
use super::*;

/// `sum` of the four elements of `x`, and `first` of them. Refuses batches with a row that begins with -666, and answers late when the first row
/// of a batch is even.
struct Sums {
    asked: AtomicU64,
}

#[async_trait]
impl Scorer for Sums {
    async fn score(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Refusal> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        for _ in 0..(asked % 3) * 2 {
            tokio::task::yield_now().await;
        }
        let x: Vec<f32> = inputs[0].data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = x.as_chunks::<4>().0;
        if rows.iter().any(|row| row[0] == -666.0) {
            return Err(Refusal::Rows("unlucky".into()));
        }
        let n = rows.len() as u64;
        let sums: Vec<u8> = rows.iter().flat_map(|row| row.iter().sum::<f32>().to_le_bytes()).collect();
        let first: Vec<u8> = rows.iter().flat_map(|row| i64::from(row[0] as i32).to_le_bytes()).collect();
        let tensor = |name: &str, kind, bytes: Vec<u8>| Tensor::new(name, kind, Shape::new(vec![n, 1]).unwrap(), bytes.into()).unwrap();
        Ok(vec![tensor("sum", DataType::Fp32, sums), tensor("first", DataType::Int64, first)])
    }
}

/// Keeps parts in memory, and fails at the report with number `dies`; its clock runs, so that parts end in other places each time.
struct Memory {
    parts: Mutex<Vec<(Digest, Bytes)>>,
    last: Mutex<State>,
    reports: AtomicU64,
    dies: u64,
    clock: AtomicU64,
    tick: u64,
}

impl Memory {
    fn new(dies: u64, tick: u64) -> Self {
        let (parts, last) = (Mutex::default(), Mutex::default());
        Self { parts, last, reports: AtomicU64::new(0), dies, clock: AtomicU64::new(0), tick }
    }
}

#[async_trait]
impl Journal for Memory {
    async fn keep(&self, bytes: Bytes) -> Result<Part> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        self.parts.lock().unwrap().push((digest, bytes));
        Ok(Part { digest: digest.to_string(), size })
    }

    async fn report(&self, _: Option<f64>, state: Option<&State>) -> Result<()> {
        if let Some(state) = state {
            if self.reports.fetch_add(1, Ordering::Relaxed) == self.dies {
                return Err(Error::new(Reason::WorkerLost, "dies here"));
            }
            *self.last.lock().unwrap() = state.clone();
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock.fetch_add(self.tick, Ordering::Relaxed))
    }
}

fn spec(output_format: Format) -> Spec {
    let json = serde_json::json!({
        "file": "file-1", "digest": Digest::of(b"").to_string(), "size": 0, "format": "json-lines", "compression": "none",
        "output_format": output_format,
    });
    serde_json::from_value(json).unwrap()
}

fn table(spec: &Spec, max_batch: u32) -> Table {
    let tensor = |name: &str, kind, n| TensorSpec::new(name, kind, vec![Dim::Any, Dim::Fixed(n)]).unwrap();
    let inputs = [tensor("x", DataType::Fp32, 4)];
    let outputs = [tensor("sum", DataType::Fp32, 1), tensor("first", DataType::Int64, 1)];
    Table::new(&Facts { inputs: &inputs, optional: &|_| false, outputs: &outputs, max_batch }, spec).unwrap()
}

/// The file, and what its output should be as JSON lines.
fn file(rows: usize) -> (std::fs::File, String) {
    let mut file = tempfile::tempfile().unwrap();
    let (mut text, mut want) = (String::new(), String::new());
    for row in 0..rows {
        match row % 97 {
            13 => {
                text.push_str("{\"x\":[1,2]}\n");
                let why = "has 2 elements, expected 4 (each a finite number in the range of a 32-bit float)";
                want.push_str(&format!("{{\"row\":{row},\"error\":\"the field \\\"x\\\" {why}\"}}\n"));
            }
            51 => {
                text.push_str("[-666,0,0,0]\n");
                want.push_str(&format!("{{\"row\":{row},\"error\":\"unlucky\"}}\n"));
            }
            _ => {
                text.push_str(&format!("{{\"x\":[{row},1,2,0.5]}}\n"));
                want.push_str(&format!("{{\"row\":{row},\"sum\":{:?},\"first\":{row}}}\n", row as f32 + 3.5));
            }
        }
    }
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    (file, want)
}

fn output(manifest: &[Part], stored: &[(Digest, Bytes)]) -> String {
    let find = |part: &Part| stored.iter().find(|(digest, _)| digest.to_string() == part.digest).unwrap().1.to_vec();
    String::from_utf8(manifest.iter().flat_map(find).collect()).unwrap()
}

async fn attempt(file: &std::fs::File, max_batch: u32, state: State, journal: &Memory, format: Format) -> Result<Manifest, JobError> {
    let spec = spec(format);
    let table = table(&spec, max_batch);
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    let run = Run { table: &table, file, spec: &spec, state, concurrency: 4 };
    run.through(&Sums { asked: AtomicU64::new(0) }, journal).await
}

/// All attempts until one gets through; each dies at its first report but a few.
async fn interrupted(file: &std::fs::File, max_batch: u32, dies: u64, tick: u64, format: Format) -> (Manifest, String) {
    let (mut stored, mut state) = (Vec::new(), State::default());
    for _ in 0..10_000 {
        let journal = Memory::new(dies, tick);
        *journal.last.lock().unwrap() = state.clone();
        let ended = attempt(file, max_batch, state, &journal, format).await;
        stored.extend(journal.parts.into_inner().unwrap());
        match ended {
            Ok(manifest) => {
                let text = output(&manifest.parts, &stored);
                return (manifest, text);
            }
            Err(JobError::Cancelled) => state = journal.last.into_inner().unwrap(),
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("it never ends")
}

#[tokio::test]
async fn rows_come_out_in_order_with_their_errors_in_place() {
    let (file, want) = file(3000);
    for max_batch in [0, 1, 7, 64, 4096] {
        let journal = Memory::new(u64::MAX, 0);
        let manifest = attempt(&file, max_batch, State::default(), &journal, Format::JsonLines).await.unwrap();
        let text = output(&manifest.parts, &journal.parts.lock().unwrap());
        assert_eq!(text, want, "batches of {max_batch}");
        assert_eq!((manifest.rows, manifest.failed, manifest.bytes), (3000, 62, want.len() as u64));
    }
}

#[tokio::test]
async fn nothing_gives_nothing() {
    let (file, _) = file(0);
    let manifest = attempt(&file, 8, State::default(), &Memory::new(u64::MAX, 0), Format::JsonLines).await.unwrap();
    assert_eq!((manifest.rows, manifest.bytes, manifest.parts.len()), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever it is interrupted, the output is the same.
    #[test]
    fn an_interrupted_run_gives_the_same_bytes(rows in 1..1500_usize, max_batch in 1..80_u32, dies in 1..4_u64, tick in 200..9000_u64, csv: bool) {
        let format = if csv { Format::Csv } else { Format::JsonLines };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (file, want) = file(rows);
            let whole = Memory::new(u64::MAX, 0);
            let manifest = attempt(&file, max_batch, State::default(), &whole, format).await.unwrap();
            let whole = output(&manifest.parts, &whole.parts.lock().unwrap());
            assert!(csv || whole == want);
            let (again, text) = interrupted(&file, max_batch, dies, tick, format).await;
            assert_eq!(text, whole);
            assert_eq!((again.rows, again.failed, again.bytes), (manifest.rows, manifest.failed, manifest.bytes));
        });
    }
}
