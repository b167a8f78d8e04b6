//! Receivers that want to hold a worker, fill a memory or look around in the operator's network.

use plinth_types::Reason;

use super::*;

/// What a tenant sees of a delivery that failed.
fn seen(sent: &Sent) -> (Outcome, Ended, u64, u64, String) {
    let error = sent.error().unwrap();
    assert_eq!(error.reason(), Reason::WebhookFailed);
    (sent.outcome, sent.attempt.ended, sent.attempt.duration_ms, sent.attempt.bytes, error.public_text().to_owned())
}

#[tokio::test]
async fn what_cannot_be_reached_looks_the_same_whatever_the_cause() {
    // A port that is taken and at which nobody listens.
    let unheard = tokio::net::TcpSocket::new_v4().unwrap();
    unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = unheard.local_addr().unwrap().port();
    let public = Guard::default();
    let mut all = Vec::new();
    for (answers, cause) in [
        (vec![vec!["169.254.169.254"]], "metadata"),
        (vec![vec!["10.0.0.1"]], "private"),
        (vec![vec!["8.8.8.8", "::ffff:10.0.0.1"]], "private"),
        (vec![vec!["fe80::1"]], "link-local"),
        (vec![], "its name has no address"),
        (vec![vec!["127.0.0.1"]], "cannot be reached"),
        (vec![vec![]], "its name has no address"),
    ] {
        let guard = if cause == "cannot be reached" { loopback() } else { public.clone() };
        let world = world_of(guard.clone(), Names(Arc::new(Mutex::new(answers))), None);
        let sent = world.send(&delivery_by(&format!("http://hook.example:{free}/"), &guard)).await;
        assert!(sent.diagnostic.contains(cause), "{cause}: {}", sent.diagnostic);
        all.push(seen(&sent));
    }
    // Without roots no TLS: it is not said either.
    let world = world_of(loopback(), Names(Arc::new(Mutex::new(vec![vec!["127.0.0.1"]]))), None);
    let receiver = world.saying("").await;
    let sent = world.send(&delivery(&format!("https://hook.example:{}/", receiver.address.port()))).await;
    assert!(sent.diagnostic.contains("no roots"), "{}", sent.diagnostic);
    all.push(seen(&sent));
    let text = "the webhook's address could not be reached".to_owned();
    let expected = (Outcome::Retry { after: None }, Ended::Failure(Failure::Unreachable), 0, 0, text);
    assert!(all.iter().all(|one| *one == expected), "{all:?}");
}

#[tokio::test]
async fn a_guard_that_has_become_stricter_refuses_at_the_send() {
    let strict = world_of(Guard::default(), Names::default(), None);
    let receiver = strict.saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let sent = strict.send(&delivery(&receiver.url("/"))).await;
    assert_eq!((sent.attempt.ended, receiver.connections()), (Ended::Failure(Failure::Unreachable), 0));
    assert!(sent.diagnostic.contains("loopback"), "{}", sent.diagnostic);
}

#[tokio::test]
async fn a_name_that_is_bound_anew_reaches_nothing_forbidden() {
    // First an address that may be called, then one that may not: who resolves twice would call the second.
    let names = Names(Arc::new(Mutex::new(vec![vec!["127.0.0.1"], vec!["169.254.169.254"], vec!["127.0.0.1", "10.0.0.1"]])));
    let world = world_of(loopback(), names, None);
    let receiver = world.saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let delivery = delivery(&format!("http://rebound.example:{}/", receiver.address.port()));
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let sent = world.send(&delivery).await;
        outcomes.push((sent.attempt.ended, receiver.connections()));
    }
    let refused = Ended::Failure(Failure::Unreachable);
    assert_eq!(outcomes, [(Ended::Status(200), 1), (refused, 1), (refused, 1)]);
}

/// Reads the request, says `first`, and then `again` for ever, each `pause`.
async fn endless(world: &World, first: &'static str, again: &'static [u8], pause: Duration) -> Receiver {
    world
        .receiver(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(again).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        })
        .await
}

