//! `plinth key new`: a pair of signing keys in two files, neither of which is ever overwritten.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::context::Context;
use crate::exit::Failure;
use crate::{files, signing};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The private key signs (`plinth model push --sign-key`); keep it where nodes are not. The public key goes into the \
configuration of the nodes (`signing.trusted_keys`). The PyPI package `model-signing` accepts both.")]
pub struct Args {
    /// The files are PREFIX.pem (private, mode 0600) and PREFIX.pub.pem
    #[arg(long, value_name = "PREFIX", default_value = "plinth-signing")]
    out: PathBuf,

    /// File with a passphrase to encrypt the private key with
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Made {
    private: PathBuf,
    public: PathBuf,
    fingerprint: String,
}

/// Draws the pair and writes it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let pair = signing::new_pair(args.passphrase_file.as_deref())?;
    let (private, public) = (with_ending(&args.out, ".pem"), with_ending(&args.out, ".pub.pem"));
    // The public half first: when it is there already, no private key is left behind.
    files::create(&public, pair.public.as_bytes(), 0o644)?;
    if let Err(failure) = files::create(&private, pair.private.as_bytes(), 0o600) {
        let _ = std::fs::remove_file(&public);
        return Err(failure);
    }
    let made = Made { private, public, fingerprint: pair.fingerprint };
    context.output.answer(&made, || {
        format!(
            "private  {}  (keep it secret)\npublic   {}  (name it in signing.trusted_keys of your nodes)\nname     {}",
            made.private.display(),
            made.public.display(),
            made.fingerprint
        )
    })
}

fn with_ending(prefix: &Path, ending: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
