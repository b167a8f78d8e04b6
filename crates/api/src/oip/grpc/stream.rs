//! Inferences on a stream: `ModelStreamInfer`.
//!
//! States of a session: reading (the client may send more) → finishing (it has closed its side, or the node ends) → ended.
//! Messages are read one after another, executed at the same time and answered as they end; requests of one sequence are
//! executed in the order in which they came. Invariants: at most [`MAX_REQUESTS`] requests and about one largest message of
//! bytes beyond the last are in a session at a time, further ones wait in the connection's window; a session is one body, so
//! everything that it has asked for is dropped with it when its client goes away. What the client does not read holds its
//! own session up and no other.

use std::collections::{HashMap, VecDeque};
use std::io;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use http::HeaderValue;
use plinth_net::{Body, Coding, Frame, Messages, Response, messages};
use plinth_serving::SequenceId;
use plinth_types::{Error, ModelName, Reason, Result};
use tokio::time::{Instant, sleep_until};

use super::call::{ENCODING, Head, too_late};
use super::infer::{Asker, ask, read, written};
use super::request::Asked;
use super::{answer, status};
use crate::Services;
use crate::call::Call;

/// The most requests of one session that are executed or wait at a time.
const MAX_REQUESTS: usize = 64;

/// Which requests must not overtake each other.
type Lane = (ModelName, SequenceId);

/// A request that was read.
struct Work {
    asked: Asked,
    /// The bytes of its message.
    size: usize,
}

/// A request that has ended.
struct Done {
    lane: Option<Lane>,
    size: usize,
    answer: Result<Vec<Bytes>, (Error, String)>,
}

/// What the reader hands back with itself: the next request, or `None` at the client's end. A request that cannot be read as
/// one has the size that it had.
type Read = (Messages, Result<Option<(usize, Result<Asked>)>>);

struct Session {
    services: Services,
    asker: Asker,
    /// Whether an error ends the stream (`triton_grpc_error`).
    strict: bool,
    reply: Option<Coding>,
    deadline: Option<Instant>,
    reading: Option<BoxFuture<'static, Read>>,
    idle: Option<Messages>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// For each sequence of which a request runs: those that wait for it.
    lanes: HashMap<Lane, VecDeque<Work>>,
    /// Requests that were read and have no answer yet, and their bytes.
    pending: usize,
    held: usize,
    ready: VecDeque<Bytes>,
    /// How the stream ends, once it does.
    end: Option<Result<()>>,
    ended: bool,
    leaving: bool,
}

