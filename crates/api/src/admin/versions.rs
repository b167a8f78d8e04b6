//! Versions: list, create, show, edit, sign, verify, retire, restore, delete, and their files.

use http::StatusCode;
use plinth_client::wire;
use plinth_net::Response;
use plinth_registry::PushOutcome;
use plinth_types::{ArtifactPath, Error, Reason, Result};

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn list(services: Services, call: Call) -> Result<Response> {
    let page = services.registry.versions(&call.principal.tenant, &call.model()?, &call.page("after")?).await?;
    let items = page.items.into_iter().map(view::version).collect();
    reply::json(&wire::Page { items, next: page.next })
}

pub async fn create(services: Services, mut call: Call) -> Result<Response> {
    let new: wire::NewVersion = call.json().await?;
    let pushed = services.registry.create_version(&call.actor(""), &call.model()?, view::new_version(new)).await?;
    services.show(pushed.version.revision).await;
    let status = if pushed.outcome == PushOutcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    reply::json_with(status, &view::version(pushed.version))
}

pub async fn show(services: Services, call: Call) -> Result<Response> {
    let version = services.registry.version(&call.principal.tenant, &call.model()?, call.version()?).await?;
    reply::json(&view::version(version))
}

pub async fn edit(services: Services, mut call: Call) -> Result<Response> {
    let edit: wire::Edit = call.json().await?;
    let version = services.registry.edit_version(&call.actor(""), &call.model()?, call.version()?, &view::edit(edit)).await?;
    services.show(version.revision).await;
    reply::json(&view::version(version))
}

pub async fn sign(services: Services, mut call: Call) -> Result<Response> {
    let signature: wire::Signature = call.json().await?;
    let version = services.registry.attach_signature(&call.actor(""), &call.model()?, call.version()?, &signature.bundle).await?;
    services.show(version.revision).await;
    reply::json(&view::version(version))
}

/// What answers requests now stays, whatever the aliases say: it may be all that is left when newer versions are bad.
fn must_not_be_served(services: &Services, call: &Call) -> Result<()> {
    let (model, number) = (call.model()?, call.version()?);
    let table = services.serving.table();
    let served = table.row(&call.principal.tenant, &model).and_then(|row| row.versions.get(&number)).is_some_and(|v| v.instance.is_some());
    if !served {
        return Ok(());
    }
    let text = format!("version {number} of '{model}' is being served; promote a version that loads, then try again");
    Err(Error::new(Reason::VersionInUse, text))
}

pub async fn retire(services: Services, call: Call) -> Result<Response> {
    must_not_be_served(&services, &call)?;
    let version = services.registry.retire_version(&call.actor(""), &call.model()?, call.version()?).await?;
    services.show(version.revision).await;
    reply::json(&view::version(version))
}

pub async fn restore(services: Services, call: Call) -> Result<Response> {
    let version = services.registry.restore_version(&call.actor(""), &call.model()?, call.version()?).await?;
    services.show(version.revision).await;
    reply::json(&view::version(version))
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    must_not_be_served(&services, &call)?;
    services.registry.delete_version(&call.actor(""), &call.model()?, call.version()?).await?;
    services.show_newest().await;
    Ok(reply::nothing())
}

pub async fn file(services: Services, call: Call) -> Result<Response> {
    let path: ArtifactPath = call.param("path")?;
    let (_, reader) = services.registry.open_file(&call.principal.tenant, &call.model()?, call.version()?, &path).await?;
    Ok(reply::stream(reader.size, reader.stream))
}

/// Says whether this node would load the version, from the bytes as they are stored.
pub async fn verify(services: Services, call: Call) -> Result<Response> {
    let (model, number) = (call.model()?, call.version()?);
    let version = services.registry.version(&call.principal.tenant, &model, number).await?;
    let signed = version.record.signature.is_some();
    let found = match services.verifier.verify(&call.principal.tenant, &version).await {
        Ok(signer) => {
            let detail = match (&signer, signed) {
                (Some(_), _) => "the signature holds, the signer is trusted, and the stored files are the signed ones",
                (None, true) => "the stored files are the registered ones; the signature is from a signer that this node does not know",
                (None, false) => "the stored files are the registered ones; the version is not signed and this node does not ask for it",
            };
            wire::Verification { accepted: true, signed, signer, reason: None, detail: detail.to_owned() }
        }
        Err(error) => refused(signed, error)?,
    };
    reply::json(&found)
}

/// A refusal is an answer here; a store that is away is not.
fn refused(signed: bool, error: Error) -> Result<wire::Verification> {
    let verdict = matches!(
        error.reason(),
        Reason::SignatureMissing
            | Reason::SignatureInvalid
            | Reason::SignerNotTrusted
            | Reason::ContentAltered
            | Reason::DowngradeRefused
            | Reason::BlobNotFound
    );
    if !verdict {
        return Err(error);
    }
    let (reason, detail) = (Some(error.reason().slug().to_owned()), error.public_text().to_owned());
    Ok(wire::Verification { accepted: false, signed, signer: None, reason, detail })
}
