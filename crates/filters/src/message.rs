//! Messages to filters and answers of theirs: lists of records ([`abi`]).
//!
//! Invariant: an [`Answer`] holds only what could be read in full within its bytes, with at most [`MAX_CHANGES`] changes; whether a
//! name or a value may stand in a header is for whoever puts it there. Pure.

use bytes::Bytes;

use crate::abi::{HEAD, kind};

/// The most changes of headers in an answer.
pub(crate) const MAX_CHANGES: usize = 128;
/// The most bytes of an answer beside its body.
pub(crate) const MAX_BESIDE: usize = 64 << 10;

/// What a filter is told. The body is not copied before it is written into the filter's memory.
#[derive(Debug, Default, Clone)]
pub struct Message {
    records: Vec<u8>,
    body: Bytes,
}

impl Message {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { records: Vec::with_capacity(1024), body: Bytes::new() }
    }

    fn head(&mut self, kind: u32, name: usize, value: usize) {
        for number in [kind as usize, name, value] {
            // What is written here came through limits far below.
            self.records.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    /// Adds a record. Not for bodies.
    pub fn add(&mut self, kind: u32, name: &[u8], value: &[u8]) {
        self.head(kind, name.len(), value.len());
        self.records.extend_from_slice(name);
        self.records.extend_from_slice(value);
    }

    /// Adds the body, which comes last.
    #[must_use]
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.head(kind::BODY, 0, body.len());
        self.body = body;
        self
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len().saturating_add(self.body.len())
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it where it has exactly the room.
    pub(crate) fn write(&self, room: &mut [u8]) {
        if let Some((records, body)) = room.split_at_mut_checked(self.records.len())
            && body.len() == self.body.len()
        {
            records.copy_from_slice(&self.records);
            body.copy_from_slice(&self.body);
        }
    }
}

/// A change of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// In place of all of that name.
    Set(Bytes, Bytes),
    /// Beside them.
    Add(Bytes, Bytes),
    /// They go.
    Remove(Bytes),
}

/// What a filter wants changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Changes of headers, in their order.
    pub headers: Vec<Change>,
    /// Another body.
    pub body: Option<Bytes>,
    /// Another status; of a request, that it is answered with this.
    pub status: Option<u16>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(mut bytes: Bytes) -> Result<Self, &'static str> {
        let mut answer = Self::default();
        while !bytes.is_empty() {
            let (kind, name, value) = record(&mut bytes)?;
            let change = match kind {
                kind::BODY if answer.body.is_some() => return Err("it has two bodies"),
                kind::BODY => {
                    answer.body = Some(value);
                    continue;
                }
                kind::STATUS => {
                    answer.status = Some(status(&value).ok_or("its status is none")?);
                    continue;
                }
                kind::HEADER => Change::Set(name, value),
                kind::ADD_HEADER => Change::Add(name, value),
                kind::REMOVE_HEADER => Change::Remove(name),
                _ => return Err("it has a record of an unknown kind"),
            };
            if answer.headers.len() >= MAX_CHANGES {
                return Err("it changes too many headers");
            }
            answer.headers.push(change);
        }
        Ok(answer)
    }
}

/// Takes the first record.
fn record(bytes: &mut Bytes) -> Result<(u32, Bytes, Bytes), &'static str> {
    const SHORT: &str = "a record of it is cut off";
    if bytes.len() < HEAD {
        return Err(SHORT);
    }
    let head = bytes.split_to(HEAD);
    let number = |at: usize| head.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (name, value) = (number(4) as usize, number(8) as usize);
    if name.checked_add(value).is_none_or(|length| length > bytes.len()) {
        return Err(SHORT);
    }
    Ok((number(0), bytes.split_to(name), bytes.split_to(value)))
}

/// A status of a whole answer.
fn status(text: &[u8]) -> Option<u16> {
    let digits = text.len() == 3 && text.iter().all(u8::is_ascii_digit);
    let number: u16 = std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()?;
    (200..=599).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &Message) -> Vec<u8> {
        let mut room = vec![0; message.len()];
        message.write(&mut room);
        room
    }

    #[test]
    fn records_are_laid_out_as_the_page_says() {
        let mut message = Message::new();
        message.add(kind::HEADER, b"x-a", b"b");
        let message = message.with_body(Bytes::from_static(b"{}"));
        let want = [&[3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0][..], b"x-ab", &[4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], b"{}"].concat();
        assert_eq!(bytes(&message), want);
        let answer = Answer::read(want.into()).unwrap();
        assert_eq!(answer.headers, [Change::Set("x-a".into(), "b".into())]);
        assert_eq!((answer.body, answer.status), (Some("{}".into()), None));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let record = |kind: u32, name: &[u8], value: &[u8]| {
            let mut message = Message::new();
            message.add(kind, name, value);
            bytes(&message)
        };
        let read = |bytes: Vec<u8>| Answer::read(bytes.into());
        assert_eq!(read(record(kind::STATUS, b"", b"403")).unwrap().status, Some(403));
        for status in ["", "40", "4040", "+40", "100", "600", "abc"] {
            assert!(read(record(kind::STATUS, b"", status.as_bytes())).is_err(), "{status}");
        }
        assert!(read(record(0, b"", b"")).is_err());
        assert!(read(record(kind::METHOD, b"", b"GET")).is_err(), "what cannot be changed");
        assert!(read([record(kind::BODY, b"", b"a"), record(kind::BODY, b"", b"b")].concat()).is_err());
        assert!(read(record(kind::REMOVE_HEADER, b"a", b"").repeat(MAX_CHANGES + 1)).is_err());
        let whole = record(kind::HEADER, b"name", b"value");
        for end in 1..whole.len() {
            assert!(read(whole[..end].to_vec()).is_err(), "cut at {end}");
        }
        let mut huge = whole;
        huge[4..12].fill(0xff);
        assert!(read(huge).is_err());
    }
}
