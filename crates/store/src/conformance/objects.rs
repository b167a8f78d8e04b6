//! What every adapter of [`Objects`] must keep.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use plinth_types::Digest;

use crate::objects::{ByteStream, ObjectInfo, Objects, ObjectsError, PutOutcome};

type Store = Arc<dyn Objects>;

/// Larger than what an adapter does in one go.
const LARGE: usize = (9 << 20) + 12_345;

/// Runs the whole suite. `make` gives a fresh, empty object store each time.
///
/// # Panics
/// When the adapter does not keep a promise.
pub async fn objects<Make, Made>(make: Make)
where
    Make: Fn() -> Made,
    Made: Future<Output = Store>,
{
    what_is_put_is_there(make().await).await;
    nothing_is_an_object_too(make().await).await;
    a_second_put_needs_no_body(make().await).await;
    large_bodies_pass_in_odd_pieces(make().await).await;
    wrong_bodies_leave_nothing(make().await).await;
    a_body_that_is_too_long_is_not_read_to_its_end(make().await).await;
    a_dropped_put_leaves_nothing(make().await).await;
    writers_of_one_digest_do_not_disturb_each_other(make().await).await;
    deletes_delete(make().await).await;
    lists_are_complete(make().await).await;
    assert!(!make().await.describe().is_empty());
}

/// Bytes without a pattern that a part size could hide in.
fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut content = Vec::with_capacity(length + 8);
    while content.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(length);
    content.into()
}

/// A body in pieces of this many bytes.
fn body(content: &Bytes, piece: usize) -> ByteStream<'static> {
    let content = content.clone();
    let pieces = (0..content.len()).step_by(piece.max(1)).map(move |at| Ok(content.slice(at..content.len().min(at + piece))));
    stream::iter(pieces.collect::<Vec<_>>()).boxed()
}

fn broken(content: &Bytes) -> ByteStream<'static> {
    body(content, 1000).chain(stream::iter([Err(io::Error::other("the sender went away"))])).boxed()
}

async fn put(store: &Store, content: &Bytes) -> Digest {
    let digest = Digest::of(content);
    let outcome = store.put(&digest, content.len() as u64, body(content, 64 << 10)).await.unwrap();
    assert_eq!(outcome, PutOutcome::Stored);
    digest
}

async fn read(store: &Store, digest: &Digest) -> Bytes {
    let reader = store.open(digest).await.unwrap();
    let content = reader.stream.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(content.len() as u64, reader.size);
    content.into()
}

async fn listed(store: &Store) -> BTreeMap<Digest, ObjectInfo> {
    let all: Vec<_> = store.list().try_collect().await.unwrap();
    let by_digest: BTreeMap<_, _> = all.iter().map(|info| (info.digest, *info)).collect();
    assert_eq!(all.len(), by_digest.len(), "an object is listed twice");
    by_digest
}

async fn assert_absent(store: &Store, digest: &Digest) {
    assert_eq!(store.info(digest).await.unwrap(), None);
    let opened = store.open(digest).await.err();
    assert!(matches!(opened, Some(ObjectsError::NotFound(found)) if found == *digest), "{opened:?}");
    assert!(!listed(store).await.contains_key(digest));
}

async fn what_is_put_is_there(store: Store) {
    let content = bytes(100_000, 1);
    let digest = Digest::of(&content);
    assert_absent(&store, &digest).await;
    put(&store, &content).await;
    let info = store.info(&digest).await.unwrap().unwrap();
    assert_eq!((info.digest, info.size), (digest, 100_000));
    assert!(info.stored_at.millis() > 1_600_000_000_000, "stored at {}", info.stored_at);
    assert_eq!(read(&store, &digest).await, content);
    assert_eq!(read(&store, &digest).await, content, "reading twice");
    assert_absent(&store, &Digest::of(b"something else")).await;
}

async fn nothing_is_an_object_too(store: Store) {
    let digest = put(&store, &Bytes::new()).await;
    assert_eq!(store.info(&digest).await.unwrap().unwrap().size, 0);
    assert_eq!(read(&store, &digest).await, Bytes::new());
    // Empty pieces are no end.
    let content = bytes(10, 2);
    let pieces = [Bytes::new(), content.slice(..5), Bytes::new(), content.slice(5..), Bytes::new()];
    store.put(&Digest::of(&content), 10, stream::iter(pieces.map(Ok)).boxed()).await.unwrap();
    assert_eq!(read(&store, &Digest::of(&content)).await, content);
}

async fn a_second_put_needs_no_body(store: Store) {
    let content = bytes(5000, 3);
    let digest = put(&store, &content).await;
    for again in [body(&content, 100), stream::pending().boxed()] {
        assert_eq!(store.put(&digest, 5000, again).await.unwrap(), PutOutcome::AlreadyThere);
    }
    assert_eq!(read(&store, &digest).await, content);
}

async fn large_bodies_pass_in_odd_pieces(store: Store) {
    // Sizes around the usual blocks, in pieces that are tiny, odd, or the whole.
    let (block, whole) = (8 << 20, 3 * LARGE);
    for (seed, length, piece) in [(1, block, 999_999), (2, block + 1, block), (3, 2 * block, block / 2), (4, 70_001, 7), (5, whole, whole)]
    {
        let content = bytes(length, seed);
        let digest = Digest::of(&content);
        store.put(&digest, length as u64, body(&content, piece)).await.unwrap();
        assert!(read(&store, &digest).await == content, "{length} bytes in pieces of {piece} came back changed");
    }
}

