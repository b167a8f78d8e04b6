//! What is masked: e-mail addresses and phone numbers in a text.
//!
//! Rules of thumb, on the cautious side: an address is letters, an at sign and a domain with a dot; a phone number is 7 to 15 digits with
//! single separators that begin with `+`, `(` or `0`, or stand in groups of three, three and four. Dates and bare numbers stay.

/// What stands in their place.
pub struct Words<'w> {
    pub email: &'w str,
    pub phone: &'w str,
}

impl Default for Words<'_> {
    fn default() -> Self {
        Self { email: "[email]", phone: "[phone]" }
    }
}

/// The text with all of them masked; `None` when there are none.
pub fn mask(text: &str, words: &Words<'_>) -> Option<String> {
    let bytes = text.as_bytes();
    // Most texts hold neither.
    if !bytes.iter().any(|byte| *byte == b'@' || byte.is_ascii_digit()) {
        return None;
    }
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    for at in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'@').map(|(at, _)| at) {
        let after = found.last().map_or(0, |(_, end, _)| *end);
        if let Some((start, end)) = email(bytes, at, after) {
            found.push((start, end, words.email));
        }
    }
    let mut at = 0;
    let mut next = 0;
    let mut all: Vec<(usize, usize, &str)> = Vec::new();
    while at < bytes.len() {
        if let Some(&(start, end, word)) = found.get(next)
            && at >= start
        {
            all.push((start, end, word));
            (at, next) = (end, next + 1);
            continue;
        }
        let most = found.get(next).map_or(bytes.len(), |(start, ..)| *start);
        match phone(bytes, at, most) {
            Some(end) => {
                all.push((at, end, words.phone));
                at = end;
            }
            None => at += 1,
        }
    }
    if all.is_empty() {
        return None;
    }
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for (start, end, word) in all {
        out.push_str(&text[copied..start]);
        out.push_str(word);
        copied = end;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// The address around an at sign, not before `after`.
fn email(bytes: &[u8], at: usize, after: usize) -> Option<(usize, usize)> {
    // Bytes of other letters than a to z belong to an address too, and with them whole letters do.
    let local = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"._%+-'".contains(&byte);
    let domain = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || byte == b'.' || byte == b'-';
    let start = at - bytes[after..at].iter().rev().take_while(|byte| local(**byte)).count();
    let mut end = at + 1 + bytes[at + 1..].iter().take_while(|byte| domain(**byte)).count();
    while end > at + 1 && matches!(bytes[end - 1], b'.' | b'-') {
        end -= 1;
    }
    let name = &bytes[at + 1..end];
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    (start < at && dot > 0 && name.len() - dot > 2).then_some((start, end))
}

/// The end of the phone number that begins here, before `most`.
fn phone(bytes: &[u8], at: usize, most: usize) -> Option<usize> {
    let first = bytes[at];
    if !(first.is_ascii_digit() || first == b'+' || first == b'(') {
        return None;
    }
    if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || b"_.-+".contains(&bytes[at - 1])) {
        return None;
    }
    let (mut end, mut digits) = (at, 0);
    let mut groups = [0_u8; 8];
    let (mut group, mut between) = (0, 0);
    let mut here = at + usize::from(first == b'+');
    while here < most {
        match bytes[here] {
            byte if byte.is_ascii_digit() => {
                if between > 0 && digits > 0 {
                    group += 1;
                }
                *groups.get_mut(group)? += 1;
                (digits, between, end) = (digits + 1, 0, here + 1);
            }
            b' ' | b'-' | b'.' | b'/' | b'(' | b')' if between < 2 => between += 1,
            _ => break,
        }
        here += 1;
        if digits > 15 {
            return None;
        }
    }
    if bytes.get(end).is_some_and(u8::is_ascii_alphabetic) || digits < 7 {
        return None;
    }
    let groups = &groups[..=group];
    let date = matches!(groups, [2, 2, 4] | [4, 2, 2]);
    let shape = match first {
        b'+' | b'(' => true,
        b'0' => groups[0] > 1 && !date,
        _ => matches!(groups, [3, 3, 4] | [1, 3, 3, 4]),
    };
    shape.then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        mask(text, &Words::default()).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn addresses_are_masked() {
        for (text, want) in [
            ("ann@example.org", "[email]"),
            ("to ann.b+c@mail.example.co.uk, please", "to [email], please"),
            ("<jörg@bücher.example>.", "<[email]>."),
            ("a@b.cd e@f.gh", "[email] [email]"),
            ("ann@example.org.", "[email]."),
        ] {
            assert_eq!(masked(text), want);
        }
        for text in ["@home", "a@b", "a@.b", "@ example.org", "5 @ 3.20", "a@b.c"] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn phone_numbers_are_masked() {
        for (text, want) in [
            ("+49 151 1234-5678", "[phone]"),
            ("call 0151/12345678 now", "call [phone] now"),
            ("(030) 901820", "[phone]"),
            ("415-555-0132 or 1 415 555 0132", "[phone] or [phone]"),
            ("+1(415)555-0132.", "[phone]."),
            ("0049 30 1234567", "[phone]"),
        ] {
            assert_eq!(masked(text), want);
        }
        for text in [
            "2026-11-20",
            "01.02.2026",
            "127.0.0.1",
            "0.123456789",
            "order 4915112345678",
            "12345",
            "00:15:00",
            "a1234567890",
            "9f86d081884c7d659a2feaa0c55ad015",
            "3.14159265358979",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn both_in_one_text() {
        assert_eq!(masked("ann@example.org, +49 151 12345678; 0151-12345678@example.org"), "[email], [phone]; [email]");
        assert_eq!(masked("größe 7, +49 151 12345678 grüße"), "größe 7, [phone] grüße");
    }
}
