//! Deliveries to receivers that mean well.

use tokio::sync::{mpsc, watch};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Keeps what it was sent.
async fn recording(world: &World, answer: &'static str) -> (Receiver, mpsc::Receiver<Received>) {
    let (send, received) = mpsc::channel(16);
    let receiver = world
        .receiver(move |mut stream| {
            let send = send.clone();
            async move {
                let request = read_request(&mut stream).await;
                let _ = send.send(request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
    (receiver, received)
}

#[tokio::test]
async fn a_delivery_arrives_and_verifies() {
    let world = world();
    let (receiver, mut received) = recording(&world, OK).await;
    let delivery = delivery(&receiver.url("/hook?token=t"));
    let sent = world.send(&delivery).await;
    assert_eq!((sent.outcome, sent.attempt.ended, sent.attempt.bytes), (Outcome::Delivered, Ended::Status(200), 2));
    assert!(sent.error().is_none() && sent.diagnostic.is_empty() && sent.is_attempt());
    let request = within("the request", received.recv()).await.unwrap();
    assert_eq!(request.line, "POST /hook?token=t HTTP/1.1");
    assert_eq!(request.headers["host"], receiver.address.to_string());
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.body, delivery.body);
    let verified = verify(delivery.secrets.iter(), &request.headers, &request.body, sent.attempt.at);
    assert_eq!(verified.as_ref().map(MessageId::as_str), Ok("msg_1"));
    assert_eq!(verify([&secret(2)], &request.headers, &request.body, sent.attempt.at), Err(VerifyError::Signature));
    assert_eq!(world.sender.hosts(), 0);
}

#[tokio::test]
async fn during_a_rotation_both_secrets_verify() {
    let world = world();
    let (receiver, mut received) = recording(&world, OK).await;
    let mut delivery = delivery(&receiver.url("/"));
    delivery.secrets = delivery.secrets.rotated(secret(2));
    world.send(&delivery).await;
    let request = within("the request", received.recv()).await.unwrap();
    let now = SystemClock.now();
    for known in [secret(1), secret(2)] {
        assert!(verify([&known], &request.headers, &request.body, now).is_ok());
    }
}

#[tokio::test]
async fn each_attempt_has_a_connection_of_its_own() {
    let world = world();
    let (receiver, mut received) = recording(&world, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n").await;
    for _ in 0..3 {
        world.send(&delivery(&receiver.url("/"))).await;
        within("the request", received.recv()).await.unwrap();
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = world();
    let (target, mut reached) = recording(&world, OK).await;
    for (status, location) in [(301, target.url("/")), (302, "http://169.254.169.254/".into()), (307, target.url("/")), (308, "/".into())] {
        let answer = format!("HTTP/1.1 {status} x\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let receiver = world.saying(answer).await;
        let sent = world.send(&delivery(&receiver.url("/"))).await;
        assert_eq!((sent.outcome, sent.attempt.ended), (Outcome::Retry { after: None }, Ended::Status(status)));
        assert!(sent.error().unwrap().public_text().contains("redirects are not followed"));
        assert_eq!(receiver.connections(), 1);
    }
    assert_eq!(target.connections(), 0);
    assert!(reached.try_recv().is_err());
}

#[tokio::test]
async fn a_failing_receiver_is_tried_again_and_a_gone_one_is_not() {
    let world = world();
    for (head, outcome) in [
        ("500 x", Outcome::Retry { after: None }),
        ("404 x", Outcome::Retry { after: None }),
        ("503 x\r\nretry-after: 120", Outcome::Retry { after: Some(Duration::from_secs(120)) }),
        ("429 x\r\nretry-after: 86400", Outcome::Retry { after: Some(LONGEST_WISH) }),
        ("410 x", Outcome::Gone),
        ("204 x", Outcome::Delivered),
    ] {
        let receiver = world.saying(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n")).await;
        let sent = world.send(&delivery(&receiver.url("/"))).await;
        assert_eq!(sent.outcome, outcome, "{head}");
        let text = sent.error().map(|error| error.public_text().to_owned());
        assert_eq!(text, (outcome != Outcome::Delivered).then(|| format!("the webhook's receiver answered {}", &head[..3])));
        if let Outcome::Retry { after } = sent.outcome {
            let wait = next_wait(0, Duration::from_secs(1), after, u64::MAX).unwrap();
            assert!(wait >= after.unwrap_or_default() && wait <= after.unwrap_or_default() + Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn a_host_gets_two_at_a_time_and_a_busy_one_holds_up_nobody() {
    let world = world();
    let (go, gate) = watch::channel(false);
    let (arrived, mut arrivals) = mpsc::channel(4);
    let slow = world
        .receiver(move |mut stream| {
            let (mut gate, arrived) = (gate.clone(), arrived.clone());
            async move {
                read_request(&mut stream).await;
                let _ = arrived.send(()).await;
                let _ = gate.wait_for(|open| *open).await;
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        })
        .await;
    let delivery = delivery(&slow.url("/"));
    let both = Box::pin(async { tokio::join!(world.send(&delivery), world.send(&delivery)) });
    let third = async {
        for _ in 0..2 {
            arrivals.recv().await.unwrap();
        }
        let third = world.send(&delivery).await;
        assert_eq!(third.outcome, Outcome::Retry { after: Some(Duration::from_secs(1)) });
        assert_eq!((third.attempt.ended, third.is_attempt()), (Ended::Failure(Failure::Busy), false));
        go.send(true).unwrap();
    };
    let ((first, second), ()) = within("all three", async { tokio::join!(both, third) }).await;
    assert_eq!((first.outcome, second.outcome, slow.connections()), (Outcome::Delivered, Outcome::Delivered, 2));
    assert_eq!(world.sender.hosts(), 0);
    assert_eq!(world.send(&delivery).await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn who_gives_up_a_delivery_gives_its_slot_back() {
    let world = world();
    let (arrived, mut arrivals) = mpsc::channel(4);
    let silent = world
        .receiver(move |mut stream| {
            let arrived = arrived.clone();
            async move {
                read_request(&mut stream).await;
                // The end of the connection, when the delivery is dropped.
                let _ = arrived.send(()).await;
                let end = stream.read(&mut [0]).await;
                assert!(matches!(end, Ok(0) | Err(_)));
                let _ = arrived.send(()).await;
            }
        })
        .await;
    let delivery = delivery(&silent.url("/"));
    for _ in 0..3 {
        within("the request", async {
            tokio::select! {
                _ = world.sender.send(&delivery) => panic!("nothing was answered"),
                _ = arrivals.recv() => {}
            }
        })
        .await;
        assert_eq!(world.sender.hosts(), 0);
        within("the end of the connection", arrivals.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn the_largest_body_is_sent_and_a_larger_one_is_refused_before() {
    let world = world();
    let (receiver, mut received) = recording(&world, OK).await;
    let of = |size| {
        let Delivery { address, secrets, .. } = delivery(&receiver.url("/"));
        Delivery::new("large".parse().unwrap(), address, secrets, vec![b' '; size].into())
    };
    assert_eq!(of(MAX_BODY + 1).err(), Some(BodyTooLarge));
    assert_eq!(world.send(&of(MAX_BODY).unwrap()).await.outcome, Outcome::Delivered);
    assert_eq!(within("the request", received.recv()).await.unwrap().body.len(), MAX_BODY);
}
