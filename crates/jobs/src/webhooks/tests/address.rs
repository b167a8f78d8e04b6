//! What may be entered as an address, and what is refused before anything is sent.

use plinth_types::{Error, Reason};
use proptest::prelude::*;

use super::*;

#[test]
fn addresses_are_kept_in_one_spelling() {
    for (text, kept, host, port) in [
        ("https://example.com", "https://example.com/", "example.com", 443),
        ("HTTP://Example.COM:80/Hook?a=b&c", "http://example.com/Hook?a=b&c", "example.com", 80),
        ("https://example.com.:8443/a/../b", "https://example.com.:8443/b", "example.com", 8443),
        ("https://b\u{fc}cher.example/\u{fc}", "https://xn--bcher-kva.example/%C3%BC", "xn--bcher-kva.example", 443),
        ("http://8.8.8.8/x", "http://8.8.8.8/x", "8.8.8.8", 80),
        ("http://[2606:4700::1111]:8080/", "http://[2606:4700::1111]:8080/", "2606:4700::1111", 8080),
        ("http://a_b.example/", "http://a_b.example/", "a_b.example", 80),
    ] {
        let address = Address::parse(text, &Guard::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((address.as_str(), address.origin().host(), address.origin().port()), (kept, host, port), "{text}");
        assert_eq!(Address::parse(address.as_str(), &Guard::default()).as_ref(), Ok(&address), "{text}");
    }
}

#[test]
fn literal_addresses_that_are_not_public_are_refused_in_every_spelling() {
    for text in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://127.0.0.1:8080/",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "http://127\u{3002}0\u{3002}0\u{3002}1/",
        "http://%31%32%37.0.0.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://172.16.0.1/",
        "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
    ] {
        let error = Address::parse(text, &Guard::default()).expect_err(text);
        let AddressError::Refused(refused) = &error else { panic!("{text}: {error:?}") };
        let range = refused.range;
        // The tenant is told that it may not be called, the log why.
        let error = Error::from(error);
        assert_eq!((error.reason(), error.public_text()), (Reason::WebhookRefused, "the webhook's address may not be called"));
        assert!(error.log_text().contains(range), "{text}: {}", error.log_text());
    }
    // What an operator has listed; the metadata service is not in it.
    let link_local = Guard::new(["169.254.0.0/16".parse().unwrap(), "127.0.0.0/8".parse().unwrap()]);
    assert!(Address::parse("http://0x7f.1:8080/", &link_local).is_ok());
    assert!(matches!(Address::parse("http://169.254.169.254/", &link_local), Err(AddressError::Refused(_))));
}

#[test]
fn what_cannot_be_called_or_is_not_sent_is_refused() {
    let long = |count: usize| format!("http://example.com/{}", "a".repeat(count - 19));
    let name = |labels: usize| format!("http://{}.example/", vec!["a".repeat(60); labels].join("."));
    for (text, error) in [
        ("", AddressError::Malformed),
        ("example.com/hook", AddressError::Malformed),
        ("http:example.com", AddressError::Malformed),
        ("ftp://example.com/", AddressError::Scheme),
        ("file:///etc/passwd", AddressError::Scheme),
        ("gopher://example.com/", AddressError::Scheme),
        ("h2c://example.com/", AddressError::Scheme),
        ("ht\ntp://example.com/", AddressError::Malformed),
        ("http://example.com/a b", AddressError::Malformed),
        ("http://example.com\t/", AddressError::Malformed),
        ("http://example.com\\@10.0.0.1/", AddressError::Malformed),
        ("http://user@example.com/", AddressError::UserInfo),
        ("http://user:secret@example.com/", AddressError::UserInfo),
        ("http://@example.com/", AddressError::UserInfo),
        ("http://:@example.com/", AddressError::UserInfo),
        ("http://example.com/#part", AddressError::Fragment),
        ("http://example.com/#", AddressError::Fragment),
        ("http://example.com:0/", AddressError::Port),
        ("http://example.com:22/", AddressError::Port),
        ("http://example.com:25/", AddressError::Port),
        ("http://example.com:1023/", AddressError::Port),
        ("http://example.com:65536/", AddressError::Port),
        ("http://example.com:x/", AddressError::Port),
        ("http:///hook", AddressError::Host),
        ("http://.example/", AddressError::Host),
        ("http://a..example/", AddressError::Host),
        ("http://example.com../", AddressError::Host),
        ("http://./", AddressError::Host),
        ("http://999.1.1.1/", AddressError::Host),
        ("http://1.2.3.4.5/", AddressError::Host),
        ("http://[::1", AddressError::Host),
        ("http://[fe80::1%25eth0]/", AddressError::Host),
        ("http://exa$mple.com/", AddressError::Host),
        (&name(5), AddressError::Host),
        (&format!("http://{}.example/", "a".repeat(64)), AddressError::Host),
        (&long(MAX_URL + 1), AddressError::TooLong),
        (&format!("http://example.com/{}", "\u{fc}".repeat(600)), AddressError::TooLong),
    ] {
        assert_eq!(Address::parse(text, &Guard::default()).err(), Some(error), "{text}");
    }
    for text in [name(4), long(MAX_URL), format!("http://{}.example/", "a".repeat(63))] {
        assert!(Address::parse(&text, &Guard::default()).is_ok(), "{text}");
    }
}

proptest! {
    /// An address is public however it is written: what the parser of the standard library takes and what browsers take.
    #[test]
    fn no_spelling_of_an_address_passes_the_guard(octets in any::<[u8; 4]>(), spelling in 0..6_usize) {
        let [a, b, c, d] = octets;
        let (number, guard) = (u32::from_be_bytes(octets), Guard::default());
        let host = match spelling {
            0 => format!("{a}.{b}.{c}.{d}"),
            1 => number.to_string(),
            2 => format!("0x{number:x}"),
            3 => format!("0{a:o}.0x{b:x}.{}", u16::from_be_bytes([c, d])),
            4 => format!("[::ffff:{a}.{b}.{c}.{d}]"),
            _ => format!("{a}.{b}.{c}.{d}."),
        };
        let allowed = guard.check(IpAddr::from(octets)).is_ok();
        prop_assert_eq!(Address::parse(&format!("http://{host}/"), &guard).is_ok(), allowed, "{}", host);
    }

    #[test]
    fn nothing_that_is_written_breaks_anything(text in "\\PC{0,60}", host in "[a-z0-9.@:#?%\\[\\]/-]{0,40}") {
        let _ = Address::parse(&text, &Guard::default());
        if let Ok(address) = Address::parse(&format!("https://{host}"), &Guard::default()) {
            prop_assert_eq!(Address::parse(address.as_str(), &Guard::default()), Ok(address));
        }
    }
}
