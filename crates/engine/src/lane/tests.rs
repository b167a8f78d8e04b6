//! A lane against a runner made by hand, which says and writes what it likes.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::SystemClock;
use plinth_types::{DataType, Dim, Shape, SpanId, Tensor, TensorSpec, TraceContext, TraceId};
use tokio::sync::mpsc;

use super::*;
use crate::channel::packet::{self, MAX_PACKET, Packet};
use crate::channel::wire::{Answer, Execute, Payload, Refusal, Reply, Span, TensorHead};
use crate::region::{Mapping, PAGE, Region, Whole};
use crate::spec::ModelMetadata;

struct Rig {
    lane: Lane,
    ends: mpsc::Receiver<LaneEnd>,
    region: Arc<Region>,
    runner: Hand,
}

/// The other end of the lane.
struct Hand {
    socket: OwnedFd,
    region: Whole,
}

fn rig(region: u64) -> Rig {
    let spec = |name: &str, datatype, dims| TensorSpec::new(name, datatype, dims).unwrap();
    let metadata = ModelMetadata {
        platform: "hand".into(),
        inputs: vec![spec("x", DataType::Uint8, vec![Dim::Any, Dim::Any])],
        optional_inputs: vec![],
        outputs: vec![spec("x", DataType::Uint8, vec![Dim::Any, Dim::Any]), spec("t", DataType::Bytes, vec![Dim::Any])],
        engine: "hand".into(),
    };
    let region = Region::new(region).unwrap();
    let (socket, far) = packet::pair().unwrap();
    let (end, ends) = mpsc::channel(1);
    let wiring =
        Wiring { socket, region: region.clone(), metadata: Arc::new(metadata), clock: Arc::new(SystemClock), max_answer: 10 << 20, end };
    let lane = Lane::new(Shared::new(wiring).unwrap());
    let runner = Hand { socket: far, region: Mapping::whole(&region.fd()).unwrap().forever() };
    Rig { lane, ends, region, runner }
}

fn part(rows: u64, width: u64, fill: u8, outputs: &[&str]) -> Part {
    let bytes = vec![fill; usize::try_from(rows * width).unwrap()];
    let tensor = Tensor::new("x", DataType::Uint8, Shape::new(vec![rows, width]).unwrap(), bytes.into()).unwrap();
    Part { inputs: vec![tensor], outputs: outputs.iter().map(|name| (*name).to_owned()).collect(), trace: None }
}

fn batch(id: u64, parts: Vec<Part>) -> Batch {
    Batch { id, parts, batched: true, deadline: Duration::from_secs(5) }
}

impl Hand {
    /// Receives a batch and its payload, wherever that is.
    fn receive(&self) -> (Execute, Vec<u8>) {
        let mut buffer = vec![0; MAX_PACKET];
        let length = packet::receive(&self.socket, &mut buffer, true).unwrap();
        let Packet::Message(execute, payload) = packet::parse::<Execute>(&buffer[..length]).unwrap() else { panic!("a piece") };
        let mut payload = payload.to_vec();
        match execute.payload {
            Payload::Here => {}
            Payload::Region(span) => payload = self.region.slice(span.offset, span.length).unwrap().to_vec(),
            Payload::Pieces(length) => {
                while (payload.len() as u64) < length {
                    let n = packet::receive(&self.socket, &mut buffer, true).unwrap();
                    let Packet::Piece(bytes) = packet::parse::<Execute>(&buffer[..n]).unwrap() else { panic!("a message") };
                    payload.extend_from_slice(bytes);
                }
            }
        }
        (execute, payload)
    }

    fn reply(&self, reply: &Reply, payload: &[u8]) {
        let head = packet::head(reply).unwrap();
        packet::send(&self.socket, &[IoSlice::new(&head), IoSlice::new(payload)], false).unwrap();
    }

    fn echo(&self, execute: &Execute, payload: &[u8]) {
        self.reply(&answer(execute, payload.len() as u64, Payload::Here), payload);
    }
}

fn answer(execute: &Execute, length: u64, payload: Payload) -> Reply {
    let head = TensorHead { index: 0, shape: execute.inputs[0].shape.clone(), span: Span { offset: 0, length } };
    Reply::Answer(Answer { sequence: execute.sequence, timing: [1, 2, 3], outputs: vec![head], payload })
}

