//! Where the heads are in the bytes of an HTTP/1 connection.
//!
//! Invariant: every byte belongs to a head that passed [`judge`], to a body that such a head announced,
//! or is not handed on. So the parser behind never begins a head at a place that was not found here as
//! well. Bodies are counted, not looked at; of a chunked one the lines of its chunks are read by a
//! grammar that has no more than one reading, and a body that leaves it ends the connection.

use memchr::memchr;

use crate::head::{self, Framing, Judgement, Refusal};

/// The most bytes of the lines of one chunk or of all trailers; the parser behind has such bounds, too.
const MAX_LINE: usize = 4096;

/// Follows one connection.
pub struct Tracker {
    place: Place,
    max_head: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A head begins here.
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    Chunks(Chunks),
}

/// In a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    /// In the size; `digits` were read.
    Size {
        size: u64,
        digits: u8,
    },
    /// In an extension of the size, which is read and forgotten.
    Extension {
        size: u64,
        length: usize,
    },
    /// The line of the size lacks its line feed.
    SizeEnd {
        size: u64,
    },
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// The chunk lacks its line end: both characters, or the line feed.
    DataEnd,
    DataLineFeed,
    /// At the beginning of a line of trailers, `length` bytes of which were read.
    Trailer {
        length: usize,
    },
    /// In such a line; it lacks its line feed; the empty line lacks it.
    TrailerLine {
        length: usize,
    },
    TrailerEnd {
        length: usize,
    },
    End,
}

/// What may be done with bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// So many of them may be handed on.
    pub length: usize,
    /// What holds of the rest.
    pub rest: Rest,
}

/// What holds of bytes that may not be handed on.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// The beginning of a head; to be shown again, with more behind. Empty when all may be handed on.
    Partial,
    /// A head that is not handled.
    Refused(Refusal),
    /// A chunked body that breaks the grammar.
    Broken,
}

impl Tracker {
    /// At the beginning of a connection. Heads have at most `max_head` bytes.
    pub const fn new(max_head: usize) -> Self {
        Self { place: Place::Head, max_head }
    }

    /// Takes the next bytes of the connection.
    pub fn pass(&mut self, bytes: &[u8]) -> Passed {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.place {
                Place::Head => match head::judge(rest, self.max_head) {
                    Judgement::Partial => break,
                    Judgement::Refused(refusal) => return Passed { length: at, rest: Rest::Refused(refusal) },
                    Judgement::Whole { length, framing } => {
                        at += length;
                        self.place = match framing {
                            Framing::Length(0) => Place::Head,
                            Framing::Length(length) => Place::Body(length),
                            Framing::Chunked => Place::Chunks(Chunks::Size { size: 0, digits: 0 }),
                        };
                    }
                },
                Place::Body(left) => {
                    at += skip(left, rest);
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                }
                Place::Chunks(Chunks::Data(left)) => {
                    at += skip(left, rest);
                    if *left == 0 {
                        self.place = Place::Chunks(Chunks::DataEnd);
                    }
                }
                Place::Chunks(chunks) => match chunks.step(rest) {
                    Some((taken, next)) => {
                        at += taken;
                        self.place = next;
                    }
                    None => return Passed { length: at, rest: Rest::Broken },
                },
            }
        }
        Passed { length: at, rest: Rest::Partial }
    }
}

/// Counts bytes of a body; how many of `bytes` are its.
fn skip(left: &mut u64, bytes: &[u8]) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= taken as u64;
    taken
}

