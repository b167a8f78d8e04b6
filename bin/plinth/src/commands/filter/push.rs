//! `plinth filter push`: a WebAssembly module becomes a version of a filter.

use std::path::PathBuf;

use plinth_client::{Client, wire};
use plinth_registry::FilterFacts;
use plinth_store::resources::gateway::{FilterSettings, OnFilterError, filter};
use plinth_types::{ByteSize, Digest, Label, TenantName, VersionNumber};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::signing::{KeyArgs, Signer};

/// The largest module that a node takes.
const MAX_MODULE: u64 = 4 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The node compiles the module and starts it on trial before it is registered. Routes that name the filter without a version pass \
the new one as soon as it is loaded, and the old one until then.

Examples:
  plinth filter push mask.wasm --name mask
  plinth filter push mask.wasm --name mask --sign-key release.pem --timeout-ms 5 --set mask=*** --on-error skip")]
pub struct Args {
    /// The module, such as mask.wasm
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The filter; it is made when there is none of that name
    #[arg(long, value_name = "NAME")]
    name: Label,

    /// A word about this version
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,

    /// A value that the filter is told with each call; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = value)]
    values: Vec<(String, String)>,

    /// Milliseconds of processor time for one call [default: 20]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u32>,

    /// The most memory for one call [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,

    /// The largest body that the filter reads or writes [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<ByteSize>,

    /// What happens to a request on which the filter fails
    #[arg(long, value_name = "WORD", value_enum, default_value_t)]
    on_error: OnError,

    #[command(flatten)]
    key: KeyArgs,

    /// The number that the version must get; a signature names it
    #[arg(long, value_name = "NUMBER")]
    version: Option<VersionNumber>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    /// It is refused
    #[default]
    Refuse,
    /// It goes on without the filter
    Skip,
}

/// Signs, uploads and registers.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let signer = args.key.load()?;
    let module = bytes::Bytes::from(files::read(&args.file, MAX_MODULE)?);
    let (digest, size) = (Digest::of(&module), module.len() as u64);
    let on_error = if args.on_error == OnError::Skip { OnFilterError::Skip } else { OnFilterError::Refuse };
    let settings = FilterSettings {
        values: args.values.into_iter().collect(),
        timeout_ms: args.timeout_ms,
        memory: args.memory,
        max_body: args.max_body,
        on_error,
    };
    let mut new = wire::NewFilter {
        module: digest,
        size,
        settings: to_wire(&settings),
        signature: None,
        expect_number: args.version,
        description: args.description,
    };
    let tenant = context.tenant().map_or_else(|| Ok(TenantName::default_tenant()), str::parse);
    let tenant = tenant.map_err(|error| Failure::usage(format!("--tenant: {error}")))?;
    let (pushed, created) = context.wait(async {
        if let Some(signer) = &signer {
            // The signature names the number, so the number must be known before.
            let number = match args.version {
                Some(number) => number,
                None => next_number(&client, &args.name).await?,
            };
            let facts = FilterFacts { tenant: &tenant, name: &args.name, version: number };
            new.signature = Some(sign(signer, facts, &digest, size, &settings)?);
            new.expect_number = Some(number);
        }
        let pushed = client.push_filter(&args.name, module, &new).await;
        pushed.map_err(|error| {
            let raced = new.signature.is_some() && error.status() == Some(409);
            let failure = Failure::from(error);
            if raced {
                failure.next("push again; a filter that was deleted before goes on counting: give the next number with --version")
            } else {
                failure
            }
        })
    })?;
    context.output.answer(&pushed, || render(&pushed, created))
}

fn sign(signer: &Signer, facts: FilterFacts<'_>, module: &Digest, size: u64, settings: &FilterSettings) -> Result<String, Failure> {
    signer.sign_filter(facts, &filter::files(module, size, settings))
}

async fn next_number(client: &Client, name: &Label) -> Result<VersionNumber, Failure> {
    match client.filter(name).await {
        Ok(found) => found.last_version.next().map_err(|e| Failure::new(Exit::Failed, e.to_string())),
        Err(error) if error.status() == Some(404) => Ok(VersionNumber::FIRST),
        Err(error) => Err(error.into()),
    }
}

fn to_wire(settings: &FilterSettings) -> wire::FilterSettings {
    wire::FilterSettings {
        values: settings.values.clone(),
        timeout_ms: settings.timeout_ms,
        memory: settings.memory,
        max_body: settings.max_body,
        on_error: (settings.on_error == OnFilterError::Skip).then(|| "skip".to_owned()),
    }
}

fn value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a value is KEY=VALUE")?;
    if name.is_empty() {
        return Err("a value has a key".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn render(pushed: &wire::PushedFilter, created: bool) -> String {
    let name = &pushed.filter.name;
    let mut text = match created {
        true => format!("{name}@{} is new", pushed.number),
        false => format!("{name}@{} is just this already", pushed.number),
    };
    if let Some(version) = pushed.filter.versions.iter().find(|version| version.number == pushed.number) {
        text.push_str(&format!("\nmodule   {} ({})", version.module, ByteSize(version.size)));
        text.push_str(&format!("\nsigned   {}", if version.signed { "yes" } else { "no" }));
    }
    text.push_str(&format!("\nused     by routes that name it: \"filters\": [\"{name}\"]"));
    text
}