async fn broken(rig: &mut Rig, why: &str) {
    assert!(rig.lane.receiver.receive().await.is_none());
    assert!(rig.lane.receiver.receive().await.is_none(), "the end is the end");
    let end = rig.ends.try_recv().unwrap();
    assert!(matches!(&end, LaneEnd::Broken(text) if text.contains(why)), "{why}: {end:?}");
    assert!(matches!(rig.lane.sender.send(batch(9, vec![part(1, 1, 0, &["x"])])), Err(SendError::Ended(_))));
    assert_eq!(rig.lane.sender.outstanding(), 0, "what is lost is lost");
}

#[tokio::test]
async fn a_batch_goes_over_and_its_parts_come_back() {
    let mut rig = rig(1 << 20);
    let parts = vec![part(2, 3, 1, &["x"]), part(1, 3, 2, &["x"])];
    rig.lane.sender.send(batch(7, parts.clone())).unwrap();
    rig.lane.sender.send(batch(8, parts.clone())).unwrap();
    let Err(SendError::Busy(back)) = rig.lane.sender.send(batch(9, parts.clone())) else { panic!("two are enough") };
    assert_eq!((back.id, back.parts.len()), (9, 2));
    let (first, payload) = rig.runner.receive();
    assert_eq!((first.rows, payload.as_slice()), (Some(3), &[1, 1, 1, 1, 1, 1, 2, 2, 2][..]));
    rig.runner.echo(&first, &payload);
    let done = rig.lane.receiver.receive().await.unwrap();
    assert_eq!((done.id, done.timing.infer), (7, Duration::from_nanos(2)));
    let got = done.outcome.unwrap();
    assert_eq!((&got[0], &got[1]), (&parts[0].inputs, &parts[1].inputs));
    assert_eq!(rig.lane.sender.outstanding(), 1);
    let (second, _) = rig.runner.receive();
    rig.runner.reply(&Reply::Refused { sequence: second.sequence, refusal: Refusal::Expired }, &[]);
    let done = rig.lane.receiver.receive().await.unwrap();
    assert!(matches!((done.id, done.outcome), (8, Err(RunnerError::Deadline("queued")))));
}

#[tokio::test]
async fn recorded_requests_are_named_to_the_runner_and_others_cost_a_byte() {
    let rig = rig(1 << 20);
    let trace = TraceContext::begin(TraceId::new([7; 16]).unwrap(), SpanId::new([9; 8]).unwrap(), true);
    let recorded = Part { trace: Some(trace), ..part(1, 3, 1, &["x"]) };
    rig.lane.sender.send(batch(7, vec![part(2, 3, 1, &["x"]), recorded])).unwrap();
    let (execute, _) = rig.runner.receive();
    assert_eq!(execute.traces, [trace]);
    rig.lane.sender.send(batch(8, vec![part(2, 3, 1, &["x"])])).unwrap();
    let (plain, _) = rig.runner.receive();
    assert!(plain.traces.is_empty());
    let length = |execute: &Execute| packet::head(execute).unwrap().len();
    assert!(length(&execute) <= length(&plain).next_multiple_of(packet::ALIGNMENT) + 32);
}

#[tokio::test]
async fn a_batch_that_does_not_fit_comes_back() {
    let rig = rig(1 << 20);
    let parts = vec![part(1, 3, 1, &["x"]), part(1, 4, 2, &["x"])];
    let Err(SendError::Invalid { batch, part: Some(1), text }) = rig.lane.sender.send(batch(7, parts)) else { panic!("it was sent") };
    assert!(batch.parts.len() == 2 && text.contains("another shape"), "{text}");
    assert_eq!(rig.lane.sender.outstanding(), 0);
}

