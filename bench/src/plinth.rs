//! A Plinth node as a child process: its home, which outlives it, and the node itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plinth_client::{Client, Options, Secret};
use plinth_engine::testing::onnx_model;
use plinth_types::{DataType, Dim};
use rustix::process::Signal;
use serde_json::Value;

use crate::exchange::{Connection, Target};
use crate::process;
use crate::setup::Setup;

/// How long a start and an end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a configuration, the data of a node, its log and its admin key.
pub struct Home {
    directory: tempfile::TempDir,
    binary: PathBuf,
    key: Option<String>,
    /// How long a start may take.
    patience: Duration,
}

impl Home {
    /// An empty home. Keys are on and everything else is as it is by default, but for the ports.
    pub fn new(setup: &Setup) -> Result<Self> {
        Self::with(setup, &[])
    }

    /// The same with further keys of the configuration, and their values as TOML.
    pub fn with(setup: &Setup, keys: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let data = format!("{:?}", directory.path().join("data"));
        let library = setup.onnxruntime.canonicalize().context("ONNX Runtime's library is not there; `make setup` fetches it")?;
        let (library, port) = (format!("{library:?}"), "\"127.0.0.1:0\"");
        let own = [
            ("node.data_dir", &*data),
            ("listen.http", port),
            ("listen.grpc", port),
            ("listen.metrics", port),
            ("engine.onnxruntime", &*library),
        ];
        let all = own.iter().chain(keys).map(|(key, value)| format!("{key} = {value}\n"));
        std::fs::write(directory.path().join("plinth.toml"), all.collect::<String>())?;
        let binary = setup.plinth.canonicalize().context("the binary is not there; `make build` makes it")?;
        Ok(Self { directory, binary, key: None, patience: PATIENCE })
    }

    /// The same for a node that has much to read.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Starts a node and returns as soon as it says where it listens.
    pub fn start(&mut self) -> Result<Node> {
        let command = Command::new(&self.binary);
        self.run(command)
    }

    /// The same on one processor alone.
    pub fn start_on(&mut self, processor: usize) -> Result<Node> {
        let command = crate::rivals::proxies::on_processor(processor, &self.binary);
        self.run(command)
    }

    fn run(&mut self, mut command: Command) -> Result<Node> {
        let log = std::fs::File::create(self.path("log"))?;
        command.arg("up").arg("--config").arg(self.path("plinth.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().context("starting plinth")?;
        let mut node = Node { child, started, http: String::new(), grpc: String::new(), key: String::new(), binary: self.binary.clone() };
        (node.http, node.grpc) = self.until("node.json", || self.address(node.child.id()))?;
        let key = match self.key.take() {
            Some(key) => key,
            None => self.until("the admin key", || self.printed_key())?,
        };
        self.key = Some(key.clone());
        node.key = key;
        Ok(node)
    }

    /// Where a running node shows its metrics.
    pub fn metrics(&self, node: &Node) -> Result<String> {
        let file: Value = serde_json::from_slice(&std::fs::read(self.path("data/node.json"))?)?;
        ensure!(file["pid"].as_u64() == Some(u64::from(node.pid())), "another node runs here");
        Ok(format!("http://{}", file["metrics"].as_str().context("the node shows no metrics")?))
    }

    /// The node's data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
        let end = Instant::now() + self.patience;
        while Instant::now() < end {
            if let Some(found) = look() {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        bail!("waited in vain for {what}; the node said:\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default())
    }

    fn address(&self, pid: u32) -> Option<(String, String)> {
        let file: Value = serde_json::from_slice(&std::fs::read(self.path("data/node.json")).ok()?).ok()?;
        // A node that was killed leaves its file behind.
        let own = file["pid"].as_u64() == Some(u64::from(pid));
        own.then(|| Some((format!("http://{}", file["http"].as_str()?), file["grpc"].as_str()?.to_owned())))?
    }

    fn printed_key(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.path("log")).ok()?;
        let mut words = log.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.find(|word| word.starts_with("plinth_") && word.len() > 40).map(str::to_owned)
    }
}

/// A running node. Dropping it kills it.
pub struct Node {
    child: Child,
    /// When its program was executed.
    pub started: Instant,
    pub http: String,
    /// The address of its gRPC listener.
    pub grpc: String,
    pub key: String,
    binary: PathBuf,
}

impl Node {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn infer_url(&self, model: &str) -> String {
        format!("{}/v2/models/{model}/infer", self.http)
    }

    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.http, Some(Secret::new(self.key.clone())), Options::default())?)
    }

