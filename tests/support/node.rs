//! A node as a child process in a directory of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plinth_client::Client;
use serde_json::Value;

use super::{eventually, onnxruntime};

/// How a node is started.
#[derive(Default, Clone)]
pub struct NodeOptions {
    /// Runs with `--dev`: no keys.
    pub dev: bool,
    /// `section.key=value` settings, as in TOML.
    pub settings: Vec<(String, String)>,
}

impl NodeOptions {
    pub fn dev() -> Self {
        Self { dev: true, settings: Vec::new() }
    }

    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Allows the backend that misbehaves on demand.
    pub fn villain(self) -> Self {
        self.set("engine.backends", r#"["onnx", "villain"]"#)
    }
}

/// A running node. Dropping it kills the process.
pub struct Node {
    child: Option<Child>,
    options: NodeOptions,
    directory: tempfile::TempDir,
    key: Option<String>,
    pub http: String,
    /// Without a scheme, as gRPC's clients want it.
    pub grpc: String,
    pub metrics: String,
}

impl Node {
    /// Starts a node in a fresh directory and waits until it is ready.
    pub async fn start(options: NodeOptions) -> Self {
        let mut node = Self::prepare(options);
        node.spawn();
        node.wait_ready().await;
        node
    }

    /// A node that is not started yet.
    pub fn prepare(options: NodeOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { child: None, options, directory, key: None, http: String::new(), grpc: String::new(), metrics: String::new() }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.options.settings.retain(|(k, _)| k != key);
        self.options.settings.push((key.into(), value.into()));
    }

    /// Everything that the node has logged and printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        let _ = std::fs::remove_file(self.data_dir().join("node.json"));
        std::fs::write(self.directory.path().join("plinth.toml"), self.config()).expect("the configuration is written");
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log")).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
        command.arg("up").arg("--config").arg(self.directory.path().join("plinth.toml"));
        if self.options.dev {
            command.arg("--dev");
        }
        command.env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    fn config(&self) -> String {
        let mut sections = std::collections::BTreeMap::<String, Vec<String>>::new();
        let defaults = [
            ("node.data_dir", format!("{:?}", self.data_dir())),
            ("listen.http", r#""127.0.0.1:0""#.into()),
            ("listen.grpc", r#""127.0.0.1:0""#.into()),
            ("listen.metrics", r#""127.0.0.1:0""#.into()),
            ("engine.onnxruntime", format!("{:?}", onnxruntime())),
            ("snapshot.poll", r#""100ms""#.into()),
            ("log.level", r#""debug""#.into()),
        ];
        let mut all: std::collections::BTreeMap<String, String> = defaults.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        all.extend(self.options.settings.iter().cloned());
        for (key, value) in all {
            let (section, key) = key.split_once('.').expect("section.key");
            sections.entry(section.into()).or_default().push(format!("{key} = {value}"));
        }
        sections.into_iter().map(|(section, lines)| format!("[{section}]\n{}\n\n", lines.join("\n"))).collect()
    }

    /// Waits until the node listens, says that it is ready, and has printed its key.
    pub async fn wait_ready(&mut self) {
        self.wait_listening().await;
        let url = format!("{}/v2/health/ready", self.http);
        let ready = eventually("the node is ready", Duration::from_secs(30), async || {
            let status = reqwest::get(&url).await.ok()?.status();
            status.is_success().then_some(())
        });
        ready.await;
    }

    /// Waits until the node listens.
    pub async fn wait_listening(&mut self) {
        install_tls();
        let file = self.data_dir().join("node.json");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let addresses: Value = loop {
            if let Some(value) = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                break value;
            }
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "the node ended: {ended:?}\n{}", self.log());
            assert!(tokio::time::Instant::now() < deadline, "the node does not listen\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let address = |name: &str| format!("http://{}", addresses[name].as_str().expect("an address"));
        (self.http, self.metrics) = (address("http"), address("metrics"));
        self.grpc = addresses["grpc"].as_str().expect("an address").to_owned();
        if self.key.is_none() && !self.options.dev {
            self.key = find_key(&self.log());
        }
    }

    /// The admin key that the node printed when it first started.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub fn client(&self) -> Client {
        super::models::client(&self.http, self.key())
    }

    /// A plain HTTP client that shows the key.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::GET, path)
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, path)
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.http)).timeout(Duration::from_secs(30));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Kills the node as `kill -9` does and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the node to end and waits; its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the node runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let status = eventually("the node ends", Duration::from_secs(40), async || child.try_wait().expect("a child"));
        status.await.code()
    }

    /// Waits until the process has ended by itself or by a signal; its status.
    pub async fn wait_end(&mut self) -> std::process::ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let status = eventually("the node ends", Duration::from_secs(30), async || child.try_wait().expect("a child")).await;
        self.child = None;
        status
    }

    /// Starts the node again on the same directory and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.wait_ready().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- the node's log, its end ---");
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}

fn find_key(log: &str) -> Option<String> {
    log.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).find(|w| w.starts_with("plinth_") && w.len() == 88).map(str::to_owned)
}

fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
