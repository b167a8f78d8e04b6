//! The rules between keys, and the bounds of single ones.
//!
//! Invariant: a rule reads values only; it never opens a file or a socket, so that `config check`
//! gives the same verdict on any machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use plinth_policy::limits::AddressRules;
use plinth_types::ByteSize;

use crate::kinds::AuthMode;
use crate::{Config, Origin, Problem};

struct Rules<'a> {
    config: &'a Config,
    problems: Vec<Problem>,
}

/// All rules that a configuration breaks.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut rules = Rules { config, problems: Vec::new() };
    rules.node();
    rules.addresses();
    rules.http();
    rules.tls();
    rules.objects();
    rules.limits();
    rules.durations();
    rules.engine();
    rules.trust();
    rules.log();
    rules.problems
}

impl Rules<'_> {
    fn refuse(&mut self, key: &'static str, text: impl Into<String>) {
        let origin = self.config.shown.iter().find(|shown| shown.path == key).map_or(Origin::Default, |shown| shown.origin.clone());
        self.problems.push(Problem::new(origin, key, format!("'{key}' {}", text.into())));
    }

    fn require(&mut self, holds: bool, key: &'static str, text: &str) {
        if !holds {
            self.refuse(key, text);
        }
    }

    fn node(&mut self) {
        let node = &self.config.node;
        let name = node.name.parse::<plinth_types::Label>();
        self.require(name.is_ok(), "node.name", "must be a name: letters, digits, '.', '_' and '-'");
        let distinct: BTreeSet<_> = node.roles.iter().map(|role| role.as_str()).collect();
        self.require(!node.roles.is_empty() && distinct.len() == node.roles.len(), "node.roles", "must name at least one role, each once");
    }

    fn tls(&mut self) {
        let tls = &self.config.tls;
        self.require(tls.certificates.len() == tls.keys.len(), "tls.keys", "must have one file for each of 'tls.certificates'");
        self.require(tls.client_ca.is_none() || !tls.certificates.is_empty(), "tls.client_ca", "needs 'tls.certificates'");
        self.require(
            !tls.client_required || tls.client_ca.is_some(),
            "tls.client_required",
            "needs 'tls.client_ca', which says whose certificates count",
        );
    }

    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let listen = &self.config.listen;
        let optional = [("listen.grpc", listen.grpc), ("listen.metrics", listen.metrics), ("listen.admin", listen.admin)];
        let optional = optional.into_iter().filter_map(|(key, address)| Some((key, address?)));
        std::iter::once(("listen.http", listen.http)).chain(optional).collect()
    }

    fn addresses(&mut self) {
        let listeners = self.listeners();
        for (index, (key, address)) in listeners.iter().enumerate() {
            if self.config.auth.mode == AuthMode::Open && !address.ip().is_loopback() {
                self.refuse(
                    key,
                    "must be a loopback address such as 127.0.0.1, because 'auth.mode' is \"open\" and anybody could do anything",
                );
            }
            // Port 0 asks for any free port, so two of them differ.
            let same = listeners[..index].iter().find(|(_, other)| address.port() != 0 && other == address);
            if let Some((other, _)) = same {
                self.refuse(key, format!("must not be the address of '{other}'"));
            }
        }
    }

    fn limits(&mut self) {
        let limits = &self.config.limits;
        self.require((1..=10_000).contains(&limits.nodes), "limits.nodes", "must be from 1 to 10000");
        self.require((1_000..=100_000_000).contains(&limits.users), "limits.users", "must be from 1000 to 100000000");
        let plan = limits.default_plan.as_ref().is_none_or(|plan| plan.parse::<plinth_types::Label>().is_ok());
        self.require(plan, "limits.default_plan", "must be the name of a plan, such as \"free\"");
        let timeout = (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&limits.timeout);
        self.require(timeout, "limits.timeout", "must be from 1ms to 1s");
        let bans = !limits.ban_time.is_zero() && limits.ban_time <= limits.ban_longest;
        self.require(bans, "limits.ban_longest", "must not be shorter than 'limits.ban_time', and neither may be zero");
        if let Err(error) = AddressRules::parse::<String>(&[], &limits.ban_exempt) {
            self.refuse("limits.ban_exempt", format!("holds what is no network: {error}"));
        }
    }

    fn http(&mut self) {
        let http = &self.config.http;
        self.require((1..=1_000_000).contains(&http.max_connections), "http.max_connections", "must be from 1 to 1000000");
        let header = http.max_header_bytes;
        self.require((ByteSize::kib(1)..=ByteSize::mib(1)).contains(&header), "http.max_header_bytes", "must be from 1KiB to 1MiB");
        self.require(http.max_body.0 > 0, "http.max_body", "must not be 0");
        self.require(http.max_body <= ByteSize::mib(16 << 10), "http.max_body", "must be at most 16GiB");
        self.require(http.body_memory >= http.max_body, "http.body_memory", "must be at least 'http.max_body'");
        let plain = |text: &str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        self.require(plain(&http.server_name), "http.server_name", "must be 1 to 128 visible ASCII characters");
        let hosts = http.allowed_hosts.iter().all(|host| plain(host) && !host.contains(['/', '*', '@']));
        self.require(hosts, "http.allowed_hosts", "must hold exact host names, without scheme, path or '*'");
    }

    fn objects(&mut self) {
        let objects = &self.config.objects;
        let both = objects.s3_access_key.is_some() == objects.s3_secret_key.is_some();
        self.require(both, "objects.s3_access_key", "and 'objects.s3_secret_key' must be given together");
        if let Some(endpoint) = &objects.s3_endpoint {
            let plain_http = endpoint.starts_with("http://");
            self.require(plain_http || endpoint.starts_with("https://"), "objects.s3_endpoint", "must start with https:// or http://");
            self.require(!plain_http || objects.s3_allow_http, "objects.s3_endpoint", "is http://, which needs 's3_allow_http = true'");
        }
    }

    fn durations(&mut self) {
        let config = self.config;
        for (key, value) in [
            ("http.header_timeout", config.http.header_timeout),
            ("http.idle_timeout", config.http.idle_timeout),
            ("http.write_timeout", config.http.write_timeout),
            ("http.request_timeout", config.http.request_timeout),
            ("snapshot.interval", config.snapshot.interval),
            ("snapshot.poll", config.snapshot.poll),
            ("engine.load_timeout", config.engine.load_timeout),
            ("engine.execution_timeout", config.engine.execution_timeout),
        ] {
            // Timers count from now in the machine's clock; a year keeps every sum inside it.
            let range = Duration::from_millis(1)..=Duration::from_secs(366 * 86_400);
            self.require(range.contains(&value), key, "must be from 1ms to a year");
        }
        for (key, value) in [("shutdown.lame_duck", config.shutdown.lame_duck), ("shutdown.drain", config.shutdown.drain)] {
            self.require(value <= Duration::from_secs(86_400), key, "must be at most a day");
        }
    }

    fn engine(&mut self) {
        let engine = &self.config.engine;
        self.require(!engine.backends.is_empty(), "engine.backends", "must name at least one backend");
        self.require(engine.max_queue_requests > 0, "engine.max_queue_requests", "must not be 0");
        let fits = engine.max_queue_bytes >= self.config.http.max_body;
        self.require(fits, "engine.max_queue_bytes", "must be at least 'http.max_body', or the largest request could never wait");
        let memory = engine.memory_limit.is_none_or(|limit| limit >= ByteSize::mib(16));
        self.require(memory, "engine.memory_limit", "must be at least 16MiB, or empty for no limit");
        self.require(self.config.testing.crash_pass > 0, "testing.crash_pass", "must be at least 1");
    }

    fn trust(&mut self) {
        let signing = &self.config.signing;
        let keys = !signing.require_signature || !signing.trusted_keys.is_empty();
        self.require(keys, "signing.trusted_keys", "must name at least one file when 'signing.require_signature' is true");
    }

    fn log(&mut self) {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let good = self.config.log.level.split(',').all(|part| {
            let (target, level) = part.rsplit_once('=').map_or((None, part), |(target, level)| (Some(target), level));
            let target = target.is_none_or(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')));
            target && LEVELS.contains(&level.trim())
        });
        let access = &self.config.access_log;
        self.require(access.lines <= 100_000, "access_log.lines", "must be at most 100000");
        self.require(access.file_size >= ByteSize::kib(64), "access_log.file_size", "must be at least 64KiB");
        self.require(access.files <= 100, "access_log.files", "must be at most 100");
        self.require(self.config.trace.wishes <= 100_000, "trace.wishes", "must be at most 100000");
        self.require(good, "log.level", "must be error, warn, info, debug or trace, or a list such as \"info,plinth_net=debug\"");
    }
}