impl Chunks {
    /// The next place and how many bytes lead there; `None` when the grammar has no such byte here. `bytes` are not empty.
    fn step(self, bytes: &[u8]) -> Option<(usize, Place)> {
        let next = |chunks| Some((1, Place::Chunks(chunks)));
        let byte = *bytes.first()?;
        match (self, byte) {
            (Self::Size { size, digits: digits @ 0..=15 }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                next(Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { size, digits: 1.. }, b'\r') => next(Self::SizeEnd { size }),
            (Self::Size { size, digits: 1.. }, b';') => next(Self::Extension { size, length: 0 }),
            (Self::Extension { size, length }, _) => {
                let (taken, ended) = line(bytes, length)?;
                let chunks = if ended { Self::SizeEnd { size } } else { Self::Extension { size, length: length + taken } };
                Some((taken, Place::Chunks(chunks)))
            }
            (Self::SizeEnd { size: 0 }, b'\n') => next(Self::Trailer { length: 0 }),
            (Self::SizeEnd { size }, b'\n') => next(Self::Data(size)),
            (Self::DataEnd, b'\r') => next(Self::DataLineFeed),
            (Self::DataLineFeed, b'\n') => next(Self::Size { size: 0, digits: 0 }),
            (Self::Trailer { .. }, b'\r') => next(Self::End),
            (Self::Trailer { length } | Self::TrailerLine { length }, _) => {
                let (taken, ended) = line(bytes, length)?;
                let length = length + taken;
                Some((taken, Place::Chunks(if ended { Self::TrailerEnd { length } } else { Self::TrailerLine { length } })))
            }
            (Self::TrailerEnd { length }, b'\n') => next(Self::Trailer { length: length + 1 }),
            (Self::End, b'\n') => Some((1, Place::Head)),
            _ => None,
        }
    }
}

/// Reads to the carriage return of a line of which `before` bytes were read: how many bytes, and whether it was found.
fn line(bytes: &[u8], before: usize) -> Option<(usize, bool)> {
    let found = memchr(b'\r', bytes);
    let text = &bytes[..found.unwrap_or(bytes.len())];
    let fits = before + text.len() <= MAX_LINE && !text.contains(&b'\n');
    fits.then(|| (text.len() + usize::from(found.is_some()), found.is_some()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

    fn all(text: &str) -> Passed {
        Tracker::new(1024).pass(text.as_bytes())
    }

    #[test]
    fn heads_in_bodies_are_bodies_and_heads_behind_them_are_heads() {
        let bad = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
        let length = |body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        for good in [
            length(bad),
            format!("{CHUNKED}{:x}\r\n{bad}\r\n0\r\n\r\n", bad.len()),
            format!("{CHUNKED}5;x=\"y\";z\r\nabcde\r\n00\r\nx: y\r\nz: a\r\n\r\n"),
            GET.repeat(3),
        ] {
            assert_eq!(all(&format!("{good}{GET}")), Passed { length: good.len() + GET.len(), rest: Rest::Partial });
            let Passed { length, rest: Rest::Refused(refusal) } = all(&format!("{good}{bad}{GET}")) else { panic!("{good}") };
            assert_eq!((length, refusal.why), (good.len(), "there is more than one Host"));
            assert_eq!(all(&format!("{good}{}", &GET[..20])), Passed { length: good.len(), rest: Rest::Partial });
        }
    }

    #[test]
    fn chunks_with_more_than_one_reading_are_broken() {
        for chunks in [
            "\r\n",
            ";x\r\n",
            "zz\r\n",
            " 1\r\n",
            "1 \r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\na",
            "1\r\r\na",
            "11111111111111111\r\n",
            "1;a\nb\r\n",
            "1\r\nabc\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na\r0\r\n\r\n",
            "0\r\n\n",
            "0\r\n\r\r",
            "0\r\nx: y\nz: a\r\n\r\n",
            "0\r\nx: y\r\r\n",
        ] {
            assert_eq!(all(&format!("{CHUNKED}{chunks}{GET}")).rest, Rest::Broken, "{chunks:?}");
        }
        assert_eq!(all(&format!("{CHUNKED}1;{}", "x".repeat(MAX_LINE + 1))).rest, Rest::Broken);
        assert_eq!(all(&format!("{CHUNKED}0\r\n{}", "x: y\r\n".repeat(MAX_LINE))).rest, Rest::Broken);
    }

    proptest! {
        /// The pieces in which bytes arrive change nothing.
        #[test]
        fn cuts_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec![
                GET.to_owned(),
                format!("{CHUNKED}3\r\nabc\r\n10;e\r\n0123456789abcdef\r\n0\r\nt: u\r\n\r\n"),
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n01234".to_owned(),
                format!("{CHUNKED}1\r\nab"),
                "GET / HTTP/1.1\r\n\r\n".to_owned(),
            ]), 1..5),
            sizes in prop::collection::vec(1..40usize, 1..20),
        ) {
            let text = parts.concat();
            let whole = all(&text);
            let (mut tracker, mut held, mut passed, mut rest) = (Tracker::new(1024), Vec::new(), 0, Rest::Partial);
            let (mut at, mut sizes) = (0, sizes.iter().cycle());
            while at < text.len() && rest == Rest::Partial {
                let size = (*sizes.next().unwrap()).min(text.len() - at);
                held.extend_from_slice(&text.as_bytes()[at..at + size]);
                at += size;
                let now = tracker.pass(&held);
                held.drain(..now.length);
                (passed, rest) = (passed + now.length, now.rest);
            }
            prop_assert_eq!(Passed { length: passed, rest }, whole);
        }
    }
}
