//! What the tests of servers share: a version with a server, a world, a group of tasks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plinth_engine::testing::floats;
use plinth_engine::{FileSpec, ProcessServer, ProcessSpec, RunnerError};
use plinth_runtime::{TaskGroup, World};
use plinth_types::{ByteSize, Digest, Parameter, Parameters, Tensor};

pub const SOON: Duration = Duration::from_secs(20);
pub const SCRIPT: &[u8] = include_bytes!("server.py");

/// The interpreter that `make setup` has made.
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.plinth/venv/bin/python");
    assert!(path.exists(), "the tests' Python is not there: run `make setup`");
    path
}

/// A version of files, with all that belongs to it, in a directory that goes when this goes.
pub struct Version {
    pub root: tempfile::TempDir,
    files: Vec<FileSpec>,
}

impl Version {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        Self::at(tempfile::tempdir().unwrap(), files)
    }

    pub fn at(root: tempfile::TempDir, files: &[(&str, &[u8])]) -> Self {
        // What servers print, beside the failure that it explains.
        let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing_subscriber::filter::LevelFilter::INFO).try_init();
        for name in ["version", "scratch", "secret"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("secret/key"), "secret").unwrap();
        let files = files.iter().map(|(path, bytes)| {
            let spec = FileSpec { path: path.parse().unwrap(), size: bytes.len() as u64, digest: Digest::of(bytes) };
            let place = spec.path.under(&root.path().join("version"));
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, bytes).unwrap();
            spec
        });
        let files = files.collect();
        Self { root, files }
    }

    /// The Python server in a mode, with more lines for `process.toml`.
    pub fn python(mode: &str, more: &str) -> Self {
        Self::new(&[("process.toml", manifest("oip-http", mode, more).as_bytes()), ("server.py", SCRIPT)])
    }

    pub fn openai(mode: &str, more: &str) -> Self {
        Self::new(&[("process.toml", manifest("openai", mode, more).as_bytes()), ("server.py", SCRIPT)])
    }

    pub fn spec(&self) -> ProcessSpec {
        let at = |name: &str| self.root.path().join(name);
        ProcessSpec {
            supervisor: env!("CARGO_BIN_EXE_engine-test-runner").into(),
            program_allow: vec![python()],
            label: "test/model/1".to_owned(),
            name: "m".to_owned(),
            directory: at("version"),
            files: self.files.clone(),
            scratch: at("scratch"),
            hidden: vec![at("secret")],
            memory: None,
            max_queue_requests: 64,
            max_queue_bytes: ByteSize::mib(64),
            load_timeout: SOON,
            execution_timeout: Duration::from_secs(10),
        }
    }

    pub async fn start(&self) -> ProcessServer {
        start(self.spec()).await.unwrap()
    }

    /// Nothing of its servers is left on disk.
    pub fn is_clean(&self) -> bool {
        std::fs::read_dir(self.root.path().join("scratch")).unwrap().next().is_none()
    }
}

/// `process.toml` of the Python server. Lines after the first table must be tables.
pub fn manifest(protocol: &str, mode: &str, more: &str) -> String {
    format!(
        "command = [\"python\", \"{{model_dir}}/server.py\", \"{{port}}\", \"{mode}\"]\nprotocol = \"{protocol}\"\nconcurrency = 4\n{more}"
    )
}

pub async fn start(spec: ProcessSpec) -> Result<ProcessServer, RunnerError> {
    ProcessServer::start(spec, &World::real(), &TaskGroup::new("test")).await
}

pub fn parameters(deed: &str, value: &str) -> Parameters {
    let text = |text: &str| Parameter::Text(text.to_owned());
    Parameters::from([("deed".to_owned(), text(deed)), ("value".to_owned(), text(value))])
}

pub async fn ask_within(server: &ProcessServer, deed: &str, value: &str, deadline: Duration) -> Result<Vec<Tensor>, RunnerError> {
    server.infer(vec![floats("x", &[1.0, 2.5])], vec![], &parameters(deed, value), deadline).await
}

pub async fn ask(server: &ProcessServer, deed: &str, value: &str) -> Result<Vec<Tensor>, RunnerError> {
    ask_within(server, deed, value, SOON).await
}

/// What the server says of a deed.
pub async fn says(server: &ProcessServer, deed: &str, value: &str) -> String {
    let answer = ask(server, deed, value).await.unwrap();
    String::from_utf8(answer[1].byte_elements().next().unwrap().to_vec()).unwrap()
}

pub fn alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Waits for something that another process does.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