pub(super) async fn infer(services: Services, mut call: Call, head: Head) -> Result<Response> {
    let strict = call.request.headers().get("triton_grpc_error").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let (asker, body) = (Asker::of(&call), std::mem::take(call.request.body_mut()));
    let messages = Messages::new(body, head.coding, services.settings.grpc.message.clone());
    let session = Session {
        services,
        asker,
        strict,
        reply: head.reply,
        deadline: head.timeout.map(|time| Instant::now() + time),
        reading: None,
        idle: Some(messages),
        running: FuturesUnordered::new(),
        lanes: HashMap::new(),
        pending: 0,
        held: 0,
        ready: VecDeque::new(),
        end: None,
        ended: false,
        leaving: false,
    };
    let frames = stream::unfold(session, |mut session| async move { Some((Ok::<_, io::Error>(session.frame().await?), session)) });
    let mut answer = status::accept(Body::frames(frames));
    if let Some(coding) = head.reply {
        answer.headers_mut().insert(ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    Ok(answer)
}

impl Session {
    /// The next frame; `None` after the trailers.
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        while !self.ended {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(Frame::data(bytes));
            }
            if let Some(end) = self.end.take() {
                self.finish();
                return Some(Frame::trailers(end.map_or_else(|error| status::trailers_of(&error), |()| status::good())));
            }
            self.step().await;
        }
        None
    }

    /// Lets go of everything.
    fn finish(&mut self) {
        self.ended = true;
        (self.reading, self.idle) = (None, None);
        self.running.clear();
        self.lanes.clear();
    }

    /// Waits for whatever happens next, and takes it in.
    async fn step(&mut self) {
        if self.reading.is_none() && self.pending < MAX_REQUESTS && self.held <= self.services.settings.grpc.message.max.as_usize() {
            self.reading = self.idle.take().map(|messages| next(messages, self.services.clone()).boxed());
        }
        if self.reading.is_none() && self.idle.is_none() && self.running.is_empty() {
            let leaving = || Error::new(Reason::ShuttingDown, "the node is shutting down; open the stream anew");
            self.end = Some(if self.leaving { Err(leaving()) } else { Ok(()) });
            return;
        }
        let deadline: OptionFuture<_> = self.deadline.map(sleep_until).into();
        let reading: OptionFuture<_> = self.reading.as_mut().into();
        tokio::select! {
            biased;
            Some(done) = self.running.next(), if !self.running.is_empty() => self.take_answer(done).await,
            Some((messages, read)) = reading => {
                self.reading = None;
                match read {
                    Ok(Some((size, asked))) => {
                        self.idle = Some(messages);
                        self.take_request(size, asked);
                    }
                    Ok(None) => {}
                    Err(error) => self.end = Some(Err(error)),
                }
            }
            Some(()) = deadline => self.end = Some(Err(too_late())),
            () = self.services.draining.cancelled(), if !self.leaving => {
                // What was read is answered; what is on its way is not begun.
                self.leaving = true;
                (self.reading, self.idle) = (None, None);
            }
        }
    }

    fn take_request(&mut self, size: usize, asked: Result<Asked>) {
        let asked = match asked {
            Ok(asked) => asked,
            // Who sends what cannot be read has not said its id either.
            Err(error) => return self.fail(error, ""),
        };
        self.pending += 1;
        self.held = self.held.saturating_add(size);
        let lane = asked.call.sequence.as_ref().map(|sequence| (asked.model.clone(), sequence.id.clone()));
        let work = Work { asked, size };
        match lane {
            None => self.run(None, work),
            Some(lane) => match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.push_back(work),
                None => {
                    self.lanes.insert(lane.clone(), VecDeque::new());
                    self.run(Some(lane), work);
                }
            },
        }
    }

    fn run(&mut self, lane: Option<Lane>, work: Work) {
        let (services, asker, deadline) = (self.services.clone(), self.asker.clone(), self.deadline);
        let Work { mut asked, size } = work;
        let run = async move {
            let answer = ask(&services, &asker, &mut asked, deadline).await;
            let answer = answer.and_then(|answer| written(answer, &asked.call, answer::streamed));
            Done { lane, size, answer: answer.map_err(|error| (error, asked.call.id)) }
        };
        self.running.push(run.boxed());
    }

    async fn take_answer(&mut self, done: Done) {
        self.pending = self.pending.saturating_sub(1);
        self.held = self.held.saturating_sub(done.size);
        if let Some(lane) = done.lane {
            match self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
                Some(work) => self.run(Some(lane), work),
                None => {
                    self.lanes.remove(&lane);
                }
            }
        }
        match done.answer {
            Ok(pieces) => {
                let packed = match self.reply {
                    None => Ok(pieces),
                    Some(coding) => messages::compressed(coding, pieces).await,
                };
                match packed {
                    Ok(pieces) => self.ready.extend(pieces),
                    Err(error) => self.end = Some(Err(error)),
                }
            }
            Err((error, id)) => self.fail(error, &id),
        }
    }

    /// Says that a request has failed.
    fn fail(&mut self, error: Error, id: &str) {
        tracing::debug!(request = %self.asker.id, reason = error.reason().slug(), %error, cause = error.log_text(), "request of a stream failed");
        if self.strict {
            self.end = Some(Err(error));
            return;
        }
        match answer::failed(&error, id) {
            Ok(bytes) => self.ready.push_back(bytes),
            Err(error) => self.end = Some(Err(error)),
        }
    }
}

/// Reads the next request. An error is one of the stream; what is wrong with the request alone is in it.
async fn next(mut messages: Messages, services: Services) -> Read {
    let limits = &services.settings.grpc.message;
    let read = async {
        let Some(packed) = messages.next().await? else { return Ok(None) };
        let message = packed.open(limits).await?;
        let size = message.len();
        Ok(Some((size, read(message, limits.max).await)))
    };
    let read = read.await;
    (messages, read)
}