#[tokio::test]
async fn large_bytes_go_through_the_region_and_come_back_to_it() {
    let mut rig = rig(1 << 20);
    rig.lane.sender.send(batch(1, vec![part(2, 100_000, 5, &["x"])])).unwrap();
    let (execute, payload) = rig.runner.receive();
    assert!(matches!(execute.payload, Payload::Region(_)) && execute.place.is_none(), "nothing is known of the output");
    // Unknown, so it comes in pieces, and is remembered.
    rig.runner.reply(&answer(&execute, 200_000, Payload::Pieces(200_000)), &[]);
    for piece in payload.chunks(packet::PIECE) {
        packet::send(&rig.runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(piece)], true).unwrap();
    }
    let sent = part(2, 100_000, 5, &["x"]).inputs;
    assert_eq!(rig.lane.receiver.receive().await.unwrap().outcome.unwrap(), vec![sent.clone()]);

    rig.lane.sender.send(batch(2, vec![part(2, 100_000, 5, &["x"])])).unwrap();
    let (execute, payload) = rig.runner.receive();
    let place = execute.place.unwrap();
    assert!(place.length >= 200_000, "learned");
    rig.runner.region.output_place(place.offset, place.length, None).unwrap().put(&payload);
    rig.runner.reply(&answer(&execute, 200_000, Payload::Region(place)), &[]);
    let got = rig.lane.receiver.receive().await.unwrap().outcome.unwrap();
    assert_eq!(got, vec![sent]);
    let rest = (1 << 20) - place.length;
    assert!(rig.region.allocate(rest + 1).is_none(), "the tensor holds its area");
    drop(got);
    assert!(rig.region.allocate(1 << 20).is_some(), "and nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_region_costs_time_and_nothing_else() {
    let mut rig = rig(PAGE);
    let large = part(3, 500_000, 9, &["x"]);
    rig.lane.sender.send(batch(1, vec![large.clone()])).unwrap();
    let Rig { lane: Lane { receiver, .. }, runner, .. } = &mut rig;
    let runner: &Hand = runner;
    // The socket does not take all at once: receiving writes the rest.
    let done = std::thread::scope(|scope| {
        let hand = scope.spawn(|| {
            let (execute, payload) = runner.receive();
            assert!(matches!(execute.payload, Payload::Pieces(1_500_000)));
            runner.reply(&answer(&execute, 1_500_000, Payload::Pieces(1_500_000)), &[]);
            for piece in payload.chunks(packet::PIECE) {
                packet::send(&runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(piece)], true).unwrap();
            }
        });
        let done = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(receiver.receive()));
        hand.join().unwrap();
        done
    });
    assert_eq!(done.unwrap().outcome.unwrap(), vec![large.inputs]);
}

/// Answers at once, late, and after silence, small and too large for the socket: whichever way the receiver waits just then.
#[tokio::test(flavor = "multi_thread")]
async fn looking_and_sleeping_take_turns() {
    let rig = rig(PAGE);
    let Rig { mut lane, runner, ends: _ends, .. } = rig;
    let hand = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            let (execute, payload) = runner.receive();
            if round % 20 >= 10 {
                std::thread::sleep(Duration::from_millis(1));
            }
            if payload.len() as u64 <= INLINE {
                runner.echo(&execute, &payload);
                continue;
            }
            runner.reply(&answer(&execute, payload.len() as u64, Payload::Pieces(payload.len() as u64)), &[]);
            for piece in payload.chunks(packet::PIECE) {
                packet::send(&runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(piece)], true).unwrap();
            }
        }
    });
    for round in 0..ROUNDS {
        let sent = part(1, if round % 7 == 3 { 600_000 } else { 30 }, 5, &["x"]);
        if round % 30 == 29 {
            // Nothing is on its way: the receiver waits for a batch, and then for its answer.
            assert!(tokio::time::timeout(Duration::from_millis(120), lane.receiver.receive()).await.is_err());
        }
        lane.sender.send(batch(round, vec![sent.clone()])).unwrap();
        let done = tokio::time::timeout(Duration::from_secs(5), lane.receiver.receive()).await.unwrap().unwrap();
        assert_eq!((done.id, done.outcome.unwrap()), (round, vec![sent.inputs]));
    }
    hand.join().unwrap();
    assert!(lane.receiver.receive().await.is_none());
}

/// As many as it takes to give looking up, and to try again.
const ROUNDS: u64 = 120;

