//! Looks for new files of certificates.
//!
//! By reading them: times of files say nothing where files are links that are exchanged, and the files
//! are small. A state that does not hold together (half of a pair written, for one) is looked at again.

use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::{OnEnd, TaskGroup};

use super::TlsContext;

/// Reloads whenever the files have changed, which is looked for each `every`, until `tasks` are cancelled. For a reload at
/// once there is [`TlsContext::reload`].
pub fn watch(context: Arc<TlsContext>, every: Duration, tasks: &TaskGroup) {
    let stop = tasks.cancelled().clone();
    tasks.spawn("certificates", OnEnd::CancelGroup, async move {
        let mut failure = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let reading = context.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || reading.reload()).await else { continue };
            match result {
                Ok(true) => tracing::info!(expires_at = %context.earliest_expiry(), "new certificates are in force"),
                Ok(false) => {}
                Err(error) => {
                    // Once for each way of failing, not at each look.
                    let text = error.to_string();
                    if failure.as_ref() != Some(&text) {
                        let source = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::error!(error = %text, source, "the certificates were not replaced; the old ones stay in force");
                    }
                    failure = Some(text);
                    continue;
                }
            }
            failure = None;
        }
    });
}
