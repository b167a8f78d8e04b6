//! One keep-alive connection: prepared bytes out, one answer in.
//!
//! It reads just enough of an answer to know where it ends, so that it costs little beside the server on the same cores.

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
        let kind = if header_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        if let Some(length) = header_length {
            fields.push_str(&format!("Inference-Header-Content-Length: {length}\r\n"));
        }
        Self::new("POST", url, key, &fields, body)
    }

    /// Prepares the bytes of a GET.
    pub fn get(url: &str) -> Result<Self> {
        Self::new("GET", url, None, "", &[])
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

/// What came back; an empty body when it was too long to keep.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; KEPT] })
    }

    /// Sends the request and reads the answer to its end. After an error the connection is of no use any more.
    pub async fn exchange(&mut self, target: &Target) -> Result<Answer<'_>> {
        self.stream.write_all(&target.request).await?;
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