#[tokio::test]
async fn nothing_is_answered_twice_or_unasked() {
    let mut twice = rig(1 << 20);
    twice.lane.sender.send(batch(1, vec![part(1, 3, 1, &["x"])])).unwrap();
    let (execute, payload) = twice.runner.receive();
    twice.runner.echo(&execute, &payload);
    twice.runner.echo(&execute, &payload);
    assert!(twice.lane.receiver.receive().await.unwrap().outcome.is_ok());
    broken(&mut twice, "nobody waits for").await;

    let mut early = rig(1 << 20);
    for id in 1..3 {
        early.lane.sender.send(batch(id, vec![part(1, 3, 1, &["x"])])).unwrap();
    }
    let (_, second) = (early.runner.receive(), early.runner.receive());
    early.runner.echo(&second.0, &second.1);
    broken(&mut early, "nobody waits for").await;

    let mut unasked = rig(1 << 20);
    unasked.runner.reply(&Reply::Refused { sequence: 1, refusal: Refusal::Expired }, &[]);
    broken(&mut unasked, "nobody waits for").await;
}

#[tokio::test]
async fn lies_in_answers_are_the_last_words() {
    type Lie = fn(&Execute) -> (Reply, Vec<u8>);
    macro_rules! lie {
        ($change:expr) => {
            |execute| {
                let Reply::Answer(mut answer) = answer(execute, 3, Payload::Here) else { panic!("no answer") };
                let change: fn(&mut Answer) = $change;
                change(&mut answer);
                (Reply::Answer(answer), vec![1; 3])
            }
        };
    }
    let lies: [(&str, Lie); 10] = [
        ("other outputs", lie!(|a| a.outputs[0].index = 1)),
        ("other outputs", lie!(|a| a.outputs[0].index = u16::MAX)),
        ("other outputs", lie!(|a| a.outputs.clear())),
        ("first dimension", lie!(|a| a.outputs[0].shape = Shape::new(vec![3, 1]).unwrap())),
        ("ask for", lie!(|a| a.outputs[0].shape = Shape::new(vec![1, 4]).unwrap())),
        ("ask for", lie!(|a| a.outputs[0].span.length = 2)),
        ("add up", lie!(|a| a.outputs[0].span.offset = 1)),
        ("add up", lie!(|a| a.payload = Payload::Region(Span { offset: 0, length: 4096 }))),
        ("at most", |execute| (answer(execute, 3, Payload::Pieces(u64::MAX)), vec![])),
        ("nobody waits for", lie!(|a| a.sequence = u64::MAX)),
    ];
    for (why, lie) in lies {
        let mut rig = rig(1 << 20);
        rig.lane.sender.send(batch(1, vec![part(1, 3, 1, &["x"])])).unwrap();
        let (execute, _) = rig.runner.receive();
        let (reply, payload) = lie(&execute);
        let payload = if matches!(&reply, Reply::Answer(a) if a.payload == Payload::Here) { payload } else { vec![] };
        rig.runner.reply(&reply, &payload);
        broken(&mut rig, why).await;
    }
}

#[tokio::test]
async fn lies_in_packets_are_the_last_words() {
    for (why, bytes) in [
        ("header of", vec![255; 64]),
        ("inside a frame", vec![1]),
        ("unreadable", vec![1, 0, 0, 0, 255, 255]),
        ("nobody waits for", vec![0; 40]),
        ("too long", vec![0; MAX_PACKET + 1]),
    ] {
        let mut rig = rig(1 << 20);
        rig.lane.sender.send(batch(1, vec![part(1, 3, 1, &["x"])])).unwrap();
        packet::send(&rig.runner.socket, &[IoSlice::new(&bytes)], false).unwrap();
        broken(&mut rig, why).await;
    }
    let mut pieces = rig(1 << 20);
    pieces.lane.sender.send(batch(1, vec![part(1, 3, 1, &["x"])])).unwrap();
    let (execute, _) = pieces.runner.receive();
    pieces.runner.reply(&answer(&execute, 3, Payload::Pieces(3)), &[]);
    packet::send(&pieces.runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(b"four")], false).unwrap();
    broken(&mut pieces, "add up").await;
}

