//! SIGHUP: what the node would find by itself at its next look, it looks for now: certificates and the ledger.
//!
//! So tools that replace files need not wait for `tls.reload`. It fails no request: what holds together comes into force, the rest stays as
//! it was. In a terminal the signal keeps its usual meaning, the end of the terminal.

use std::io::IsTerminal;
use std::sync::Arc;

use plinth_cluster::Keeper;
use plinth_net::tls::TlsContext;
use plinth_runtime::{OnEnd, TaskGroup};
use tokio::signal::unix::{SignalKind, signal};

/// Follows the signal until `tasks` are cancelled.
pub fn follow(certificates: Option<Arc<TlsContext>>, snapshot: Arc<Keeper>, tasks: &TaskGroup) {
    if std::io::stderr().is_terminal() {
        return;
    }
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!(%error, "SIGHUP cannot be followed; certificates are looked at each `tls.reload`"),
    };
    let stop = tasks.cancelled().clone();
    tasks.spawn("follow SIGHUP", OnEnd::CancelGroup, async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                signal = hangups.recv() => if signal.is_none() { return stop.cancelled().await },
            }
            snapshot.poke();
            match certificates.clone() {
                Some(context) => reload(context).await,
                None => tracing::info!("SIGHUP: the ledger is looked at"),
            }
        }
    });
}

async fn reload(context: Arc<TlsContext>) {
    let reading = context.clone();
    let Ok(result) = tokio::task::spawn_blocking(move || reading.reload()).await else { return };
    match result {
        Ok(true) => tracing::info!(expires_at = %context.earliest_expiry(), "SIGHUP: new certificates are in force"),
        Ok(false) => tracing::info!("SIGHUP: the certificates are the same as before"),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "SIGHUP: the certificates were not replaced; the old ones stay in force");
        }
    }
}
