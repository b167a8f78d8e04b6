//! The rival: an HTTP server that calls ONNX Runtime in its own process and does nothing else.
//!
//! One FP32 input, every FP32 output; JSON or binary body; no routing, no checks, no metrics, no
//! isolation. What it reaches is what is left when a server has no features.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ort::session::Session;
use ort::value::TensorRef;
use serde::Deserialize;

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

/// One session for each thread that serves.
struct Sessions(Vec<Mutex<Session>>);

/// Serves until it is killed; prints its address.
pub async fn serve(model: &Path, library: &Path) -> Result<()> {
    ort::init_from(library)?.commit();
    let model = std::fs::read(model)?;
    let environment = ort::environment::Environment::current()?;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut builder = Session::builder(&environment)?;
        builder = builder.with_intra_threads(1).map_err(|e| anyhow::anyhow!("{e}"))?;
        sessions.push(Mutex::new(builder.commit_from_memory(&model)?));
    }
    let sessions = Arc::new(Sessions(sessions));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sessions = sessions.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, sessions.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, sessions: Arc<Sessions>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match try_answer(request, &sessions).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Full::new(Bytes::from(error.to_string())));
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    })
}

async fn try_answer(request: Request<Incoming>, sessions: &Sessions) -> Result<Response<Full<Bytes>>> {
    let header = request.headers().get("inference-header-content-length").and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let body = request.into_body().collect().await?.to_bytes();
    let json = header.map_or(&body[..], |length| &body[..length]);
    let call: Call<'_> = serde_json::from_slice(json)?;
    let input = call.inputs.into_iter().next().context("no input")?;
    let data = match header {
        Some(length) => body[length..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        None => input.data,
    };
    let mut session =
        sessions.0.iter().find_map(|s| s.try_lock().ok()).unwrap_or_else(|| sessions.0[0].lock().unwrap_or_else(PoisonError::into_inner));
    let tensor = TensorRef::from_array_view((input.shape, &data[..]))?;
    let outputs = session.run(ort::inputs![input.name => tensor])?;
    let mut text = String::from(r#"{"outputs":["#);
    let mut binary = Vec::new();
    for (i, (name, value)) in outputs.iter().enumerate() {
        let Ok((shape, data)) = value.try_extract_tensor::<f32>() else { continue };
        let comma = if i > 0 { "," } else { "" };
        text.push_str(&format!(r#"{comma}{{"name":"{name}","datatype":"FP32","shape":{},"#, serde_json::to_string(&shape.to_vec())?));
        if header.is_some() {
            text.push_str(&format!(r#""parameters":{{"binary_data_size":{}}}}}"#, data.len() * 4));
            binary.extend(data.iter().flat_map(|v| v.to_le_bytes()));
        } else {
            text.push_str(r#""data":"#);
            text.push_str(&serde_json::to_string(data)?);
            text.push('}');
        }
    }
    text.push_str("]}");
    let head = text.len();
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&binary);
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    if header.is_some() {
        response.headers_mut().insert("inference-header-content-length", head.into());
    }
    Ok(response)
}
