//! Where the bytes come from: a stream, or something that seeks.
//!
//! Invariant: a source is read once from its beginning, or once from an offset; its fingerprint is taken before, of the bytes as
//! they are stored. Unpacking is a stream with a fixed window, and ends with an error at the limit.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use plinth_types::{Digest, DigestHasher};

use crate::{Compression, Fingerprint, Limits};

/// Bytes that can be read from any place. Every `Read + Seek + Send` is one.
pub trait SeekRead: Read + Seek + Send {}

impl<T: Read + Seek + Send> SeekRead for T {}

/// Where rows are read from.
pub enum Source {
    /// Bytes that come once, in order. Going to a checkpoint means reading up to it.
    Stream {
        /// The bytes.
        bytes: Box<dyn Read + Send>,
        /// How many there are, where that is known; part of the fingerprint.
        size: Option<u64>,
    },
    /// Something that seeks, such as a file. Parquet needs it.
    Seek(Box<dyn SeekRead>),
}

impl Source {
    /// A stream of unknown size.
    pub fn stream(bytes: impl Read + Send + 'static) -> Self {
        Self::Stream { bytes: Box::new(bytes), size: None }
    }

    /// A file, or what is like one.
    pub fn seek(bytes: impl SeekRead + 'static) -> Self {
        Self::Seek(Box::new(bytes))
    }

    /// Takes the fingerprint. The source is at its beginning after.
    pub(crate) fn open(self) -> io::Result<(Opened, Fingerprint)> {
        match self {
            Self::Stream { mut bytes, size } => {
                let mut head = Vec::new();
                bytes.by_ref().take(Fingerprint::SAMPLE as u64).read_to_end(&mut head)?;
                let fingerprint = Fingerprint { size, head: Digest::of(&head), tail: None };
                Ok((Opened::Stream(Box::new(Cursor::new(head).chain(bytes))), fingerprint))
            }
            Self::Seek(mut bytes) => {
                let size = bytes.seek(SeekFrom::End(0))?;
                let tail_at = size.saturating_sub(Fingerprint::SAMPLE as u64);
                let tail = digest_at(bytes.as_mut(), tail_at)?;
                let head = if tail_at == 0 { tail } else { digest_at(bytes.as_mut(), 0)? };
                let shared = Shared { bytes: Arc::new(Mutex::new(bytes)), size };
                Ok((Opened::Shared(shared), Fingerprint { size: Some(size), head, tail: Some(tail) }))
            }
        }
    }
}

/// A source whose fingerprint is known.
pub(crate) enum Opened {
    Stream(Box<dyn Read + Send>),
    Shared(Shared),
}

impl Opened {
    /// The unpacked bytes, and the source itself where any place of it can be read.
    pub(crate) fn unpack(self, compression: Compression, limits: &Limits) -> io::Result<(Box<dyn Read + Send>, Option<Shared>)> {
        let (bytes, shared): (Box<dyn Read + Send>, _) = match self {
            Self::Stream(bytes) => (bytes, None),
            Self::Shared(shared) => (Box::new(shared.read_from(0)), Some(shared)),
        };
        let left = limits.max_unpacked_bytes;
        Ok(match compression {
            Compression::None => (bytes, shared),
            Compression::Gzip => (Box::new(Bounded { bytes: flate2::read::MultiGzDecoder::new(bytes), left }), None),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
                decoder.window_log_max(27)?;
                (Box::new(Bounded { bytes: decoder, left }), None)
            }
        })
    }
}

/// A source that is read from several places by turns.
#[derive(Clone)]
pub(crate) struct Shared {
    bytes: Arc<Mutex<Box<dyn SeekRead>>>,
    pub(crate) size: u64,
}

impl Shared {
    /// Reads at a place; fewer bytes than asked for as `Read` does.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // A panic while reading leaves nothing behind that the next seek does not set right.
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.seek(SeekFrom::Start(offset))?;
        bytes.read(buffer)
    }

    pub(crate) fn read_from(&self, offset: u64) -> ReadAt {
        ReadAt { shared: self.clone(), offset }
    }
}

/// Reads a [`Shared`] from one place on.
pub(crate) struct ReadAt {
    shared: Shared,
    offset: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.shared.read_at(self.offset, buffer)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn digest_at(bytes: &mut dyn SeekRead, offset: u64) -> io::Result<Digest> {
    bytes.seek(SeekFrom::Start(offset))?;
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; 16 << 10];
    let mut sample = bytes.take(Fingerprint::SAMPLE as u64);
    loop {
        match sample.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Bytes that are an error when there are more than allowed.
struct Bounded<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.bytes.read(&mut buffer[..most])?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "the source unpacks to more bytes than the limit max_unpacked_bytes allows")
        })?;
        Ok(n)
    }
}