/// A runner that writes into the region all the time, and claims to have put texts there.
#[tokio::test]
async fn texts_are_checked_and_used_in_one_private_copy() {
    let mut rig = rig(4 << 20);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let elements = 40_000u64;
    // An answer in pieces, so that a place is given the next time.
    let texts = vec![0; usize::try_from(elements * 4).unwrap()];
    let mut outcomes = [0; 2];
    for round in 0..200 {
        if round > 0 {
            rig = self::rig(4 << 20);
        }
        for id in 0..2 {
            rig.lane.sender.send(batch(id, vec![part(elements, 1, 0, &["t"])])).unwrap();
            let (execute, _) = rig.runner.receive();
            let head = |payload| {
                let shape = Shape::new(vec![elements]).unwrap();
                let head = TensorHead { index: 1, shape, span: Span { offset: 0, length: elements * 4 } };
                Reply::Answer(Answer { sequence: execute.sequence, timing: [0; 3], outputs: vec![head], payload })
            };
            let Some(place) = execute.place else {
                rig.runner.reply(&head(Payload::Pieces(elements * 4)), &[]);
                for piece in texts.chunks(packet::PIECE) {
                    packet::send(&rig.runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(piece)], true).unwrap();
                }
                assert!(rig.lane.receiver.receive().await.unwrap().outcome.is_ok());
                continue;
            };
            let (start, _) = rig.runner.region.place(place.offset, place.length).unwrap();
            let start = start.expose_provenance();
            let (over, length) = (stop.clone(), elements * 4);
            let scribbler = std::thread::spawn(move || {
                let mut value = 0u8;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    value ^= 4;
                    for at in (0..length).step_by(4 * 997) {
                        let at = start + usize::try_from(at).unwrap();
                        #[allow(unsafe_code, reason = "that is the hostile runner")]
                        // SAFETY: mapped writable and never unmapped; the other side must bear it.
                        unsafe {
                            std::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(value);
                        }
                    }
                }
            });
            rig.runner.reply(&head(Payload::Region(place)), &[]);
            // Either outcome is right. Reading a length twice would be neither, but a panic or a tensor that is none.
            match rig.lane.receiver.receive().await {
                Some(done) => {
                    let tensor = &done.outcome.unwrap()[0][0];
                    let bytes: usize = tensor.byte_elements().map(|element| element.len() + 4).sum();
                    assert_eq!((bytes, tensor.byte_elements().count() as u64), (tensor.data().len(), elements));
                    let before = tensor.data().clone();
                    tokio::time::sleep(Duration::from_micros(50)).await;
                    assert_eq!(before, tensor.data(), "nobody can change it any more");
                    outcomes[0] += 1;
                }
                None => outcomes[1] += 1,
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            scribbler.join().unwrap();
            stop.store(false, std::sync::atomic::Ordering::Relaxed);
        }
    }
    assert_eq!(outcomes.iter().sum::<i32>(), 200);
}

#[tokio::test]
async fn what_was_answered_before_the_end_is_received() {
    let rig = rig(1 << 20);
    for id in 1..3 {
        rig.lane.sender.send(batch(id, vec![part(1, 3, 1, &["x"])])).unwrap();
    }
    let (execute, payload) = rig.runner.receive();
    rig.runner.echo(&execute, &payload);
    // The second batch is still unread in its socket.
    let Rig { mut lane, mut ends, runner, .. } = rig;
    drop(runner);
    assert_eq!(lane.receiver.receive().await.unwrap().id, 1);
    assert!(lane.receiver.receive().await.is_none());
    assert!(matches!(ends.try_recv(), Ok(LaneEnd::Closed)));
}

#[tokio::test]
async fn receiving_can_be_dropped_at_any_time() {
    let mut rig = rig(1 << 20);
    rig.lane.sender.send(batch(1, vec![part(1, 3, 1, &["x"])])).unwrap();
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(1), rig.lane.receiver.receive()).await;
        assert!(waited.is_err());
    }
    let (execute, payload) = rig.runner.receive();
    rig.runner.reply(&answer(&execute, 3, Payload::Pieces(3)), &[]);
    packet::send(&rig.runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(&payload[..1])], false).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), rig.lane.receiver.receive()).await.is_err());
    packet::send(&rig.runner.socket, &[IoSlice::new(&packet::piece()), IoSlice::new(&payload[1..])], false).unwrap();
    assert_eq!(rig.lane.receiver.receive().await.unwrap().outcome.unwrap(), vec![part(1, 3, 1, &[]).inputs]);
}
