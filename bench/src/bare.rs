//! The rival: an HTTP server that calls ONNX Runtime in its own process and does nothing else.
//!
//! One FP32 input, every FP32 and INT64 output; JSON or binary body; no routing, no checks, no metrics, no isolation.
//! What it reaches is what is left when a server has no features. Two threads serve, with a session each; a session
//! computes on the thread that asks, without a pool and without spinning.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

/// Sessions, and threads that serve.
pub const THREADS: usize = 2;

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: &'a str,
    shape: Vec<i64>,
    #[serde(default)]
    data: Vec<f32>,
}

struct Sessions(Vec<Mutex<Session>>);

impl Sessions {
    fn load(model: &Path, environment: &Environment) -> Result<Self> {
        let model = std::fs::read(model)?;
        let session =
            |_| Ok(Mutex::new(build(environment, &model, 1).map_err(|error| anyhow::anyhow!("the model cannot be loaded: {error}"))?));
        Ok(Self((0..THREADS).map(session).collect::<Result<_>>()?))
    }

    /// Calls one that is free; there are as many as threads, so there is one.
    fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let free = self.0.iter().find_map(|session| session.try_lock().ok());
        let mut session = free.unwrap_or_else(|| self.0[0].lock().unwrap_or_else(PoisonError::into_inner));
        work(&mut session)
    }
}

/// A session with so many threads of its own that do not spin.
pub fn build(environment: &Environment, model: &[u8], threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .commit_from_memory(model)
}

/// Maps the library and makes its environment.
pub fn open(library: &Path) -> Result<Environment> {
    let builder = ort::init_from(library).with_context(|| format!("opening {}", library.display()))?;
    Ok(builder.with_name("bare").with_telemetry(false).build()?)
}

/// Serves until it is killed; prints its address.
pub async fn serve(model: &Path, library: &Path) -> Result<()> {
    let environment = open(library)?;
    let sessions = Arc::new(Sessions::load(model, &environment)?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sessions = sessions.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, sessions.clone()));
            // A client that leaves is no news here.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, sessions: Arc<Sessions>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(try_answer(request, &sessions).await.unwrap_or_else(|error| {
        let mut response = Response::new(Full::new(Bytes::from(error.to_string())));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

async fn try_answer(request: Request<Incoming>, sessions: &Sessions) -> Result<Response<Full<Bytes>>> {
    let header = request.headers().get("inference-header-content-length").and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let body = request.into_body().collect().await?.to_bytes();
    let (json, binary) = body.split_at_checked(header.unwrap_or(body.len())).context("the header is longer than the body")?;
    let call: Call<'_> = serde_json::from_slice(json)?;
    let input = call.inputs.into_iter().next().context("no input")?;
    let data = match header {
        Some(_) => binary.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        None => input.data,
    };
    let reply = sessions.with(|session| {
        let tensor = TensorRef::from_array_view((input.shape, &data[..]))?;
        let outputs = session.run(ort::inputs![input.name => tensor])?;
        Reply::of(&outputs, header.is_some())
    })?;
    let mut response = Response::new(Full::new(Bytes::from(reply.bytes)));
    if let Some(length) = reply.header_length {
        response.headers_mut().insert("inference-header-content-length", length.into());
    }
    Ok(response)
}

/// A body, with the length of its JSON header when it is binary.
struct Reply {
    bytes: Vec<u8>,
    header_length: Option<usize>,
}

impl Reply {
    fn of(outputs: &SessionOutputs<'_>, binary: bool) -> Result<Self> {
        let mut head = String::from(r#"{"model_name":"bare","outputs":["#);
        let mut tail = binary.then(Vec::new);
        for (i, (name, value)) in outputs.iter().enumerate() {
            if i > 0 {
                head.push(',');
            }
            if let Ok((shape, data)) = value.try_extract_tensor::<f32>() {
                output(&mut head, &mut tail, (name, "FP32", shape), data, f32::to_le_bytes)?;
            } else {
                let (shape, data) = value.try_extract_tensor::<i64>()?;
                output(&mut head, &mut tail, (name, "INT64", shape), data, i64::to_le_bytes)?;
            }
        }
        head.push_str("]}");
        let header_length = tail.as_ref().map(|_| head.len());
        let mut bytes = head.into_bytes();
        bytes.append(&mut tail.unwrap_or_default());
        Ok(Self { bytes, header_length })
    }
}

fn output<T: Copy + Serialize, const N: usize>(
    head: &mut String,
    tail: &mut Option<Vec<u8>>,
    (name, datatype, shape): (&str, &str, &[i64]),
    data: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<()> {
    write!(head, r#"{{"name":"{name}","datatype":"{datatype}","shape":{},"#, serde_json::to_string(shape)?)?;
    match tail {
        Some(tail) => {
            write!(head, r#""parameters":{{"binary_data_size":{}}}}}"#, data.len() * N)?;
            let start = tail.len();
            tail.resize(start + data.len() * N, 0);
            for (place, value) in tail[start..].chunks_exact_mut(N).zip(data) {
                place.copy_from_slice(&bytes(*value));
            }
        }
        None => write!(head, r#""data":{}}}"#, serde_json::to_string(data)?)?,
    }
    Ok(())
}

/// The bare server as a child process. Dropping it kills it.
pub struct Bare {
    child: Child,
    address: String,
}

impl Bare {
    /// Starts it and waits until it listens.
    pub fn start(model: &Path, library: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(model).arg("--onnxruntime").arg(library).stdout(Stdio::piped());
        let mut bare = Self { child: command.spawn().context("starting the bare server")?, address: String::new() };
        let output = bare.child.stdout.take().context("the bare server has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        line.trim().clone_into(&mut bare.address);
        anyhow::ensure!(!bare.address.is_empty(), "the bare server did not start");
        Ok(bare)
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