async fn wrong_bodies_leave_nothing(store: Store) {
    for size in [1000, LARGE] {
        let (content, length) = (bytes(size, 4), size as u64);
        let digest = Digest::of(&content);
        let mut altered = content.to_vec();
        altered[size - 1] ^= 1;
        let altered = Bytes::from(altered);

        let wrong = store.put(&digest, length, body(&altered, 65_537)).await.unwrap_err();
        let actual = Digest::of(&altered);
        let names_both = matches!(wrong, ObjectsError::DigestMismatch { expected, actual: a } if expected == digest && a == actual);
        assert!(names_both, "{wrong:?}");
        let short = store.put(&digest, length, body(&content.slice(..size - 1), 65_537)).await.unwrap_err();
        let counts = matches!(short, ObjectsError::LengthMismatch { expected, received } if expected == length && received == length - 1);
        assert!(counts, "{short:?}");
        let empty = store.put(&digest, length, body(&Bytes::new(), 1)).await.unwrap_err();
        assert!(matches!(empty, ObjectsError::LengthMismatch { received: 0, .. }), "{empty:?}");
        let long = store.put(&digest, length - 1, body(&content, 65_537)).await.unwrap_err();
        assert!(matches!(long, ObjectsError::LengthMismatch { expected, .. } if expected == length - 1), "{long:?}");
        let failing = store.put(&digest, length, broken(&content.slice(..size / 2))).await.unwrap_err();
        assert!(matches!(failing, ObjectsError::Body(_)), "{failing:?}");
        let at_the_end = store.put(&digest, length, broken(&content)).await.unwrap_err();
        assert!(matches!(at_the_end, ObjectsError::Body(_)), "{at_the_end:?}");

        assert_absent(&store, &digest).await;
        assert_absent(&store, &actual).await;
        // And the right body still passes.
        put(&store, &content).await;
        store.delete(&digest).await.unwrap();
    }
}

async fn a_body_that_is_too_long_is_not_read_to_its_end(store: Store) {
    let taken = AtomicUsize::new(0);
    let endless = stream::repeat_with(|| {
        taken.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(&[7; 1000]))
    });
    let error = store.put(&Digest::of(b"x"), 10_500, endless.boxed()).await.unwrap_err();
    assert!(matches!(error, ObjectsError::LengthMismatch { expected: 10_500, received: 11_000 }), "{error:?}");
    assert_eq!(taken.load(Ordering::Relaxed), 11, "read on past the end");
}

async fn a_dropped_put_leaves_nothing(store: Store) {
    let content = bytes(LARGE, 5);
    let digest = Digest::of(&content);
    // Most of the body comes, then nothing.
    let (stalled, wait) = tokio::sync::oneshot::channel::<()>();
    let stall = stream::once(async move {
        let _ = stalled.send(());
        std::future::pending::<io::Result<Bytes>>().await
    });
    let stuck = body(&content.slice(..LARGE - 1000), 100_003).chain(stall).boxed();
    let put_stuck = store.put(&digest, LARGE as u64, stuck);
    tokio::select! {
        result = put_stuck => panic!("a stalled body was accepted: {result:?}"),
        stalled = wait => stalled.unwrap(),
    }
    assert_absent(&store, &digest).await;
    put(&store, &content).await;
    assert!(read(&store, &digest).await == content);
}

async fn writers_of_one_digest_do_not_disturb_each_other(store: Store) {
    for size in [3000, LARGE] {
        let content = bytes(size, 6);
        let digest = Digest::of(&content);
        let mut altered = content.to_vec();
        altered[0] ^= 1;
        let altered = Bytes::from(altered);
        // Four honest writers and one whose bytes are wrong.
        let writers = (0..5).map(|i| {
            let sent = if i % 3 == 2 { &altered } else { &content };
            store.put(&digest, size as u64, body(sent, 10_007 + i * 1000))
        });
        let outcomes = join_all(writers).await;
        for (i, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(PutOutcome::AlreadyThere) => {}
                Ok(PutOutcome::Stored) => assert_ne!(i % 3, 2, "wrong bytes were stored"),
                Err(ObjectsError::DigestMismatch { .. }) => assert_eq!(i % 3, 2),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Ok(PutOutcome::Stored))));
        assert!(read(&store, &digest).await == content);
    }
    assert_eq!(listed(&store).await.len(), 2);
}

async fn deletes_delete(store: Store) {
    let (kept, gone) = (put(&store, &bytes(100, 7)).await, put(&store, &bytes(200, 8)).await);
    assert!(store.delete(&gone).await.unwrap());
    assert_absent(&store, &gone).await;
    assert!(!store.delete(&gone).await.unwrap(), "deleted twice");
    assert_eq!(read(&store, &kept).await.len(), 100);
    put(&store, &bytes(200, 8)).await;
    assert_eq!(read(&store, &gone).await.len(), 200);
}

async fn lists_are_complete(store: Store) {
    assert!(listed(&store).await.is_empty());
    let mut want = BTreeMap::new();
    for i in 0..50_usize {
        let content = bytes(i * 10, 1000 + i as u64);
        want.insert(put(&store, &content).await, content.len() as u64);
    }
    let found: BTreeMap<_, _> = listed(&store).await.into_iter().map(|(digest, info)| (digest, info.size)).collect();
    assert_eq!(found, want);
}
