//! `grpc.health.v1.Health`: what balancers and probes ask.
//!
//! The node as a whole, asked for with an empty name, and the inference service are in the same state: serving once the node
//! is ready. A watch is told that the node leaves as soon as it is asked to end, and ends itself when the node drains.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use plinth_identity::Principal;
use plinth_net::{Body, Frame, Response};
use plinth_types::{Error, Reason, Result};
use prost::Message;
use tokio::time::{Instant, sleep_until};

use super::call::{Head, control_limits, framed, malformed, one_message, too_late};
use super::pb::health::health_check_response::ServingStatus;
use super::pb::health::{HealthCheckRequest, HealthCheckResponse};
use super::{SERVICE, status};
use crate::Services;
use crate::call::Call;

fn known(service: &str) -> bool {
    service.is_empty() || service == SERVICE
}

fn now(services: &Services) -> ServingStatus {
    if services.ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

pub(super) async fn check(services: Services, _: Principal, asked: HealthCheckRequest) -> Result<HealthCheckResponse> {
    if !known(&asked.service) {
        let text = format!("there is no such service; ask for '{SERVICE}', or for the node with an empty name");
        return Err(Error::new(Reason::RecordNotFound, text).field("service"));
    }
    Ok(HealthCheckResponse { status: now(&services).into() })
}

/// A watch: what it has told last, and whether it goes on.
struct Watch {
    services: Services,
    known: bool,
    told: Option<ServingStatus>,
    deadline: Option<Instant>,
    ended: bool,
}

pub(super) async fn watch(services: Services, mut call: Call, head: Head) -> Result<Response> {
    let message = one_message(&mut call, &head, &control_limits(&services)).await?;
    let asked = HealthCheckRequest::decode(message).map_err(|e| malformed(&e))?;
    let deadline = head.timeout.map(|time| Instant::now() + time);
    let watch = Watch { services, known: known(&asked.service), told: None, deadline, ended: false };
    let frames = stream::unfold(watch, |mut watch| async move { Some((Ok::<_, io::Error>(watch.frame().await?), watch)) });
    Ok(status::accept(Body::frames(frames)))
}

impl Watch {
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        if self.ended {
            return None;
        }
        match self.change().await.and_then(|status| framed(&HealthCheckResponse { status: status.into() })) {
            Ok(bytes) => Some(Frame::data(bytes)),
            Err(error) => {
                self.ended = true;
                Some(Frame::trailers(status::trailers_of(&error)))
            }
        }
    }

    /// Waits until there is something new to tell.
    async fn change(&mut self) -> Result<ServingStatus> {
        loop {
            // A service that is not there does not come while the process runs.
            let status = if self.known { now(&self.services) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(status) {
                self.told = Some(status);
                return Ok(status);
            }
            let services = &self.services;
            let leaves = async {
                // Once it has come, the end says nothing new.
                if services.stopping.is_cancelled() { std::future::pending().await } else { services.stopping.cancelled().await }
            };
            let can_serve = status == ServingStatus::Serving;
            let turns = async {
                if services.stopping.is_cancelled() || !self.known {
                    return std::future::pending().await;
                }
                services.serving.wait_until(Duration::MAX, |table| (table.can_serve() != can_serve).then_some(())).await
            };
            let late = async {
                match self.deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = services.draining.cancelled() => {
                    return Err(Error::new(Reason::ShuttingDown, "the node is shutting down"));
                }
                () = late => return Err(too_late()),
                () = leaves => {}
                _ = turns => {}
            }
        }
    }
}
