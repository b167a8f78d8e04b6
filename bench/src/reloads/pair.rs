//! Two nodes on one ledger: PostgreSQL where one answers on the loopback, else a ledger of each that is told the same.
//!
//! Models' files lie in a directory of each node, because a directory has one owner; the second begins with a copy of the first's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use plinth_identity::ApiKey;
use plinth_runtime::SystemRandom;
use serde_json::{Value, json};

use super::authority::Authority;
use super::balancer::{get, send};
use crate::ledger::Ledger;
use crate::member::Member;
use crate::plinth;
use crate::setup::Setup;

const SERVER: &str = "127.0.0.1";

/// A database of its own; it is dropped with it.
pub struct Database(String);

impl Database {
    /// `None` where no PostgreSQL answers.
    fn create() -> Option<Self> {
        let name = format!("plinth_bench_{}", std::process::id());
        let made = Command::new("createdb").args(["-h", SERVER, "-U", "postgres", "-w", &name]).output().ok()?;
        made.status.success().then_some(Self(name))
    }

    fn url(&self) -> String {
        format!("postgres://postgres@{SERVER}:5432/{}", self.0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = Command::new("dropdb").args(["-h", SERVER, "-U", "postgres", "-w", "--force", &self.0]).output();
    }
}

/// The nodes, and how they are told.
pub struct Pair {
    pub members: Vec<Member>,
    pub authority: Authority,
    admin: Vec<String>,
    /// Of the callers, for each node.
    pub keys: Vec<String>,
    /// Whether both have one ledger.
    pub shared: bool,
    // Last, so that the nodes are gone before it.
    _database: Option<Database>,
}

impl Pair {
    /// Two nodes that serve digits, stopped and ready to be started with TLS.
    pub async fn new(setup: &Setup) -> Result<Self> {
        let (database, authority) = (Database::create(), Authority::new()?);
        let ledger = database.as_ref().map(|database| format!("{:?}", database.url()));
        let mut pair =
            Self { members: Vec::new(), authority, admin: Vec::new(), keys: Vec::new(), shared: database.is_some(), _database: database };
        let caller = ApiKey::generate(&SystemRandom)?;
        for name in ["node-a", "node-b"] {
            let mut keys = vec![("shutdown.lame_duck", "\"1s\""), ("tls.reload", "\"1h\"")];
            keys.extend(ledger.as_deref().map(|url| ("metadata.url", url)));
            let mut member = Member::new(setup, name, &keys)?;
            pair.prepare(setup, &mut member, &caller).await?;
            member.set(&[("tls.certificates", &file(&member, "tls.crt")), ("tls.keys", &file(&member, "tls.key"))])?;
            pair.authority.write(member.path())?;
            pair.members.push(member);
        }
        for member in &mut pair.members {
            member.start()?;
            member.listening().await?;
        }
        Ok(pair)
    }

    /// Fills a node before it has TLS: the model, and the callers' key.
    async fn prepare(&mut self, setup: &Setup, member: &mut Member, caller: &ApiKey) -> Result<()> {
        if self.shared
            && let Some(first) = self.members.first()
        {
            copy(&first.path().join("data/objects"), &member.path().join("data/objects"))?;
            let (admin, key) = (self.admin[0].clone(), self.keys[0].clone());
            self.admin.push(admin);
            self.keys.push(key);
            return Ok(());
        }
        member.start()?;
        member.listening().await?;
        let admin = member.printed_key().context("the node printed no key")?;
        let digits = member.path().join("digits");
        plinth::digits(setup, "2", "digits", &digits)?;
        let mut push = Command::new(setup.plinth.canonicalize()?);
        push.args(["model", "push"]).arg(&digits).args(["--name", "digits", "--promote", "--wait"]);
        push.env("PLINTH_SERVER", format!("http://{}", member.address)).env("PLINTH_KEY", &admin);
        let output = push.output()?;
        ensure!(output.status.success(), "push of digits failed: {}", String::from_utf8_lossy(&output.stderr));
        if self.shared {
            let wish = json!({ "role": "developer" }).to_string();
            let target = crate::exchange::Target::post(&format!("http://{}/v1/keys", member.address), wish.as_bytes(), None, Some(&admin))?;
            let mut connection = crate::exchange::Connection::open(&target.address).await?;
            let made: Value = serde_json::from_slice(connection.exchange(&target).await?.body)?;
            self.keys.push(made["secret"].as_str().context("the key was not made")?.to_owned());
        }
        member.stop().await?;
        if !self.shared {
            let mut ledger = Ledger::open(&member.path().join("data")).await?;
            ledger.key(&plinth_types::TenantName::default_tenant(), caller).await?;
            ledger.finish().await?;
            self.keys.push(caller.reveal());
        }
        self.admin.push(admin);
        Ok(())
    }

    /// The nodes that must be told of a change.
    fn told(&self) -> std::ops::Range<usize> {
        0..if self.shared { 1 } else { self.members.len() }
    }

    /// Applies resources through the API; what the last node answered.
    pub async fn apply(&self, node: usize, resources: &Value) -> Result<(u16, Value)> {
        let mut last = (0, Value::Null);
        for number in self.told() {
            // With one ledger any node may be told.
            let number = if self.shared { node % self.members.len() } else { number };
            last = self.call(number, Method::POST, "/v1/apply", &json!({ "resources": resources })).await?;
        }
        Ok(last)
    }

    /// Calls a node's admin API.
    pub async fn call(&self, node: usize, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
        let tls = self.authority.client(b"http/1.1")?;
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = send(self.members[node].address, &tls, method, path, Some(&self.admin[node]), body).await?;
        Ok((answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or(Value::Null)))
    }

    /// Asks a node as a caller does.
    pub async fn ask(&self, node: usize, path: &str, key: &str) -> Result<http::Response<Bytes>> {
        get(self.members[node].address, &self.authority.client(b"http/1.1")?, path, Some(key)).await
    }

    /// Applies a file with the command line.
    pub async fn apply_file(&self, setup: &Setup, node: usize, text: &str) -> Result<()> {
        for number in self.told() {
            let number = if self.shared { node % self.members.len() } else { number };
            let member = &self.members[number];
            let (file, authority) = (member.path().join("change.yaml"), member.path().join("ca.pem"));
            std::fs::write(&file, text)?;
            std::fs::write(&authority, &self.authority.pem)?;
            let mut command = tokio::process::Command::new(setup.plinth.canonicalize()?);
            command.arg("apply").arg("-f").arg(&file).env("SSL_CERT_FILE", &authority);
            command.env("PLINTH_SERVER", format!("https://localhost:{}", member.address.port())).env("PLINTH_KEY", &self.admin[number]);
            let output = command.output().await?;
            ensure!(output.status.success(), "plinth apply failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

fn file(member: &Member, name: &str) -> String {
    format!("[{:?}]", member.path().join(name).display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let status = Command::new("cp").arg("-r").arg(from.join(".")).arg(to).status()?;
    ensure!(status.success(), "the models' files cannot be copied");
    Ok(())
}
