//! Signatures: the specification's own example, rotation, replays, and everything that must not pass.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use plinth_types::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000).unwrap()
}

fn headers(signed: &Signed) -> HeaderMap {
    let mut headers = HeaderMap::new();
    signed.write(&mut headers);
    headers
}

#[test]
fn the_example_of_the_specification_s_libraries_is_signed_the_same() {
    let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap();
    let signed = sign(&Secrets::one(secret), &id, at(1_614_265_330), br#"{"test": 2432232314}"#);
    assert_eq!(signed.timestamp, "1614265330");
    // Computed with Python's hmac.
    assert_eq!(signed.signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn during_a_rotation_either_secret_verifies() {
    let (old, new) = (secret(1), secret(2));
    let rotating = Secrets::one(old.clone()).rotated(new.clone());
    let signed = sign(&rotating, &"m".parse().unwrap(), at(1000), b"x");
    assert_eq!(signed.signature.split(' ').count(), 2);
    for known in [&old, &new] {
        assert_eq!(verify([known], &headers(&signed), b"x", at(1000)).unwrap().as_str(), "m");
    }
    assert_eq!(verify([&secret(3)], &headers(&signed), b"x", at(1000)), Err(VerifyError::Signature));
    // The one before the last is forgotten.
    let third = rotating.rotated(secret(3));
    let signed = sign(&third, &"m".parse().unwrap(), at(1000), b"x");
    assert_eq!(verify([&old], &headers(&signed), b"x", at(1000)), Err(VerifyError::Signature));
    // A receiver that knows both takes what is signed with either.
    let signed = sign(&Secrets::one(old.clone()), &"m".parse().unwrap(), at(1000), b"x");
    assert!(verify([&new, &old], &headers(&signed), b"x", at(1000)).is_ok());
}

#[test]
fn a_delivery_is_believed_for_five_minutes() {
    let signed = sign(&Secrets::one(secret(1)), &"m".parse().unwrap(), at(10_000), b"x");
    for (now, expected) in [(9_700, true), (9_699, false), (10_300, true), (10_301, false), (0, false)] {
        let verified = verify([&secret(1)], &headers(&signed), b"x", at(now));
        assert_eq!(verified.err(), (!expected).then_some(VerifyError::Time), "{now}");
    }
}

#[test]
fn malformed_headers_are_refused() {
    let good = headers(&sign(&Secrets::one(secret(1)), &"m".parse().unwrap(), at(1000), b"x"));
    let check = |headers: &HeaderMap| verify([&secret(1)], headers, b"x", at(1000)).map(drop);
    assert_eq!(check(&good), Ok(()));
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut missing = good.clone();
        missing.remove(name);
        assert_eq!(check(&missing), Err(VerifyError::Header(name)));
        let mut twice = good.clone();
        twice.append(name, good[name].clone());
        assert_eq!(check(&twice), Err(VerifyError::Header(name)));
    }
    for (name, value, error) in [
        ("webhook-timestamp", "", VerifyError::Header("webhook-timestamp")),
        ("webhook-timestamp", "+1000", VerifyError::Header("webhook-timestamp")),
        ("webhook-timestamp", "01000", VerifyError::Header("webhook-timestamp")),
        ("webhook-timestamp", "1000.0", VerifyError::Header("webhook-timestamp")),
        ("webhook-timestamp", "99999999999999999999", VerifyError::Header("webhook-timestamp")),
        ("webhook-timestamp", "18446744073709551615", VerifyError::Time),
        ("webhook-id", "m.1", VerifyError::Header("webhook-id")),
        ("webhook-id", "", VerifyError::Header("webhook-id")),
        ("webhook-signature", "", VerifyError::Signature),
        ("webhook-signature", "v1,", VerifyError::Signature),
        ("webhook-signature", "v1,!!!", VerifyError::Signature),
        ("webhook-signature", "v1,AAAA v1a,BBBB  v2,CCCC", VerifyError::Signature),
    ] {
        let mut headers = good.clone();
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(check(&headers), Err(error), "{name}: {value}");
    }
    // The right one behind others of other versions, and behind too many.
    let right = good["webhook-signature"].to_str().unwrap();
    for (others, expected) in [(1, Ok(())), (15, Ok(())), (16, Err(VerifyError::Signature))] {
        let list = "v1a,AAAA ".repeat(others) + right;
        let mut headers = good.clone();
        headers.insert("webhook-signature", HeaderValue::from_str(&list).unwrap());
        assert_eq!(check(&headers), expected, "{others}");
    }
}

#[test]
fn secrets_are_read_in_their_form_and_not_shown() {
    let drawn = secret(7);
    assert_eq!(Secret::parse(&drawn.reveal()).unwrap().reveal(), drawn.reveal());
    assert_ne!(secret(8).reveal(), drawn.reveal());
    for (bytes, good) in [(23, false), (24, true), (64, true), (65, false), (200, false)] {
        let text = format!("whsec_{}", BASE64_STANDARD.encode(vec![9; bytes]));
        assert_eq!(Secret::parse(&text).is_ok(), good, "{bytes}");
    }
    let naked = BASE64_STANDARD.encode([9; 32]);
    for text in ["", "whsec_", "whsec_!!!!", &naked, &format!("WHSEC_{naked}"), &format!("whsec_{naked} ")] {
        let error = Secret::parse(text).unwrap_err().to_string();
        assert!(error.contains("24 to 64"), "{error}");
    }
    let shown = format!("{:?} {:?}", Secrets::one(drawn.clone()).rotated(secret(8)), delivery("http://127.0.0.1:9999/token?key=k"));
    let encoded = drawn.reveal().trim_start_matches("whsec_").to_owned();
    assert!(!shown.contains(&encoded) && !shown.contains("token") && !shown.contains("key=k"), "{shown}");
}

proptest! {
    #[test]
    fn whatever_is_changed_is_noticed(
        id in "[A-Za-z0-9_-]{1,64}", body in prop::collection::vec(any::<u8>(), 0..300), time in 0..4_000_000_000_u64,
        place in any::<prop::sample::Index>(), bit in 0..8_u32, seeds in (0..1000_u64, 1000..2000_u64),
    ) {
        let secrets = Secrets::one(secret(seeds.0));
        let signed = sign(&secrets, &id.parse().unwrap(), at(time), &body);
        let good = headers(&signed);
        prop_assert_eq!(verify(secrets.iter(), &good, &body, at(time)).unwrap().to_string(), id.clone());
        let refused = |headers: &HeaderMap, body: &[u8]| verify(secrets.iter(), headers, body, at(time)) == Err(VerifyError::Signature);

        let mut other = body.clone();
        if other.is_empty() { other.push(0) } else { let at = place.index(other.len()); other[at] ^= 1 << bit }
        prop_assert!(refused(&good, &other));
        let mut longer = body.clone();
        longer.push(0);
        prop_assert!(refused(&good, &longer));

        let mut later = good.clone();
        later.insert("webhook-timestamp", (time + 1).to_string().parse().unwrap());
        prop_assert!(refused(&later, &body));
        let mut renamed = good.clone();
        renamed.insert("webhook-id", format!("{}x", &id[1..]).parse().unwrap());
        prop_assert!(id.ends_with('x') || refused(&renamed, &body));
        prop_assert_eq!(verify([&secret(seeds.1)], &good, &body, at(time)), Err(VerifyError::Signature));

        let tag = BASE64_STANDARD.decode(&signed.signature[3..]).unwrap();
        for shorter in [&tag[..0], &tag[..16], &tag[..31]] {
            let mut cut = good.clone();
            cut.insert("webhook-signature", format!("v1,{}", BASE64_STANDARD.encode(shorter)).parse().unwrap());
            prop_assert!(refused(&cut, &body));
        }
    }
}
