//! A multipart upload that is completed, or aborted in the background when it is dropped before.
//!
//! Invariant: whoever began an upload ends it, and only a completed one is visible.

use std::time::Duration;

use bytes::Bytes;
use object_store::{MultipartUpload, UploadPart};
use plinth_runtime::{OnEnd, TaskGroup};

use super::within;
use crate::objects::ObjectsError;

/// The size of a part in bytes; S3 wants at least 5 MiB. What fits into one part is put as a whole.
const PART: u64 = 8 << 20;
/// The largest part we keep in memory.
const MAX_PART: u64 = 128 << 20;
/// How many parts S3 allows.
const MAX_PARTS: u64 = 10_000;

/// How large the parts of an object are; `None` when it is put as a whole.
///
/// # Errors
/// When the object would need parts that are too large to be kept in memory.
pub(super) fn part_size(length: u64) -> Result<Option<usize>, ObjectsError> {
    if length <= PART {
        return Ok(None);
    }
    let size = length.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART);
    if size > MAX_PART {
        let why = format!("an object of {length} bytes is too large; {} is the most", MAX_PART.saturating_mul(MAX_PARTS));
        return Err(ObjectsError::Unavailable { operation: "put", source: why.into() });
    }
    Ok(usize::try_from(size).ok())
}

/// An upload that somebody must end.
pub(super) struct Multipart {
    /// `None` once it was completed.
    upload: Option<Box<dyn MultipartUpload>>,
    on_its_way: Option<UploadPart>,
    limit: Duration,
    aborts: TaskGroup,
}

impl Multipart {
    pub(super) fn new(upload: Box<dyn MultipartUpload>, limit: Duration, aborts: TaskGroup) -> Self {
        Self { upload: Some(upload), on_its_way: None, limit, aborts }
    }

    /// Sends the next part.
    pub(super) async fn send(&mut self, part: Bytes) -> Result<(), ObjectsError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let part = self.on_its_way.insert(upload.put_part(part.into()));
        let sent = within(self.limit, "put", part).await;
        self.on_its_way = None;
        sent
    }

    /// Makes the object visible.
    pub(super) async fn complete(mut self) -> Result<(), ObjectsError> {
        if let Some(upload) = &mut self.upload {
            within(self.limit, "put", upload.complete()).await?;
            self.upload = None;
        }
        Ok(())
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let (on_its_way, limit) = (self.on_its_way.take(), self.limit);
        let abort = async move {
            // A part that arrives after the abort would stay, so let it arrive before.
            if let Some(part) = on_its_way {
                let _ = within(limit, "put", part).await;
            }
            if let Err(error) = within(limit, "abort", upload.abort()).await {
                tracing::warn!(%error, "parts of an upload that was given up may be left; a lifecycle rule of the bucket removes them");
            }
        };
        // Without a runtime the process is ending anyway.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.aborts.spawn("abort", OnEnd::Ignore, abort);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_and_fit_into_memory() {
        assert_eq!(part_size(0).unwrap(), None);
        assert_eq!(part_size(PART).unwrap(), None);
        assert_eq!(part_size(PART + 1).unwrap(), Some(8 << 20));
        for length in [PART + 1, 1 << 30, 100 << 30, 1 << 40, MAX_PART * MAX_PARTS] {
            let size = part_size(length).unwrap().unwrap() as u64;
            assert!((PART..=MAX_PART).contains(&size) && length.div_ceil(size) <= MAX_PARTS, "{length}");
        }
        assert!(part_size(MAX_PART * MAX_PARTS + 1).is_err());
        assert!(part_size(u64::MAX).is_err());
    }
}
