//! What every command needs: how to speak, which node, which key.
//!
//! The key is looked for in `--key`, then in `PLINTH_KEY`, then in the file that `plinth login` writes. The order of the
//! address is `--server`, then `PLINTH_SERVER`, then the usual one on loopback.

use std::future::Future;

use plinth_client::{Client, Options, Secret};
use plinth_config::ClientSettings;

use crate::cli::Global;
use crate::credentials::Credentials;
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub struct Context {
    pub output: Output,
    pub settings: ClientSettings,
    server: String,
    key: Option<Secret>,
    tenant: Option<String>,
}

impl Context {
    pub fn new(global: Global) -> Self {
        let settings = ClientSettings::from_process();
        if global.no_color || settings.no_color {
            anstream::ColorChoice::Never.write_global();
        }
        let server = global.server.as_deref().map_or_else(|| settings.server.clone(), |s| s.trim_end_matches('/').to_owned());
        let key = global.key.map(Secret::new).or_else(|| settings.key.clone());
        Self {
            output: Output::new(global.json, global.quiet, global.verbose > 0),
            settings,
            server,
            key,
            tenant: global.tenant.map(|tenant| tenant.to_string()),
        }
    }

    /// The tenant to act for, when one was named.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The node's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The key from the command line or the environment.
    pub const fn given_key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// The file with kept keys.
    pub fn credentials(&self) -> Result<Credentials, Failure> {
        let path = self.settings.credentials.clone();
        path.map(Credentials::at)
            .ok_or_else(|| Failure::new(Exit::Failed, "there is no home directory to keep keys in").next("give the key in PLINTH_KEY"))
    }

    /// A client with the key that belongs to the node.
    pub fn client(&self) -> Result<Client, Failure> {
        let key = match (&self.key, &self.settings.credentials) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => Credentials::at(path.clone()).get(&self.server)?,
            (None, None) => None,
        };
        self.client_with(key)
    }

    /// A client with this key.
    pub fn client_with(&self, key: Option<Secret>) -> Result<Client, Failure> {
        Ok(Client::new(&self.server, key, Options::default())?.for_tenant(self.tenant.clone()))
    }

    /// Runs a command's asynchronous part on this thread.
    pub fn wait<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| Failure::new(Exit::Failed, format!("the command cannot start: {e}")))?.block_on(future)
    }
}
