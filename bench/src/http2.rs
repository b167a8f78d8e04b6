//! One HTTP/2 connection that calls one gRPC method, one call after another: the counterpart of `exchange` for gRPC.
//!
//! It writes prepared bytes and reads just enough of an answer to know where it ends, so that it costs as little beside the
//! server as the HTTP/1 generator does. Header fields are sent once in full and by their index afterwards, as every client
//! does. Flow control is honoured in both directions. Answers' header fields are not decoded: a call has succeeded when
//! a whole message came and the stream ended; servers send an error without a message.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUFFER: usize = 256 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window that there is.
const WINDOW: u32 = (1 << 31) - 1;
/// The connection's window is given back after so many bytes.
const GIVE_BACK: usize = 64 << 20;
/// Up to this size headers and message leave in one write.
const SMALL: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// A prepared call.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    /// The header block that fills the server's table, and the one that refers to it.
    first: Bytes,
    next: Bytes,
    /// The message behind its five bytes of prefix.
    body: Bytes,
}

impl Target {
    /// Prepares a call of a method such as `/package.Service/Method`.
    pub fn new(address: &str, method: &str, key: Option<&str>, message: &[u8]) -> Result<Self> {
        let bearer = key.map(|key| format!("Bearer {key}"));
        // The name's index in the static table, or the name; and the value.
        let mut fields: Vec<(Result<u8, &str>, &str)> =
            vec![(Ok(4), method), (Ok(1), address), (Ok(31), "application/grpc"), (Err("te"), "trailers")];
        fields.extend(bearer.as_deref().map(|bearer| (Ok(23), bearer)));
        // POST and http, from the static table.
        let (mut first, mut next) = (vec![0x83, 0x86], vec![0x83, 0x86]);
        for (position, (name, value)) in fields.iter().enumerate() {
            match name {
                Ok(index) => first.push(0x40 | index),
                Err(name) => {
                    first.push(0x40);
                    text(&mut first, name);
                }
            }
            text(&mut first, value);
            // What was added last has the lowest index.
            next.push(0x80 | u8::try_from(62 + fields.len() - 1 - position)?);
        }
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend_from_slice(message);
        Ok(Self { address: address.to_owned(), first: first.into(), next: next.into(), body: body.into() })
    }
}

