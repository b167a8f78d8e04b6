//! One keep-alive connection: prepared bytes out, one answer in.
//!
//! It reads just enough of an answer to know where it ends, so that it costs little beside the server on the same cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer answers are read, but their body is not kept.
const KEPT: usize = 256 * 1024;

/// Where to send what.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    request: Bytes,
}

impl Target {
    /// Prepares the bytes of a POST.
    pub fn post(url: &str, body: &[u8], header_length: Option<usize>, key: Option<&str>) -> Result<Self> {
        Self::post_with(url, body, header_length, key, &[])
    }

    /// The same with further headers.
    pub fn post_with(url: &str, body: &[u8], header_length: Option<usize>, key: Option<&str>, more: &[(&str, &str)]) -> Result<Self> {
        let kind = if header_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        if let Some(length) = header_length {
            fields.push_str(&format!("Inference-Header-Content-Length: {length}\r\n"));
        }
        for (name, value) in more {
            fields.push_str(&format!("{name}: {value}\r\n"));
        }
        Self::new("POST", url, key, &fields, body)
    }

    /// Prepares the bytes of a GET.
    pub fn get(url: &str) -> Result<Self> {
        Self::get_with(url, None)
    }

    /// The same with a key.
    pub fn get_with(url: &str, key: Option<&str>) -> Result<Self> {
        Self::new("GET", url, key, "", &[])
    }

    fn new(method: &str, url: &str, key: Option<&str>, fields: &str, body: &[u8]) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("only http:// URLs")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\n{key}{fields}\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        Ok(Self { address: address.to_owned(), request: request.into() })
    }
}

/// Keys one after another in one piece of memory, so that a million of them cost a generator little.
pub struct Keys {
    text: Vec<u8>,
    width: usize,
}

impl Keys {
    /// Keys of one length.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k str>) -> Result<Self> {
        let (mut text, mut width) = (Vec::new(), 0);
        for key in keys {
            if width != 0 && width != key.len() {
                bail!("keys of different lengths");
            }
            width = key.len();
            text.extend_from_slice(key.as_bytes());
        }
        if width == 0 { bail!("no keys") } else { Ok(Self { text, width }) }
    }

    fn at(&self, number: u64) -> &[u8] {
        let at = (number % (self.text.len() / self.width) as u64) as usize * self.width;
        &self.text[at..at + self.width]
    }
}

/// GETs of one path, each with a key that is drawn at random.
pub struct Keyed {
    pub address: String,
    head: String,
    keys: Arc<Keys>,
    random: AtomicU64,
}

impl Keyed {
    pub fn get(url: &str, keys: Arc<Keys>) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("only http:// URLs")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let head = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer ");
        Ok(Self { address: address.to_owned(), head, keys, random: AtomicU64::new(0) })
    }

    /// The next request. The numbers are those of splitmix64.
    fn write(&self, into: &mut Vec<u8>) {
        let mut number = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        into.clear();
        into.extend_from_slice(self.head.as_bytes());
        into.extend_from_slice(self.keys.at(number ^ (number >> 31)));
        into.extend_from_slice(b"\r\n\r\n");
    }
}

/// What came back; an empty body when it was too long to keep.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    written: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; KEPT], written: Vec::new() })
    }

    /// Sends the request and reads the answer to its end. After an error the connection is of no use any more.
    pub async fn exchange(&mut self, target: &Target) -> Result<Answer<'_>> {
        self.stream.write_all(&target.request).await?;
        self.answer().await
    }

    /// The same with a key that is drawn.
    pub async fn exchange_keyed(&mut self, keyed: &Keyed) -> Result<Answer<'_>> {
        keyed.write(&mut self.written);
        self.stream.write_all(&self.written).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer<'_>> {
        let mut filled = 0;
        let head = loop {
            if filled == self.buffer.len() {
                bail!("the answer's head is too long");
            }
            filled += self.more(filled..KEPT).await?;
            if let Some(at) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let (status, length) = parse(&self.buffer[..head])?;
        let mut left = (head + length).checked_sub(filled).context("more bytes than announced")?;
        let kept = head + length <= KEPT;
        while left > 0 {
            let from = if kept { filled } else { head };
            let n = self.more(from..KEPT.min(from + left)).await?;
            filled += n;
            left -= n;
        }
        Ok(Answer { status, body: if kept { &self.buffer[head..head + length] } else { &[] } })
    }

    async fn more(&mut self, into: std::ops::Range<usize>) -> Result<usize> {
        match self.stream.read(&mut self.buffer[into]).await? {
            0 => bail!("the server closed the connection"),
            n => Ok(n),
        }
    }
}

/// Status and length of an answer.
fn parse(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let status = head.get(9..12).and_then(|s| s.parse().ok()).context("no status")?;
    let length = head
        .lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("the answer has no Content-Length")?;
    Ok((status, length))
}
