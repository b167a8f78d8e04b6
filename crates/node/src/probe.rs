//! Looks at the stores for `plinth status`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plinth_api::Probe;
use plinth_identity::refusals::{self, RefusalsReport};
use plinth_store::{Metadata, Objects};

/// How long a look may take.
const DEADLINE: Duration = Duration::from_secs(1);

/// The stores of this node.
pub struct Stores {
    pub metadata: Arc<dyn Metadata>,
    pub objects: Arc<dyn Objects>,
    /// The directory of the log of refusals.
    pub refusals: PathBuf,
}

#[async_trait]
impl Probe for Stores {
    async fn metadata(&self) -> String {
        match tokio::time::timeout(DEADLINE, self.metadata.describe()).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("cannot be reached: {error}"),
            Err(_) => "cannot be reached: it does not answer".to_owned(),
        }
    }

    fn objects(&self) -> String {
        self.objects.describe()
    }

    async fn refusals(&self) -> io::Result<RefusalsReport> {
        let directory = self.refusals.clone();
        tokio::task::spawn_blocking(move || refusals::verify(&directory)).await.map_err(io::Error::other)?
    }
}
