//! Envoy and HAProxy in front of an upstream, one thread each, with nothing but the forwarding switched on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Server, free_port, place};
use crate::setup::Setup;

/// A proxy that runs.
pub struct Proxy {
    /// Where it listens.
    pub url: String,
    _server: Server,
    _directory: tempfile::TempDir,
}

/// A command that stays on one processor.
pub fn on_processor(number: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(number.to_string()).arg(program);
    command
}

impl Proxy {
    /// Envoy with the router filter alone.
    pub async fn envoy(setup: &Setup, upstream: &str, processor: usize) -> Result<Self> {
        let program = place(setup, "envoy")?.join("bin/envoy");
        let (port, directory) = (free_port()?, tempfile::tempdir()?);
        let (host, at) = upstream.split_once(':').context("the upstream has no port")?;
        let config = directory.path().join("envoy.yaml");
        std::fs::write(&config, envoy_config(port, host, at))?;
        let mut command = on_processor(processor, &program);
        command.arg("-c").arg(&config).args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]);
        Self::start(command, port, directory).await
    }

    /// HAProxy with one thread.
    pub async fn haproxy(setup: &Setup, upstream: &str, processor: usize) -> Result<Self> {
        let home = place(setup, "haproxy")?;
        let (port, directory) = (free_port()?, tempfile::tempdir()?);
        let config = directory.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n  \
             http-reuse always\nfrontend in\n  bind 127.0.0.1:{port}\n  default_backend out\nbackend out\n  server one {upstream}\n"
        );
        std::fs::write(&config, text)?;
        let mut command = on_processor(processor, &home.join("bin/haproxy"));
        command.arg("-f").arg(&config).arg("-db").env("LD_LIBRARY_PATH", home.join("lib"));
        Self::start(command, port, directory).await
    }

    async fn start(command: Command, port: u16, directory: tempfile::TempDir) -> Result<Self> {
        let mut server = Server::start(command, &directory.path().join("log"))?;
        let url = format!("http://127.0.0.1:{port}");
        server.ready(&format!("{url}/")).await?;
        Ok(Self { url, _server: server, _directory: directory })
    }
}

fn envoy_config(port: u16, host: &str, at: &str) -> String {
    format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          generate_request_id: false
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: out }} }} ] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: out
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {at} }} }} }} }} ] }} ]
"#
    )
}
