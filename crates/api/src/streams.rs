//! The routes under `/api/v1/streams`: bursts of small writes. Translation only; the work is `plinth_events`'s.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use plinth_client::wire::{Page, streams as wire};
use plinth_events::partition::PartitionerSpec;
use plinth_events::{Appended, Created, Event, EventId, Events, EventsError, Key, Mode, Retention, Settings, Stored, Stream, StreamName};
use plinth_net::{Access, Response, Route};
use plinth_types::{Error, Reason, Result};
use serde_json::value::RawValue;

use crate::Services;
use crate::call::{Call, Context, route};
use crate::reply;

/// Points on the ring for each part of a `consistent_hash`.
const VIRTUAL_NODES: u16 = 128;

/// The routes of streams.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Admin, Infer, Operate};
    macro_rules! routes {
        ($($method:ident $pattern:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, $access, $name, $handler)),*]
        };
    }
    routes! {
        GET "/api/v1/streams" Infer "streams.list" => list;
        PUT "/api/v1/streams/{stream}" Operate "streams.put" => put;
        GET "/api/v1/streams/{stream}" Infer "streams.show" => show;
        DELETE "/api/v1/streams/{stream}" Admin "streams.delete" => delete;
        POST "/api/v1/streams/{stream}/events" Infer "streams.append" => append;
        GET "/api/v1/streams/{stream}/events" Infer "streams.read" => read;
        GET "/api/v1/streams/{stream}/latest" Infer "streams.latest" => latest;
    }
}

fn events(services: &Services) -> Result<&dyn Events> {
    let text = "the store of events is not open yet";
    services.events.get().map(|events| &**events).ok_or_else(|| Error::new(Reason::StoreUnavailable, text))
}

fn failed(services: &Services, error: EventsError) -> Error {
    if error.retriable() {
        services.metrics.events_appended.get(["refused"]).inc();
    }
    let text = error.to_string();
    let reason = match &error {
        EventsError::NoSuchStream => Reason::RecordNotFound,
        EventsError::Exists => Reason::AlreadyExists,
        EventsError::Invalid(_) => Reason::InvalidResource,
        EventsError::Busy => return Error::new(Reason::OverCapacity, text).retry_after(std::time::Duration::from_secs(1)),
        EventsError::Full => Reason::StorageFull,
        EventsError::TooNew { .. } => Reason::StoreTooNew,
        EventsError::Damaged(_) => return Error::internal("the store of events").source(error),
        EventsError::Closed | EventsError::InUse | EventsError::Unavailable { .. } => {
            let text = "the store of events cannot be reached; the same events may be sent again";
            return Error::new(Reason::StoreUnavailable, text).source(error);
        }
    };
    Error::new(reason, text)
}

fn stream(call: &Call) -> Result<Stream> {
    Ok(Stream { tenant: call.principal.tenant.clone(), name: call.param::<StreamName>("stream")? })
}

fn settings(wish: &wire::StreamSettings) -> Result<Settings> {
    let bad = |field: &str, text: &str| Err(Error::new(Reason::InvalidResource, text).field(field));
    let mode = match wish.mode.as_deref() {
        None | Some("log") => Mode::Log,
        Some("latest") => Mode::Latest,
        Some(_) => return bad("mode", "the mode is 'log' or 'latest'"),
    };
    let partitioner = match wish.partitioner.as_deref() {
        None | Some("hash") => PartitionerSpec::Hash,
        Some("consistent_hash") => PartitionerSpec::ConsistentHash { virtual_nodes: VIRTUAL_NODES },
        Some("range") => PartitionerSpec::Range { splits: wish.splits.clone() },
        Some(_) => return bad("partitioner", "the partitioner is 'hash', 'consistent_hash' or 'range'"),
    };
    let retention = Retention { age_millis: wish.keep_seconds.map(|seconds| seconds.saturating_mul(1000)), count: wish.keep_count };
    Ok(Settings { partitions: wish.partitions.unwrap_or(1), partitioner, mode, retention })
}

fn view(name: &StreamName, settings: &Settings, count: Option<u64>) -> wire::Stream {
    let (partitioner, splits) = match &settings.partitioner {
        PartitionerSpec::Hash => ("hash", Vec::new()),
        PartitionerSpec::ConsistentHash { .. } => ("consistent_hash", Vec::new()),
        PartitionerSpec::Range { splits } => ("range", splits.clone()),
    };
    let mode = match settings.mode {
        Mode::Log => "log",
        Mode::Latest => "latest",
    };
    let settings = wire::StreamSettings {
        mode: Some(mode.into()),
        partitions: Some(settings.partitions),
        partitioner: Some(partitioner.into()),
        splits,
        keep_seconds: settings.retention.age_millis.map(|millis| millis / 1000),
        keep_count: settings.retention.count,
    };
    wire::Stream { name: name.as_str().to_owned(), settings, count }
}

async fn list(services: Services, call: Call) -> Result<Response> {
    let page = call.page("after")?;
    let tenant = &call.principal.tenant;
    let after = page.after.as_deref().map(str::parse::<StreamName>).transpose();
    let after = after.map_err(|error| Error::new(Reason::InvalidName, error.to_string()).field("after"))?;
    let after = after.map(|name| Stream { tenant: tenant.clone(), name });
    let found = events(&services)?.streams(Some(tenant), after.as_ref(), page.limit).await.map_err(|error| failed(&services, error))?;
    let next = (found.len() == page.limit as usize).then(|| found.last().map(|(stream, _)| stream.name.as_str().to_owned())).flatten();
    reply::json(&Page { items: found.iter().map(|(stream, settings)| view(&stream.name, settings, None)).collect(), next })
}

