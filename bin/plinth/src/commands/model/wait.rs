//! Waiting until the node serves a version: loading goes on after an alias has moved.

use std::time::Duration;

use plinth_client::Client;
use plinth_types::{ModelName, VersionNumber};

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;

/// How long a model may take to load before the command stops waiting; the node goes on.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(100);

/// Returns when the version answers; fails when it cannot be loaded, or after [`PATIENCE`].
pub async fn until_served(client: &Client, model: &ModelName, version: VersionNumber, output: Output) -> Result<(), Failure> {
    let _waiting = Progress::spinner(output, "loading");
    let waited = tokio::time::timeout(PATIENCE, poll(client, model, version)).await;
    waited.unwrap_or_else(|_| {
        let message = format!("{model}@{version} does not answer yet; the node goes on loading it");
        Err(Failure::new(Exit::TryLater, message).next("`plinth status` shows how far it is"))
    })
}

async fn poll(client: &Client, model: &ModelName, version: VersionNumber) -> Result<(), Failure> {
    loop {
        let served = client.model(model).await?.served;
        let found = served.iter().find(|s| s.version == version);
        match found.map(|s| (s.state.as_str(), s.reason.as_deref())) {
            Some(("ready", _)) => return Ok(()),
            Some((state @ ("failed" | "quarantined"), reason)) => {
                let message = format!("{model}@{version} is {state}: {}", reason.unwrap_or("the node's log says why"));
                // It begins with the reason's word.
                let exit = reason.and_then(|text| Exit::of_reason(text.split(':').next()?)).unwrap_or(Exit::Failed);
                return Err(Failure::new(exit, message).next("what was served before goes on being served"));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}
