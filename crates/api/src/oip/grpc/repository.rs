//! The model repository: `RepositoryIndex`, `RepositoryModelLoad`, `RepositoryModelUnload`.

use plinth_identity::Principal;
use plinth_types::{Error, Reason, Result};

use super::pb::inference as pb;
use super::request::its;
use crate::Services;
use crate::oip::metadata::{IndexEntry, IndexState};
use crate::oip::repository;
use pb::model_repository_parameter::ParameterChoice;

/// The longest name of a file (`NAME_MAX` of Linux).
const LONGEST_NAME: usize = 255;

/// There is one repository.
fn unnamed(repository: &str) -> Result<()> {
    if repository.is_empty() { Ok(()) } else { Err(repository::named()) }
}

pub(super) async fn index(services: Services, who: Principal, asked: pb::RepositoryIndexRequest) -> Result<pb::RepositoryIndexResponse> {
    unnamed(&asked.repository_name)?;
    let models = repository::index(&services, &who, asked.ready).into_iter().map(entry);
    Ok(pb::RepositoryIndexResponse { models: models.collect() })
}

fn entry(entry: IndexEntry) -> pb::repository_index_response::ModelIndex {
    let state = match entry.state {
        IndexState::Ready => "READY",
        IndexState::Unavailable => "UNAVAILABLE",
        IndexState::Loading => "LOADING",
        IndexState::Unloading => "UNLOADING",
    };
    pb::repository_index_response::ModelIndex {
        name: entry.name,
        version: entry.version.unwrap_or_default(),
        state: state.to_owned(),
        reason: entry.reason,
    }
}

pub(super) async fn load(
    services: Services,
    who: Principal,
    asked: pb::RepositoryModelLoadRequest,
) -> Result<pb::RepositoryModelLoadResponse> {
    unnamed(&asked.repository_name)?;
    let model = its(&who, &asked.model_name)?;
    let config = match asked.parameters.keys().find(|name| name.starts_with("file:")) {
        // What Triton says, which cannot make such a file, and what its own example holds it to.
        Some(name) if name.split('/').any(|part| part.len() > LONGEST_NAME) => {
            let text = format!("failed to poll from model repository: a file's name has at most {LONGEST_NAME} bytes");
            Err(Error::new(Reason::Internal, text).field("parameters"))
        }
        Some(name) => Err(repository::no_files(name)),
        None => match asked.parameters.get("config").map(|parameter| &parameter.parameter_choice) {
            None => Ok(None),
            Some(Some(ParameterChoice::StringParam(text))) => Ok(Some(text.as_str())),
            Some(_) => Err(repository::no_text()),
        },
    };
    repository::load(&services, &who, &model, config).await?;
    Ok(pb::RepositoryModelLoadResponse {})
}

pub(super) async fn unload(
    services: Services,
    who: Principal,
    asked: pb::RepositoryModelUnloadRequest,
) -> Result<pb::RepositoryModelUnloadResponse> {
    unnamed(&asked.repository_name)?;
    repository::unload(&services, &who, &its(&who, &asked.model_name)?).await?;
    Ok(pb::RepositoryModelUnloadResponse {})
}
