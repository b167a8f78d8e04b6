//! Server-sent events: from bytes to the data of each event.
//!
//! Invariant: no more than one event of bounded length is kept. Source: HTML Living Standard, "Server-sent events";
//! only the field `data` matters here.

/// The longest event.
const MAX_EVENT: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: String,
    has_data: bool,
}

impl Events {
    /// Takes bytes in and gives each event that they complete to `each`.
    ///
    /// # Errors
    /// An event is too long, or is not UTF-8.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) -> Result<(), String> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + piece.len() > MAX_EVENT {
                return Err(format!("an event of the stream is longer than {MAX_EVENT} bytes"));
            }
            self.line.extend_from_slice(piece);
            if self.line.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                self.end_of_line(line.trim_ascii_end(), &mut each)?;
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self, line: &[u8], each: &mut impl FnMut(&str)) -> Result<(), String> {
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                each(&std::mem::take(&mut self.data));
            }
            return Ok(());
        }
        let Some(value) = line.strip_prefix(b"data:") else { return Ok(()) };
        let value = std::str::from_utf8(value.strip_prefix(b" ").unwrap_or(value)).map_err(|_| "the stream is not UTF-8")?;
        if self.has_data {
            self.data.push('\n');
        }
        self.data.push_str(value);
        self.has_data = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let (mut parser, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece, |event| found.push(event.to_owned()))?;
        }
        Ok(found)
    }

    #[test]
    fn events_in_any_pieces() {
        assert_eq!(events(&[b": hi\r\nda", b"ta: a\r", b"\n\r\ndata:b\ndata: c\n\nevent: x\n\ndata: lost"]).unwrap(), ["a", "b\nc"]);
        assert!(events(&[b"data: \xff\n\n"]).is_err());
        assert!(events(&[&[b'x'; MAX_EVENT], b"xx"]).is_err(), "a line without an end");
        let line = [&b"data: "[..], &[b'x'; 1000], b"\n"].concat();
        assert!(events(&vec![&line[..]; 2000]).is_err(), "an event without an end");
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(text in "(data: ?[a-z]{0,3}\n|\n|:c\n|id: 1\n){0,12}", at in 0usize..60) {
            let at = at.min(text.len());
            let (a, b) = text.as_bytes().split_at(at);
            prop_assert_eq!(events(&[a, b]), events(&[text.as_bytes()]));
        }
    }
}
