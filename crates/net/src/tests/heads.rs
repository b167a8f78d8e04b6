//! Heads that two readers may read differently, on the wire.

use super::corpus::HOSTILE;
use super::*;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Such a refusal and nothing behind it. `text` is all that the server has sent.
fn assert_refused(text: &str, why: &str, what: &str) {
    assert!(text.starts_with("HTTP/1.1 400 "), "{what:?}: {text}");
    assert!(text.contains("content-type: application/problem+json\r\n") && text.contains("connection: close\r\n"), "{what:?}: {text}");
    assert!(text.contains(r#""reason":"malformed_request""#) && text.contains(why), "{what:?}: {text}");
    assert_eq!(text.matches("HTTP/1.1 ").count() - text.matches("nor HTTP/1.1").count(), 1, "{what:?}: {text}");
}

#[tokio::test]
async fn hostile_heads_are_refused_and_nothing_behind_them_is_read() {
    let fixture = start(limits());
    let cases = HOSTILE.iter().map(async |&(head, why)| {
        let mut text = fixture.send(format!("{head}{SMUGGLED}")).await.rest().await;
        text = text.replace("nor HTTP/1.1", "nor that");
        assert_refused(&text, why.trim_end_matches("HTTP/1.1"), head);
    });
    futures_util::future::join_all(cases).await;
    assert_eq!((fixture.demo.served.load(Ordering::SeqCst), fixture.metrics.malformed_heads.value()), (0, HOSTILE.len() as u64));
}

#[tokio::test]
async fn they_are_refused_behind_good_requests_as_well_after_their_answers() {
    let fixture = start(limits());
    let good = [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nt: u\r\n\r\n",
    ];
    let cases = HOSTILE.iter().zip(good.iter().cycle()).map(async |(&(head, why), good)| {
        let mut raw = fixture.send(format!("{good}{head}{SMUGGLED}")).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "{good:?}");
        assert_refused(&raw.rest().await.replace("nor HTTP/1.1", "nor that"), why, head);
    });
    futures_util::future::join_all(cases).await;
    assert_eq!(fixture.demo.served.load(Ordering::SeqCst), HOSTILE.len());
}

#[tokio::test]
async fn they_are_refused_however_they_are_cut() {
    let fixture = start(limits());
    let mut cases = Vec::new();
    for &(head, why) in HOSTILE.iter().step_by(5) {
        for cut in [1, head.len() / 3, head.len() / 2, head.len() - 1] {
            cases.push((head, why, cut));
        }
    }
    let cases = cases.into_iter().map(async |(head, why, cut)| {
        // Behind a request that was served, so that the pieces come while the parser waits.
        let mut raw = fixture.connect().await;
        assert_eq!(raw.get("/").await.status, 200);
        raw.send(&head[..cut]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = raw.0.write_all(&head.as_bytes()[cut..]).await;
        assert_refused(&raw.rest().await.replace("nor HTTP/1.1", "nor that"), why, head);
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn heads_in_pieces_and_heads_in_bodies_are_served() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    let (bad, _) = HOSTILE[0];
    let requests = [
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{bad}", bad.len()),
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{bad}\r\n0\r\n\r\n", bad.len()),
    ];
    for request in requests.iter().cycle().take(4) {
        for piece in request.as_bytes().chunks(11) {
            raw.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.answer().await.body, bad.as_bytes());
    }
    assert_eq!((fixture.metrics.accepted.value(), fixture.metrics.malformed_heads.value()), (1, 0));
}

#[tokio::test]
async fn the_method_that_stands_for_refused_heads_is_one_like_others() {
    let fixture = start(limits());
    let mut raw = fixture.send("REFUSED / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((raw.answer().await.body, raw.get("/").await.status), (b"hello".to_vec(), 200));
}

#[tokio::test]
async fn large_heads_behind_others_are_refused_too() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    assert_eq!(raw.get("/").await.status, 200);
    raw.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(20_000))).await;
    let text = raw.rest().await;
    assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("malformed_request"), "{text}");
}
