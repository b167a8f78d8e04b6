//! Both adapters against the conformance suite, and each against the faults of its own world.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use plinth_runtime::World;

use super::*;

mod files;
mod s3;

/// A body in one piece.
fn whole(content: &[u8]) -> ByteStream<'static> {
    let piece = Bytes::copy_from_slice(content);
    futures_util::stream::iter([Ok(piece)]).boxed()
}

async fn put(store: &dyn Objects, content: &[u8]) -> Result<PutOutcome, ObjectsError> {
    store.put(&Digest::of(content), content.len() as u64, whole(content)).await
}

async fn read(store: &dyn Objects, digest: &Digest) -> Vec<u8> {
    store.open(digest).await.unwrap().stream.try_collect::<Vec<_>>().await.unwrap().concat()
}

async fn open_url(url: ObjectsUrl) -> Arc<dyn Objects> {
    open(&ObjectsOptions::new(url), &World::real()).await.unwrap()
}