    /// Pushes a directory as a version of a model and waits until it answers, if it is promoted.
    pub fn push(&self, name: &str, directory: &Path, promote: bool) -> Result<()> {
        self.push_for(None, name, directory, promote)
    }

    /// The same for another tenant.
    pub fn push_for(&self, tenant: Option<&str>, name: &str, directory: &Path, promote: bool) -> Result<()> {
        let mut push = Command::new(&self.binary);
        push.args(["model", "push"]).arg(directory).args(["--name", name]);
        push.args(tenant.into_iter().flat_map(|tenant| ["--tenant", tenant]));
        if promote {
            push.args(["--promote", "--wait"]);
        }
        push.env("PLINTH_SERVER", &self.http).env("PLINTH_KEY", &self.key);
        let output = push.output()?;
        if !output.status.success() {
            bail!("push of {name} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Applies resources, all or none.
    pub async fn apply(&self, resources: &Value) -> Result<()> {
        let body = serde_json::json!({ "resources": resources }).to_string();
        let target = Target::post(&format!("{}/v1/apply", self.http), body.as_bytes(), None, Some(&self.key))?;
        let mut connection = Connection::open(&target.address).await?;
        let answer = connection.exchange(&target).await?;
        ensure!(answer.status == 200, "resources were refused with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        Ok(())
    }

    /// The process that holds the model's default version.
    pub async fn runner(&self, model: &str) -> Result<u32> {
        let status = self.client()?.status().await?;
        let served = status.models.iter().find(|served| served.model.as_str() == model && served.default);
        served.and_then(|served| served.pid).with_context(|| format!("{model} is not served"))
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        process::send(self.pid(), Signal::TERM)?;
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("the node did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a version of the digits model into a directory, under another name if need be.
pub fn digits(setup: &Setup, version: &str, name: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let from = setup.models.join(version);
    std::fs::copy(from.join("model.onnx"), to.join("model.onnx")).with_context(|| format!("copying version {version} of digits"))?;
    let config = std::fs::read_to_string(from.join("config.pbtxt"))?;
    Ok(std::fs::write(to.join("config.pbtxt"), config.replace("name: \"digits\"", &format!("name: \"{name}\"")))?)
}

/// Writes a model with a configuration into a directory. Batches begin every tensor; `rest` is more of `config.pbtxt`.
pub fn batched(model: &Model<'_>, rest: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::write(to.join("model.onnx"), model.onnx)?;
    Ok(std::fs::write(to.join("config.pbtxt"), model.config("platform: \"onnxruntime_onnx\"", rest))?)
}

/// A model with one FP32 input and some outputs, for every server that reads `config.pbtxt`.
pub struct Model<'a> {
    pub name: &'a str,
    pub onnx: &'a [u8],
    pub max_batch: usize,
    pub input: (&'a str, &'a [usize]),
    /// Name, type and shape of each.
    pub outputs: &'a [(&'a str, &'a str, &'a [usize])],
}

impl Model<'_> {
    pub fn config(&self, platform: &str, rest: &str) -> String {
        let outputs: Vec<String> = self
            .outputs
            .iter()
            .map(|(name, kind, shape)| format!("{{ name: \"{name}\", data_type: TYPE_{kind}, dims: {shape:?} }}"))
            .collect();
        format!(
            "name: \"{}\"\n{platform}\nmax_batch_size: {}\ninput [ {{ name: \"{}\", data_type: TYPE_FP32, dims: {:?} }} ]\noutput [ {} ]\n{rest}\n",
            self.name,
            self.max_batch,
            self.input.0,
            self.input.1,
            outputs.join(", ")
        )
    }
}

/// Writes a model into a directory that returns its one FP32 input of so many columns.
pub fn identity(columns: usize, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let shape = [Dim::Any, Dim::Fixed(columns as u64)];
    Ok(std::fs::write(to.join("model.onnx"), onnx_model::identity(DataType::Fp32, &shape))?)
}
