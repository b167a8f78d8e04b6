//! The task that writes lines.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use plinth_runtime::{OnEnd, TaskGroup};
use tokio::sync::mpsc;

use super::file::File;
use super::{AccessLogOptions, Line, Lost};

/// Under which lines stand in the node's log.
const TARGET: &str = "plinth::access";
/// Written at a time.
const BATCH: usize = 256;

pub(super) fn start(options: &AccessLogOptions, mut lines: mpsc::Receiver<Box<Line>>, lost: Arc<Lost>, tasks: &TaskGroup) {
    let file = options.file.clone().map(|path| File { path, size: options.file_size.0, kept: options.files });
    let stop = tasks.cancelled().clone();
    tasks.spawn("access log", OnEnd::CancelGroup, async move {
        let mut writer = Writer { file, lost, failing: false };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let count = tokio::select! {
                count = lines.recv_many(&mut batch, BATCH) => count,
                () = stop.cancelled() => break,
            };
            if count == 0 {
                break;
            }
            writer.write(&mut batch).await;
        }
        // What was noted before the end is written.
        while let Ok(line) = lines.try_recv() {
            batch.push(line);
        }
        writer.write(&mut batch).await;
        stop.cancelled().await;
    });
}

struct Writer {
    file: Option<File>,
    lost: Arc<Lost>,
    failing: bool,
}

impl Writer {
    #[allow(clippy::vec_box, reason = "lines come boxed, so that what a request carries until its end is small")]
    async fn write(&mut self, batch: &mut Vec<Box<Line>>) {
        let Some(first) = batch.first_mut() else { return };
        let dropped = self.lost.waiting.swap(0, Ordering::Relaxed);
        first.dropped = (dropped > 0).then_some(dropped);
        let Some(file) = self.file.clone() else {
            batch.drain(..).for_each(|line| say(&line));
            return;
        };
        let count = batch.len() as u64;
        let mut text = Vec::with_capacity(batch.len() * 512);
        for line in batch.drain(..) {
            // A struct of texts and numbers always becomes JSON.
            if serde_json::to_writer(&mut text, &line).is_ok() {
                text.push(b'\n');
            }
        }
        match tokio::task::spawn_blocking(move || file.append(&text)).await {
            Ok(Ok(())) => self.failing = false,
            Ok(Err(error)) => {
                self.lost.waiting.fetch_add(dropped, Ordering::Relaxed);
                self.lost.add(count);
                if !self.failing {
                    tracing::error!(%error, "the access log cannot be written; what is missing is counted");
                }
                self.failing = true;
            }
            // The runtime ends.
            Err(_) => {}
        }
    }
}

/// Into the node's log.
fn say(line: &Line) {
    tracing::info!(
        target: TARGET,
        {
        "plinth.request_id" = line.request,
        trace_id = line.trace,
        span_id = line.span,
        trace_sampled = line.recorded,
        "plinth.tenant" = line.tenant,
        "user.id" = line.user,
        "client.address" = line.client,
        "plinth.listener" = line.listener,
        "network.protocol.version" = line.version,
        "http.request.method" = line.method,
        "http.route" = line.pattern,
        "plinth.route" = line.route,
        "url.path" = line.path,
        "http.response.status_code" = line.status,
        "error.type" = line.reason,
        "http.request.body.size" = line.bytes_in,
        "http.response.body.size" = line.bytes_out,
        "plinth.duration_ms" = line.duration_ms,
        "plinth.model" = line.model,
        "plinth.target" = line.target,
        "plinth.attempts" = line.attempts,
        "plinth.instead" = line.instead,
        "plinth.share" = line.share,
        "plinth.dropped" = line.dropped,
        },
        "request"
    );
}
