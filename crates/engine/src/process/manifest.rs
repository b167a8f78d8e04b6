//! `process.toml`: how a version wants its server to be started and spoken to.
//!
//! Invariant: a [`Manifest`] that exists holds together: known keys only, every number within bounds, no environment that
//! would change which code a program loads before its own. Whether the command is allowed here is for [`super::command`].

use std::collections::BTreeMap;
use std::time::Duration;

use plinth_types::{ByteSize, DataType, Dim, TensorSpec};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The longest `process.toml`.
pub(crate) const MAX_BYTES: u64 = 64 << 10;
/// Bounds of what a version may ask for.
const MAX_CONCURRENCY: u32 = 4096;
const MAX_ARGUMENTS: usize = 256;
const MAX_VARIABLES: usize = 128;
const MAX_TEXT: usize = 4096;
const MAX_TENSORS: usize = 256;
const MAX_STOP_GRACE: Duration = Duration::from_secs(60);
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Protocol {
    /// Open Inference Protocol over HTTP.
    #[serde(rename = "oip-http")]
    OipHttp,
    /// Open Inference Protocol over gRPC.
    #[serde(rename = "oip-grpc")]
    OipGrpc,
    /// The completion routes of the OpenAI API.
    #[serde(rename = "openai")]
    OpenAi,
}

/// Which of the OpenAI routes answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    /// `/v1/completions`: the text goes in as it is.
    #[default]
    Completions,
    /// `/v1/chat/completions`: the text is one message of a user.
    Chat,
}

/// On which port the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Port {
    /// The node chooses a free one and hands it over.
    #[default]
    Auto,
    /// Always this one.
    Fixed(u16),
}

/// By which signal the server is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum StopSignal {
    #[default]
    Term,
    Int,
    Quit,
    Hup,
}

impl StopSignal {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Term => libc::SIGTERM,
            Self::Int => libc::SIGINT,
            Self::Quit => libc::SIGQUIT,
            Self::Hup => libc::SIGHUP,
        }
    }
}

/// How the server is asked whether it lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthChecks {
    /// A path that answers 200 when the model can answer; absent: the protocol's own.
    pub path: Option<String>,
    /// The time from one check to the next.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// How long one check may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// After so many failures in a row the server counts as hung.
    pub failures: u32,
}

impl Default for HealthChecks {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(5), timeout: Duration::from_secs(2), failures: 4 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OpenAi {
    pub endpoint: Endpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorLine {
    pub name: String,
    pub datatype: DataType,
    pub shape: Vec<Dim>,
    #[serde(default)]
    pub optional: bool,
}

impl TensorLine {
    pub(crate) fn spec(&self) -> Result<TensorSpec, String> {
        TensorSpec::new(self.name.clone(), self.datatype, self.shape.clone()).map_err(|error| error.to_string())
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    pub protocol: Protocol,
    /// The model's name at the server; absent: its name here.
    pub model: Option<String>,
    /// The version at the server, where its protocol knows versions.
    pub model_version: Option<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "port")]
    pub port: Port,
    /// How many requests the server gets at a time.
    #[serde(default = "one")]
    pub concurrency: u32,
    #[serde(default, deserialize_with = "some_duration")]
    pub start_timeout: Option<Duration>,
    #[serde(default)]
    pub stop_signal: StopSignal,
    #[serde(default = "stop_grace", deserialize_with = "duration")]
    pub stop_grace: Duration,
    #[serde(default, deserialize_with = "some_size")]
    pub memory: Option<ByteSize>,
    #[serde(default)]
    pub health: HealthChecks,
    #[serde(default)]
    pub openai: OpenAi,
    #[serde(default)]
    pub inputs: Vec<TensorLine>,
    #[serde(default)]
    pub outputs: Vec<TensorLine>,
}

const fn one() -> u32 {
    1
}

const fn stop_grace() -> Duration {
    Duration::from_secs(5)
}

impl Manifest {
    /// The name of the file.
    pub(crate) const FILE: &'static str = "process.toml";

    /// # Errors
    /// A text for people: where the file is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "process.toml is not UTF-8".to_owned())?;
        let manifest: Self = toml::from_str(text).map_err(|error| format!("process.toml: {}", error.message()))?;
        manifest.check().map_err(|why| format!("process.toml: {why}"))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.command.is_empty() || self.command.len() > MAX_ARGUMENTS {
            return Err(format!("'command' holds the program and at most {MAX_ARGUMENTS} arguments"));
        }
        let texts = self.command.iter().chain(self.environment.values()).chain(&self.model).chain(&self.model_version);
        if texts.chain(&self.health.path).any(|text| text.len() > MAX_TEXT || text.contains('\0')) {
            return Err(format!("no text is longer than {MAX_TEXT} bytes, and none holds a zero byte"));
        }
        if self.environment.len() > MAX_VARIABLES {
            return Err(format!("at most {MAX_VARIABLES} variables"));
        }
        self.environment.keys().try_for_each(|name| check_variable(name))?;
        let segment = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let named = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
        // In OIP the name is a part of a path; in OpenAI it is a field of a body and may look like "owner/model".
        let ok = if self.protocol == Protocol::OipHttp { self.model.iter().all(segment) } else { self.model.iter().all(named) };
        if !ok || !self.model_version.iter().all(segment) {
            return Err("'model' and 'model_version' have letters, digits, '.', '_' and '-'; for openai 'model' may have more".to_owned());
        }
        if self.port == Port::Fixed(0) {
            return Err("'port' is \"auto\" or a number from 1 on".to_owned());
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return Err(format!("'concurrency' is 1 to {MAX_CONCURRENCY}"));
        }
        if self.stop_grace > MAX_STOP_GRACE {
            return Err(format!("'stop_grace' is at most {} s", MAX_STOP_GRACE.as_secs()));
        }
        let health = &self.health;
        if health.interval < LEAST_INTERVAL || health.timeout < LEAST_INTERVAL || !(1..=100).contains(&health.failures) {
            return Err("'health': 'interval' and 'timeout' are at least 50ms, 'failures' is 1 to 100".to_owned());
        }
        if let Some(path) = &health.path
            && !(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err("'health.path' begins with '/' and holds no spaces".to_owned());
        }
        self.check_tensors()
    }