#[tokio::test]
async fn a_receiver_that_hangs_or_trickles_is_left_after_the_total_time() {
    let total = Duration::from_millis(700);
    let (ok, pause, year) = ("HTTP/1.1 200 OK\r\n", Duration::from_millis(50), Duration::from_secs(31_536_000));
    let cases = [
        ("says nothing", "", &b""[..], year, Ended::Failure(Failure::Timeout)),
        ("trickles its head", ok, b"x: y\r\n", pause, Ended::Failure(Failure::Timeout)),
        ("announces only", "", b"HTTP/1.1 100 Continue\r\n\r\n", pause * 4, Ended::Failure(Failure::Timeout)),
        ("hangs in its body", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", b"", year, Ended::Status(200)),
        ("trickles its body", "HTTP/1.1 500 x\r\ncontent-length: 1000\r\n\r\n", b"y", pause, Ended::Status(500)),
        ("trickles chunks", "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\ny\r\n", pause, Ended::Status(200)),
    ];
    let all = cases.map(|(what, first, again, pause, ended)| async move {
        // Each in a world of its own: they share a host.
        let world = world();
        let receiver = endless(&world, first, again, pause).await;
        let sender = world.sender.clone().with_total(total);
        let start = tokio::time::Instant::now();
        let sent = within(what, sender.send(&delivery(&receiver.url("/")))).await;
        assert!((total..total * 4).contains(&start.elapsed()), "{what}: {:?}", start.elapsed());
        assert_eq!(sent.attempt.ended, ended, "{what}: {}", sent.diagnostic);
        assert!(sent.attempt.duration_ms >= 690, "{what}: {:?}", sent.attempt);
        assert_eq!(sent.outcome == Outcome::Delivered, ended == Ended::Status(200), "{what}");
        assert_eq!(sender.hosts(), 0, "{what}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_a_bound() {
    let world = world();
    const PIECE: &[u8] = &[b'z'; 16 << 10];
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2540be400\r\n",
    ] {
        let (done, ended) = tokio::sync::oneshot::channel();
        let done = Mutex::new(Some(done));
        let receiver = world
            .receiver(move |mut stream| {
                let done = done.lock().unwrap().take();
                async move {
                    read_request(&mut stream).await;
                    stream.write_all(first.as_bytes()).await.unwrap();
                    let mut written = 0_u64;
                    while stream.write_all(PIECE).await.is_ok() {
                        written += PIECE.len() as u64;
                    }
                    let _ = done.unwrap().send(written);
                }
            })
            .await;
        let sent = world.send(&delivery(&receiver.url("/"))).await;
        assert_eq!((sent.outcome, sent.attempt.bytes), (Outcome::Delivered, MAX_ANSWER));
        // What the kernel's buffers hold besides.
        let written = within("the receiver's end", ended).await.unwrap();
        assert!(written < 64 << 20, "{written}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_broken_and_says_no_more() {
    let world = world();
    for (what, answer) in [
        ("closes", String::new()),
        ("speaks SSH", "SSH-2.0-OpenSSH_9.6\r\n".into()),
        ("has an endless head", format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 << 10))),
        ("has two framings", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("has half a head", "HTTP/1.1 200 OK\r\ncontent-le".into()),
        ("switches", "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".into()),
    ] {
        let receiver = world.saying(answer).await;
        let sent = world.send(&delivery(&receiver.url("/"))).await;
        assert_eq!(sent.attempt.ended, Ended::Failure(Failure::Broken), "{what}: {}", sent.diagnostic);
        assert_eq!(
            (receiver.connections(), seen(&sent).4),
            (1, "the webhook's receiver broke off, or did not answer in HTTP".into()),
            "{what}"
        );
    }
    // After its head a receiver may do what it likes.
    let receiver = world.saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab").await;
    let sent = world.send(&delivery(&receiver.url("/"))).await;
    assert_eq!((sent.outcome, sent.attempt.bytes), (Outcome::Delivered, 2));
}

#[tokio::test]
async fn nothing_that_is_kept_or_logged_holds_a_secret_or_a_body() {
    let world = world();
    for answer in ["HTTP/1.1 500 body-of-the-answer\r\ncontent-length: 4\r\n\r\nleak", "leak\r\n\r\n", ""] {
        let receiver = world.saying(answer).await;
        let delivery = delivery(&receiver.url("/path-token?query-token"));
        let sent = world.send(&delivery).await;
        let shown = format!("{sent:?} {} {:?} {}", serde_json::to_string(&sent.attempt).unwrap(), sent.error(), sent.diagnostic);
        let secret = delivery.secrets.current.reveal();
        for kept_back in ["leak", "body-of", "job.succeeded", "path-token", "query-token", secret.trim_start_matches("whsec_")] {
            assert!(!shown.contains(kept_back), "{kept_back}: {shown}");
        }
    }
}
