//! A filter for Plinth: masks phone numbers and e-mail addresses in the JSON bodies of requests.
//!
//! This file is the edge: the functions that Plinth calls, and the records that go to and fro (docs/filters.md describes
//! them). What is masked is in `mask`, where the texts of a JSON document are is in `json`.
//!
//! A request whose body is not JSON is answered here, with 415: what cannot be read cannot be masked.

mod json;
mod mask;

use mask::Words;

/// Kinds of records that this filter knows.
mod kind {
    pub const BODY: u32 = 4;
    pub const STATUS: u32 = 5;
    pub const VALUE: u32 = 6;
    pub const HEADER: u32 = 3;
}

/// The version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn plinth_abi() -> i32 {
    1
}

/// Bodies of requests are wanted, and nothing of answers.
#[unsafe(no_mangle)]
pub extern "C" fn plinth_wants() -> i32 {
    1
}

/// Room for the message. Nothing is ever freed: the memory is gone after the call.
#[unsafe(no_mangle)]
pub extern "C" fn plinth_alloc(size: i32) -> i32 {
    let room = Vec::<u8>::with_capacity(size.max(1) as usize);
    std::mem::ManuallyDrop::new(room).as_mut_ptr() as usize as i32
}

/// Called with each request.
#[unsafe(no_mangle)]
pub extern "C" fn plinth_on_request(at: i32, size: i32) -> i64 {
    // SAFETY: Plinth has written a message of this size where `plinth_alloc` said.
    let message = unsafe { std::slice::from_raw_parts(at as usize as *const u8, size as usize) };
    match answer(message) {
        None => 0,
        Some(answer) => {
            let answer = std::mem::ManuallyDrop::new(answer);
            ((answer.as_ptr() as usize as i64) << 32) | answer.len() as i64
        }
    }
}

/// What comes of a message; `None`: the request goes on as it is.
pub fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let mut words = Words::default();
    let mut body = None;
    for (kind, name, value) in Records(message) {
        match (kind, name) {
            (kind::VALUE, b"email") => words.email = std::str::from_utf8(value).ok()?,
            (kind::VALUE, b"phone") => words.phone = std::str::from_utf8(value).ok()?,
            (kind::BODY, _) => body = Some(value),
            _ => {}
        }
    }
    match json::rewrite(body.filter(|body| !body.is_empty())?, &|text| mask::mask(text, &words)) {
        Ok(None) => None,
        Ok(Some(masked)) => {
            let mut answer = Vec::with_capacity(masked.len() + 12);
            record(&mut answer, kind::BODY, b"", &masked);
            Some(answer)
        }
        Err(json::NotJson) => {
            let mut answer = Vec::new();
            record(&mut answer, kind::STATUS, b"", b"415");
            record(&mut answer, kind::HEADER, b"content-type", b"application/problem+json");
            let text = br#"{"title":"This route takes JSON only","status":415}"#;
            record(&mut answer, kind::BODY, b"", text);
            Some(answer)
        }
    }
}

/// The records of a message: kind, name, value.
struct Records<'m>(&'m [u8]);

impl<'m> Iterator for Records<'m> {
    type Item = (u32, &'m [u8], &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let number = |at: usize| Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?));
        let (kind, name, value) = (number(0)?, number(4)? as usize, number(8)? as usize);
        let (name, value) = (12..12 + name, 12 + name..12 + name + value);
        let record = (kind, self.0.get(name)?, self.0.get(value.clone())?);
        self.0 = &self.0[value.end..];
        Some(record)
    }
}

/// Adds a record.
fn record(to: &mut Vec<u8>, kind: u32, name: &[u8], value: &[u8]) {
    for number in [kind, name.len() as u32, value.len() as u32] {
        to.extend_from_slice(&number.to_le_bytes());
    }
    to.extend_from_slice(name);
    to.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str, values: &[(&str, &str)]) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        record(&mut message, kind::HEADER, b"content-type", b"application/json");
        for (name, value) in values {
            record(&mut message, kind::VALUE, name.as_bytes(), value.as_bytes());
        }
        record(&mut message, kind::BODY, b"", body.as_bytes());
        answer(&message)
    }

    #[test]
    fn a_body_is_masked_and_others_pass() {
        assert_eq!(ask(r#"{"text":"hello","n":4915112345678}"#, &[]), None);
        let changed = ask(r#"{"text":"write to ann@example.org"}"#, &[("email", "***")]).unwrap();
        let (kind, _, body) = Records(&changed).next().unwrap();
        assert_eq!((kind, body), (kind::BODY, &br#"{"text":"write to ***"}"#[..]));
        assert_eq!(kinds(&ask("plain", &[]).unwrap()), [kind::STATUS, kind::HEADER, kind::BODY]);
        assert_eq!(answer(&[]), None, "no body");
    }

    fn kinds(answer: &[u8]) -> Vec<u32> {
        Records(answer).map(|(kind, ..)| kind).collect()
    }
}
