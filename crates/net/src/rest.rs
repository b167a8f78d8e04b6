//! The rest of a request's body that its handler did not read.
//!
//! On HTTP/1 it stands between one request and the next, so an answer without reading it would cost the client its
//! connection: for every wrong name, for one. A small rest is read and forgotten instead. Invariant: it costs a bounded number
//! of bytes and a bounded time before the answer goes out, and a client that waits to be told to send is not told.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::activity::Activity;

/// The largest rest that is read, in bytes.
const MAX_REST: u64 = 64 << 10;

/// How long the rest may take to come. Most clients send head and body together.
const TIME: Duration = Duration::from_millis(100);

/// Where a handler's body goes when it is dropped, while the answer is being made.
#[derive(Default)]
pub struct Rest(Mutex<Place>);

#[derive(Default)]
enum Place {
    /// Nobody takes it.
    #[default]
    Closed,
    Open,
    Left(Incoming),
}

impl Rest {
    fn replace(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), place)
    }

    /// Takes the body of this request when its handler drops it.
    pub fn open(&self, version: Version, headers: &HeaderMap) {
        let wanted = version <= Version::HTTP_11 && !headers.contains_key(EXPECT);
        self.replace(if wanted { Place::Open } else { Place::Closed });
    }

    fn leave(&self, incoming: Incoming) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Open) {
            *place = Place::Left(incoming);
        }
    }

    /// Reads what was left, if it is little and comes soon; whether the body is at its end then. From now on a body that is
    /// dropped is dropped: what waits here would hold up the connection.
    pub async fn drain(&self) -> bool {
        let Place::Left(mut incoming) = self.replace(Place::Closed) else { return false };
        if incoming.size_hint().lower() > MAX_REST {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut incoming).poll_frame(cx)).await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > MAX_REST {
                    return false;
                }
            }
            true
        };
        timeout(TIME, read).await.unwrap_or(false)
    }
}

/// A body on its way from a connection into a handler.
pub struct Arriving {
    /// `None` only while it is dropped.
    incoming: Option<Incoming>,
    activity: Arc<Activity>,
}

impl Arriving {
    pub const fn new(incoming: Incoming, activity: Arc<Activity>) -> Self {
        Self { incoming: Some(incoming), activity }
    }

    pub const fn get(&self) -> Option<&Incoming> {
        self.incoming.as_ref()
    }

    pub fn parts(&mut self) -> Option<(&mut Incoming, &Activity)> {
        Some((self.incoming.as_mut()?, &self.activity))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) {
            self.activity.rest.leave(incoming);
        }
    }
}