/// A string of HPACK, without Huffman's code.
fn text(out: &mut Vec<u8>, value: &str) {
    let mut length = value.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(value.as_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// An open connection.
pub struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    out: Vec<u8>,
    /// The stream of the call in hand; odd, and growing.
    stream: u32,
    /// What may still be sent: on the connection, on the stream, on a new stream.
    window: i64,
    stream_window: i64,
    initial_window: i64,
    max_frame: usize,
    greeted: bool,
    /// Whether the server knows the header fields.
    introduced: bool,
    consumed: usize,
    /// Bytes of the answer's message with its prefix, and whether the stream has ended.
    received: usize,
    ended: bool,
    reset: bool,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let mut out = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (id, value) in [(2_u16, 0_u32), (4, WINDOW), (5, 1 << 20)] {
            settings.extend(id.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        let mut connection = Self {
            socket,
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
            out: Vec::new(),
            stream: 1,
            window: 65_535,
            stream_window: 0,
            initial_window: 65_535,
            max_frame: 16_384,
            greeted: false,
            introduced: false,
            consumed: 0,
            received: 0,
            ended: false,
            reset: false,
        };
        connection.socket.write_all(&out).await?;
        while !connection.greeted {
            connection.read_frame().await?;
        }
        Ok(connection)
    }

    /// Calls and reads the answer to its end: whether it is a success. A connection calls one target only.
    pub async fn exchange(&mut self, target: &Target) -> Result<bool> {
        (self.received, self.ended, self.reset) = (0, false, false);
        self.stream_window = self.initial_window;
        let headers = if self.introduced { &target.next } else { &target.first };
        self.introduced = true;
        self.out.clear();
        frame(&mut self.out, HEADERS, END_HEADERS, self.stream, headers);
        let size = target.body.len();
        let small = size <= SMALL && i64::try_from(size)? <= self.window.min(self.stream_window);
        if small {
            frame(&mut self.out, DATA, END_STREAM, self.stream, &target.body);
            self.window -= i64::try_from(size)?;
        }
        self.socket.write_all(&self.out).await?;
        if !small {
            self.send_large(&target.body).await?;
        }
        while !self.ended {
            self.read_frame().await?;
        }
        self.stream += 2;
        Ok(!self.reset && self.received > 5)
    }

    async fn send_large(&mut self, body: &Bytes) -> Result<()> {
        let mut rest = &body[..];
        while !rest.is_empty() && !self.ended {
            let open = usize::try_from(self.window.min(self.stream_window).max(0))?;
            let size = rest.len().min(self.max_frame).min(open);
            if size == 0 {
                self.read_frame().await?;
                continue;
            }
            let (now, later) = rest.split_at(size);
            self.out.clear();
            frame(&mut self.out, DATA, if later.is_empty() { END_STREAM } else { 0 }, self.stream, now);
            self.socket.write_all(&self.out).await?;
            self.window -= i64::try_from(size)?;
            self.stream_window -= i64::try_from(size)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads one frame and does what it asks for.
    async fn read_frame(&mut self) -> Result<()> {
        self.need(9).await?;
        let head = &self.buffer[self.from..self.from + 9];
        let length = (usize::from(head[0]) << 16) | (usize::from(head[1]) << 8) | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        self.from += 9;
        let own = stream == self.stream;
        if kind == DATA {
            return self.read_data(length, flags, own).await;
        }
        self.need(length).await?;
        let payload = self.from..self.from + length;
        self.from += length;
        match kind {
            HEADERS if own && flags & END_STREAM != 0 => self.ended = true,
            RST_STREAM if own => {
                // NO_ERROR after a whole answer says only that nothing more is read.
                self.reset = !self.ended;
                self.ended = true;
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings(payload)?;
                self.greeted = true;
                self.reply(SETTINGS, ACK, &[]).await?;
            }
            PING if flags & ACK == 0 => {
                let payload = self.buffer[payload].to_vec();
                self.reply(PING, ACK, &payload).await?;
            }
            GOAWAY => bail!("the server closed the connection"),
            WINDOW_UPDATE => {
                let bytes: [u8; 4] = self.buffer[payload].try_into().context("a window of the wrong length")?;
                let more = i64::from(u32::from_be_bytes(bytes) & WINDOW);
                if stream == 0 {
                    self.window += more;
                } else if own {
                    self.stream_window += more;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn read_data(&mut self, length: usize, flags: u8, own: bool) -> Result<()> {
        ensure!(flags & PADDED == 0, "padding is not understood");
        let mut left = length;
        while left > 0 {
            if self.from == self.to {
                self.need(1).await?;
            }
            let taken = left.min(self.to - self.from);
            self.from += taken;
            left -= taken;
        }
        self.consumed += length;
        if self.consumed >= GIVE_BACK {
            let back = u32::try_from(self.consumed)?.to_be_bytes();
            self.consumed = 0;
            self.reply(WINDOW_UPDATE, 0, &back).await?;
        }
        if own {
            self.received += length;
            self.ended |= flags & END_STREAM != 0;
        }
        Ok(())
    }

    fn settings(&mut self, payload: std::ops::Range<usize>) -> Result<()> {
        for setting in self.buffer[payload].chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                1 => ensure!(value >= 1024, "the server has no room for header fields"),
                4 => {
                    self.stream_window += i64::from(value) - self.initial_window;
                    self.initial_window = i64::from(value);
                }
                5 => self.max_frame = usize::try_from(value)?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn reply(&mut self, kind: u8, flags: u8, payload: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(9 + payload.len());
        frame(&mut out, kind, flags, 0, payload);
        Ok(self.socket.write_all(&out).await?)
    }

    /// Waits until so many bytes lie in the buffer.
    async fn need(&mut self, count: usize) -> Result<()> {
        ensure!(count <= BUFFER, "the server sent a frame that is too long");
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.from + count > BUFFER {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        while self.to - self.from < count {
            match self.socket.read(&mut self.buffer[self.to..]).await? {
                0 => bail!("the server closed the connection"),
                n => self.to += n,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_string_has_its_length_in_several_bytes() {
        let mut out = Vec::new();
        text(&mut out, &"x".repeat(127 + 300));
        assert_eq!(&out[..3], &[127, 0xac, 0x02]);
        assert_eq!(out.len(), 3 + 427);
    }

    #[test]
    fn later_calls_refer_to_the_fields_of_the_first() {
        let target = Target::new("127.0.0.1:1", "/p.S/M", Some("k"), b"abc").unwrap();
        assert_eq!(&target.next[..], &[0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
        assert_eq!(&target.body[..], &[0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }
}