    fn check_tensors(&self) -> Result<(), String> {
        if self.inputs.len() > MAX_TENSORS || self.outputs.len() > MAX_TENSORS || self.inputs.is_empty() != self.outputs.is_empty() {
            return Err(format!("'inputs' and 'outputs' are given both or not at all, at most {MAX_TENSORS} each"));
        }
        for lines in [&self.inputs, &self.outputs] {
            for (i, line) in lines.iter().enumerate() {
                line.spec().map_err(|error| format!("tensor {i}: {error}"))?;
                if lines.iter().take(i).any(|earlier| earlier.name == line.name) {
                    return Err(format!("the tensor '{}' stands there twice", line.name));
                }
            }
        }
        let texts = |lines: &[TensorLine]| lines.iter().all(|line| line.datatype == DataType::Bytes) && lines.len() <= 1;
        if self.protocol == Protocol::OpenAi && !(texts(&self.inputs) && texts(&self.outputs)) {
            return Err("an openai server has one input and one output, both BYTES".to_owned());
        }
        Ok(())
    }
}

/// The loader's variables decide which code a program runs before its own, so an operator's choice of programs would mean
/// nothing.
fn check_variable(name: &str) -> Result<(), String> {
    let plain = name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
    if name.is_empty() || name.len() > 128 || !plain {
        return Err("a variable's name has letters, digits and '_'".to_owned());
    }
    if name.starts_with("LD_") || name == "GCONV_PATH" || name == "GLIBC_TUNABLES" {
        return Err(format!("the variable {name} may not be set: it would change which code the program loads"));
    }
    Ok(())
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_millis)
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse_duration(&text).ok_or_else(|| D::Error::custom("want a duration such as \"500ms\", \"10s\" or \"5m\""))
}

fn some_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

fn some_size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ByteSize>, D::Error> {
    String::deserialize(d)?.parse().map(Some).map_err(D::Error::custom)
}

fn port<'de, D: Deserializer<'de>>(d: D) -> Result<Port, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(u16),
        Text(String),
    }
    match Given::deserialize(d) {
        Ok(Given::Number(number)) => Ok(Port::Fixed(number)),
        Ok(Given::Text(text)) if text == "auto" => Ok(Port::Auto),
        _ => Err(D::Error::custom("'port' is \"auto\" or a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEAST: &str = "command = [\"python3\", \"server.py\"]\nprotocol = \"oip-http\"\n";

    #[test]
    fn little_is_enough() {
        let manifest = Manifest::parse(LEAST.as_bytes()).unwrap();
        assert_eq!((manifest.port, manifest.concurrency, manifest.stop_signal.number()), (Port::Auto, 1, libc::SIGTERM));
    }

    #[test]
    fn everything_can_be_said() {
        let text = r#"
            command = ["llama-server", "--port", "{port}"]
            protocol = "openai"
            model = "meta/llama"
            port = 8080
            concurrency = 8
            start_timeout = "5m"
            stop_signal = "INT"
            stop_grace = "500ms"
            memory = "2GiB"
            environment = { OMP_NUM_THREADS = "2" }
            inputs = [{ name = "prompt", datatype = "BYTES", shape = [1] }]
            outputs = [{ name = "text", datatype = "BYTES", shape = [1] }]
            [health]
            path = "/health"
            interval = "1s"
            [openai]
            endpoint = "chat"
        "#;
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.port, manifest.openai.endpoint), (Port::Fixed(8080), Endpoint::Chat));
        assert_eq!((manifest.start_timeout, manifest.memory), (Some(Duration::from_secs(300)), Some(ByteSize::mib(2048))));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        for (more, says) in [
            ("colour = 1", "unknown field"),
            ("health = { colour = 1 }", "unknown field"),
            ("port = 0", "'port'"),
            ("port = 70000", "'port'"),
            ("port = \"free\"", "'port'"),
            ("concurrency = 0", "'concurrency'"),
            ("stop_grace = \"2h\"", "'stop_grace'"),
            ("start_timeout = \"soon\"", "duration"),
            ("model = \"a/b\"", "'model'"),
            ("model = \"..\\n\"", "'model'"),
            ("environment = { LD_PRELOAD = \"x.so\" }", "LD_PRELOAD"),
            ("environment = { \"A=B\" = \"x\" }", "variable"),
            ("health = { path = \"http://x/\" }", "health.path"),
            ("health = { interval = \"1ms\" }", "health"),
            ("inputs = [{ name = \"a\", datatype = \"FP32\", shape = [1] }]", "both"),
        ] {
            let error = Manifest::parse(format!("{LEAST}{more}").as_bytes()).unwrap_err();
            assert!(error.contains(says), "{more}: {error}");
        }
        assert!(Manifest::parse(b"command = []\nprotocol = \"oip-grpc\"").unwrap_err().contains("command"));
        assert!(Manifest::parse(b"command = [\"a\"]\nprotocol = \"thrift\"").is_err());
        assert!(Manifest::parse(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_texts_never_panic(text in "\\PC{0,200}") {
            let _ = Manifest::parse(text.as_bytes());
            let _ = Manifest::parse(format!("{LEAST}{text}").as_bytes());
            let _ = parse_duration(&text);
        }
    }
}
