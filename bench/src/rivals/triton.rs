//! Triton: the server inside the package `nvidia-pytriton`, with its Python backend calling ONNX Runtime.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Server, free_port, place, site};
use crate::plinth::Model;
use crate::setup::Setup;

const MODEL: &str = include_str!("../../rivals/triton_model.py");

/// A model and how many instances of it run.
pub struct Deployed<'a> {
    pub model: Model<'a>,
    pub instances: usize,
}

/// A running Triton. Dropping it ends it.
pub struct Triton {
    _server: Server,
    _directory: tempfile::TempDir,
    http: String,
    /// The address of its gRPC listener.
    pub grpc: String,
}

impl Triton {
    /// Starts it with these models and waits until all are ready.
    pub async fn start(setup: &Setup, models: &[Deployed<'_>]) -> Result<Self> {
        let environment = place(setup, "triton")?;
        let site = site(&environment)?;
        let package = site.join("pytriton/tritonserver");
        let directory = tempfile::tempdir()?;
        let python = Python::of(&environment)?;
        backend(&package, &python.version, &directory.path().join("backends/python"))?;
        for deployed in models {
            repository(deployed, &directory.path().join("models"))?;
        }

        let (http, grpc) = (free_port()?, free_port()?);
        let mut command = Command::new(package.join("bin/tritonserver"));
        command.arg("--model-repository").arg(directory.path().join("models"));
        command.arg("--backend-directory").arg(directory.path().join("backends"));
        for (flag, value) in [
            ("--http-address", "127.0.0.1".to_owned()),
            ("--grpc-address", "127.0.0.1".to_owned()),
            ("--http-port", http.to_string()),
            ("--grpc-port", grpc.to_string()),
            ("--metrics-port", free_port()?.to_string()),
            ("--allow-metrics", "true".to_owned()),
        ] {
            command.arg(flag).arg(value);
        }
        let libraries = [site.join("nvidia_pytriton.libs"), package.join("lib"), python.library];
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
        command.env("PYTHONPATH", &site).env("PLINTH_BENCH_SITE", &site);
        let mut server = Server::start(command, &directory.path().join("log"))?;
        let http = format!("http://127.0.0.1:{http}");
        server.ready(&format!("{http}/v2/health/ready")).await?;
        Ok(Self { _server: server, _directory: directory, http, grpc: format!("127.0.0.1:{grpc}") })
    }

    pub fn infer_url(&self, model: &str) -> String {
        format!("{}/v2/models/{model}/infer", self.http)
    }

    pub fn http(&self) -> &str {
        &self.http
    }
}

/// The interpreter of an environment: its version, such as `3.11`, and where its library is.
struct Python {
    version: String,
    library: PathBuf,
}

impl Python {
    fn of(environment: &Path) -> Result<Self> {
        let script = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2]); print(sysconfig.get_config_var('LIBDIR'))";
        let output = Command::new(environment.join("bin/python")).args(["-c", script]).output().context("asking Python for its version")?;
        let text = String::from_utf8(output.stdout)?;
        let (version, library) = text.trim().split_once('\n').context("Python did not say its version")?;
        Ok(Self { version: version.to_owned(), library: library.into() })
    }
}

/// Puts the Python backend together: the package keeps the part that depends on Python's version apart.
fn backend(package: &Path, version: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(package.join("backends/python"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let name = "triton_python_backend_stub";
    let stub = package.join("python_backend_stubs").join(version).join(name);
    std::fs::copy(stub, to.join(name)).with_context(|| format!("the package has no stub for Python {version}"))?;
    Ok(std::fs::set_permissions(to.join(name), std::fs::Permissions::from_mode(0o755))?)
}

fn repository(deployed: &Deployed<'_>, to: &Path) -> Result<()> {
    let directory = to.join(deployed.model.name);
    std::fs::create_dir_all(directory.join("1"))?;
    std::fs::write(directory.join("1/model.py"), MODEL)?;
    std::fs::write(directory.join("1/model.onnx"), deployed.model.onnx)?;
    let rest = format!("dynamic_batching {{ }}\ninstance_group [ {{ count: {} kind: KIND_CPU }} ]", deployed.instances);
    Ok(std::fs::write(directory.join("config.pbtxt"), deployed.model.config("backend: \"python\"", &rest))?)
}
