//! What a job tells, as server-sent events (WHATWG HTML, section 9.2 "Server-sent events").
//!
//! Invariants: an event is given out when it is complete, so one that a broken connection cut off is not; an event has a bound. Connecting
//! again, with the id of the last event, is left to the caller.

use std::collections::VecDeque;

use reqwest::Response;

use crate::{Client, Result};

/// The most bytes of an event.
const MAX_EVENT: usize = 16 << 20;

/// One thing that a job has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where to go on after it: the id of this event, or of the last one that had any.
    pub id: Option<String>,
    /// Whether the id is this event's own. One without is told anew on each connection.
    pub own_id: bool,
    /// Its name; `message` when it has none.
    pub name: String,
    /// What it says, mostly JSON.
    pub data: String,
}

/// The events of a job, one connection long.
pub struct Events {
    client: Client,
    response: Response,
    parser: Parser,
}

impl Events {
    pub(super) fn new(client: Client, response: Response) -> Self {
        Self { client, response, parser: Parser::default() }
    }

    /// The next event; `None` when the node has closed the stream. A dropped call loses nothing.
    ///
    /// # Errors
    /// When nothing arrives for the idle timeout (a node sends comments meanwhile), when the connection breaks, or when an event has no end.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            let (client, response) = (&self.client, &mut self.response);
            let chunk = async { response.chunk().await.map_err(|error| client.transport(error)) };
            let Some(chunk) = client.within(client.options.idle_timeout, chunk).await? else { return Ok(None) };
            if self.parser.push(&chunk).is_err() {
                return Err(self.client.protocol(format!("an event has more than {MAX_EVENT} bytes")));
            }
        }
    }
}

/// An event is longer than [`MAX_EVENT`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Makes events of bytes, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Parser {
    pub(super) ready: VecDeque<Event>,
    line: Vec<u8>,
    /// The last byte was CR, so an LF now belongs to the same line end.
    after_cr: bool,
    begun: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
    own_id: bool,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_of_line(),
                _ if self.line.len() + self.data.as_ref().map_or(0, String::len) >= MAX_EVENT => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = if self.begun { &line[..] } else { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            self.end_of_event();
            return;
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned()).filter(|id| !id.is_empty());
                self.own_id = true;
            }
            // Comments, `retry` and what nobody knows.
            _ => {}
        }
    }

    fn end_of_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let own_id = std::mem::take(&mut self.own_id);
        if let Some(data) = self.data.take() {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Event { id: self.id.clone(), own_id, name, data });
        }
    }
}