async fn put(services: Services, mut call: Call) -> Result<Response> {
    let stream = stream(&call)?;
    let wish: wire::StreamSettings = call.json().await?;
    let settings = settings(&wish)?;
    let store = events(&services)?;
    let created = store.create(&stream, &settings).await.map_err(|error| failed(&services, error))?;
    if created == Created::Already {
        store.set_retention(&stream, settings.retention).await.map_err(|error| failed(&services, error))?;
    }
    let status = if created == Created::New { StatusCode::CREATED } else { StatusCode::OK };
    reply::json_with(status, &view(&stream.name, &settings, None))
}

async fn show(services: Services, call: Call) -> Result<Response> {
    let (stream, store) = (stream(&call)?, events(&services)?);
    let settings = store.settings(&stream).await.map_err(|error| failed(&services, error))?;
    let count = store.count(&stream).await.map_err(|error| failed(&services, error))?;
    reply::json(&view(&stream.name, &settings, Some(count)))
}

async fn delete(services: Services, call: Call) -> Result<Response> {
    if events(&services)?.delete(&stream(&call)?).await.map_err(|error| failed(&services, error))? {
        return Ok(reply::nothing());
    }
    Err(failed(&services, EventsError::NoSuchStream))
}

/// One event, or several under `events`.
fn events_of(body: &[u8]) -> Result<Vec<wire::Event>> {
    let malformed = |error: serde_json::Error| {
        Error::new(Reason::MalformedRequest, format!("the body is not what this route takes: {error}")).field("body")
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(malformed)?;
    match fields.get("events") {
        Some(list) if fields.len() == 1 => serde_json::from_str(list.get()).map_err(malformed),
        _ => serde_json::from_slice(body).map(|event| vec![event]).map_err(malformed),
    }
}

async fn append(services: Services, mut call: Call) -> Result<Response> {
    let stream = stream(&call)?;
    let sent = events_of(&call.body().await?)?;
    let read = sent.into_iter().enumerate().map(|(at, event)| {
        event_of(event).map_err(|error| {
            let field = error.field_name().map_or_else(|| format!("events[{at}]"), |field| format!("events[{at}].{field}"));
            error.field(field)
        })
    });
    let appended = events(&services)?.append(&stream, read.collect::<Result<_>>()?).await.map_err(|error| failed(&services, error))?;
    let results = appended.into_iter().map(|one| {
        let status = match one {
            Appended::New(_) => "new",
            Appended::Already(_) => "already",
            Appended::Differs(_) => "differs",
        };
        services.metrics.events_appended.get([status]).inc();
        let position = one.position();
        wire::AppendedEvent { status: status.into(), partition: position.partition, offset: position.offset }
    });
    reply::json(&wire::Appended { results: results.collect() })
}

fn event_of(event: wire::Event) -> Result<Event> {
    let bad = |field: &'static str, error: &dyn std::fmt::Display| Error::new(Reason::InvalidName, error.to_string()).field(field);
    let data = event.data.filter(|data| data.get() != "null").map(|data| data.get().as_bytes().to_vec());
    Ok(Event {
        id: event.id.parse().map_err(|error: plinth_events::ParseTextError| bad("id", &error))?,
        key: event.key.parse().map_err(|error: plinth_events::ParseTextError| bad("key", &error))?,
        at: event.at,
        data,
    })
}

fn stored(stored: Stored) -> wire::StoredEvent {
    let data = stored.event.data.and_then(|data| RawValue::from_string(String::from_utf8(data).ok()?).ok());
    wire::StoredEvent {
        event: wire::Event { id: stored.event.id.as_str().into(), key: stored.event.key.as_str().into(), at: stored.event.at, data },
        partition: stored.position.partition,
        offset: stored.position.offset,
        stored_at: stored.stored_at,
    }
}

async fn read(services: Services, call: Call) -> Result<Response> {
    let (stream, store) = (stream(&call)?, events(&services)?);
    let limit = call.page("cursor")?.limit;
    let number = |name: &'static str| -> Result<Option<u64>> {
        let bad = || Error::new(Reason::MalformedRequest, format!("'{name}' is a whole number")).field(name);
        call.query(name).map(|text| text.parse().map_err(|_| bad())).transpose()
    };
    let after = number("after")?.unwrap_or(0);
    let found = match (call.query("id"), call.query("key"), number("partition")?) {
        (Some(id), None, None) => {
            let id: EventId = id.parse().map_err(|error| Error::new(Reason::InvalidName, format!("{error}")).field("id"))?;
            store.get(&stream, &id).await
        }
        (None, Some(key), None) => {
            let key: Key = key.parse().map_err(|error| Error::new(Reason::InvalidName, format!("{error}")).field("key"))?;
            store.by_key(&stream, &key, after, limit).await
        }
        (None, None, partition) => {
            let partition = u16::try_from(partition.unwrap_or(0)).unwrap_or(u16::MAX);
            store.read(&stream, partition, after, limit).await
        }
        _ => return Err(Error::new(Reason::MalformedRequest, "ask for one 'id', one 'key' or one 'partition'").field("id")),
    };
    let found = found.map_err(|error| failed(&services, error))?;
    reply::json(&found.into_iter().map(stored).collect::<Vec<_>>())
}

async fn latest(services: Services, call: Call) -> Result<Response> {
    let stream = stream(&call)?;
    let key = call.query("key").ok_or_else(|| Error::new(Reason::MalformedRequest, "name the 'key'").field("key"))?;
    let key: Key = key.parse().map_err(|error| Error::new(Reason::InvalidName, format!("{error}")).field("key"))?;
    let found = events(&services)?.latest(&stream, &key).await.map_err(|error| failed(&services, error))?;
    reply::json(&stored(found.ok_or_else(|| Error::new(Reason::RecordNotFound, "nothing is said of this key"))?))
}
