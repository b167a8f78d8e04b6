//! From a directory to a version: ask what the node lacks, upload that, register.
//!
//! Invariant: the version is registered only when every file was, at the end, still the one that was hashed; so a
//! version is one moment of the directory, not a mixture of two. A push that breaks off leaves no version, only blobs
//! that the next push finds or garbage collection removes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use plinth_types::{Digest, ModelName};

use crate::{BlobSource, Client, Error, Plan, Result, plan, wire};

/// How many blobs are asked for at once.
const PARALLEL_LOOKS: usize = 8;

/// What to register besides the files. An absent signature is taken from the directory's `model.sig`.
#[derive(Debug, Clone, Default)]
pub struct Push {
    /// A Sigstore bundle as JSON text.
    pub signature: Option<String>,
    /// The number that the version must get.
    pub expect_number: Option<plinth_types::VersionNumber>,
    /// A word for people.
    pub description: String,
    /// Properties that users set.
    pub tags: wire::Tags,
    /// Aliases to move to the version.
    pub aliases: Vec<plinth_types::AliasName>,
}

/// How far a push has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// The node said what it lacks.
    Missing {
        /// How many distinct contents.
        blobs: usize,
        /// Their bytes together.
        bytes: u64,
    },
    /// Bytes left, of all that the node lacks. May go back when an upload is repeated.
    Sent(u64),
    /// Everything is there; the version is being registered.
    Registering,
}

/// What a push came to.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The version.
    pub version: wire::Version,
    /// Whether it is new; otherwise exactly these files were a version already.
    pub created: bool,
    /// How many blobs were uploaded.
    pub uploaded: usize,
    /// Their bytes together.
    pub uploaded_bytes: u64,
}

impl Client {
    /// Makes a version of `model` out of the files of `plan`.
    ///
    /// Not cancel safe in the sense of progress: dropped in the middle, what was uploaded stays as unreferenced blobs.
    ///
    /// # Errors
    /// As [`Client::status`]; [`Error::Changed`] when a file is not what it was.
    pub async fn push(
        &self,
        model: &ModelName,
        plan: &Plan,
        push: Push,
        on_event: impl Fn(PushEvent) + Send + Sync + 'static,
    ) -> Result<Pushed> {
        let on_event = Arc::new(on_event);
        let missing = self.missing(plan).await?;
        let total = missing.iter().map(|f| f.size).sum();
        on_event(PushEvent::Missing { blobs: missing.len(), bytes: total });
        let mut before = 0;
        for file in &missing {
            let source = BlobSource::File(file.path.under(plan.root()));
            let events = on_event.clone();
            let progress = move |sent| events(PushEvent::Sent(before + sent));
            self.put_blob(&file.digest, file.size, &source, progress).await.map_err(|e| name_the_file(e, file))?;
            before += file.size;
        }
        plan.check_unchanged().map_err(|e| match e {
            plan::Error::Changed(path) => Error::Changed(path),
            other => Error::Plan(other),
        })?;
        on_event(PushEvent::Registering);
        let new = wire::NewVersion {
            files: plan.files().to_vec(),
            signature: push.signature.or_else(|| plan.signature().map(str::to_owned)),
            expect_number: push.expect_number,
            description: push.description,
            tags: push.tags,
            aliases: push.aliases,
        };
        let (version, created) = self.create_version(model, &new).await?;
        Ok(Pushed { version, created, uploaded: missing.len(), uploaded_bytes: total })
    }

    /// One file for each content that the node lacks, in the order of paths.
    async fn missing<'p>(&self, plan: &'p Plan) -> Result<Vec<&'p wire::File>> {
        let mut distinct: BTreeMap<Digest, &wire::File> = BTreeMap::new();
        for file in plan.files() {
            distinct.entry(file.digest).or_insert(file);
        }
        let mut looks = Vec::with_capacity(distinct.len());
        for file in distinct.into_values() {
            looks.push(async move { Ok::<_, Error>((file, self.has_blob(&file.digest).await?)) });
        }
        let looked: Vec<_> = futures_util::stream::iter(looks).buffer_unordered(PARALLEL_LOOKS).try_collect().await?;
        let mut missing: Vec<_> = looked.into_iter().filter(|(_, present)| !present).map(|(file, _)| file).collect();
        missing.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(missing)
    }
}

fn name_the_file(error: Error, file: &wire::File) -> Error {
    match error {
        Error::Source { changed: true, .. } => Error::Changed(file.path.clone()),
        other => other,
    }
}
