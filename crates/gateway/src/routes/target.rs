//! What can answer a request of a route.

use plinth_store::resources::gateway::{ModelTarget, Target as Spec};
use plinth_types::{Label, ModelName, TenantName, VersionNumber};

use super::{Aliases, Invalid};

/// One of the answerers.
#[derive(Debug)]
pub struct Target {
    /// Its name in metrics and headers.
    pub name: String,
    /// What it is.
    pub to: To,
}

/// What it is.
#[derive(Debug)]
pub enum To {
    /// A model on this node.
    Model(Model),
    /// A service outside.
    Upstream(Label),
}

/// A model, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    name: Option<ModelName>,
    version: Option<VersionNumber>,
}

impl Model {
    /// With its alias looked up now.
    pub(super) fn compile(tenant: &TenantName, spec: &ModelTarget, models: &[ModelName], aliases: &dyn Aliases) -> Result<Self, Invalid> {
        let version = match (&spec.version, &spec.alias) {
            (Some(version), _) => Some(*version),
            (None, None) => None,
            (None, Some(alias)) => {
                let only = if let [only] = models { Some(only) } else { None };
                let Some(name) = spec.name.as_ref().or(only) else {
                    return Err(Invalid("an alias needs the name of its model".to_owned()));
                };
                let version = aliases.version(tenant, name, alias.as_str());
                Some(version.ok_or_else(|| Invalid(format!("model '{name}' has no alias '{alias}'")))?)
            }
        };
        Ok(Self { name: spec.name.clone(), version })
    }

    /// The path by which a request reaches it: the request's own with its model and version in place of those that it
    /// names; `/infer` of the model for paths of users' own. `None` when no model is named anywhere.
    pub(crate) fn path(&self, path: &str) -> Option<String> {
        let asked = Named::of(path);
        let name = self.name.as_ref().map(ModelName::as_str).or(asked.as_ref().map(|named| named.model))?;
        let rest = asked.as_ref().map_or("/infer", |named| named.rest);
        let version = self.version.map(|version| version.to_string());
        let version = version.as_deref().or(asked.and_then(|named| named.version));
        Some(match version {
            Some(version) => format!("/v2/models/{name}/versions/{version}{rest}"),
            None => format!("/v2/models/{name}{rest}"),
        })
    }

    /// The model and version that answer for a request which names a model elsewhere than in its path; `None` when no model is named anywhere.
    pub(crate) fn answerer(&self, said: &str) -> Option<(ModelName, Option<VersionNumber>)> {
        let name = self.name.clone().or_else(|| said.parse().ok())?;
        Some((name, self.version))
    }

    /// Its name.
    pub(crate) fn describe(&self) -> String {
        let name = self.name.as_ref().map_or("model", |name| name.as_str());
        self.version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"))
    }
}

/// The parts of a path of the Open Inference Protocol.
pub(crate) struct Named<'p> {
    pub model: &'p str,
    pub version: Option<&'p str>,
    /// From the slash after them.
    pub rest: &'p str,
}

impl<'p> Named<'p> {
    pub(crate) fn of(path: &'p str) -> Option<Self> {
        let path = path.strip_prefix("/v2/models/")?;
        let (model, rest) = split(path);
        if model.is_empty() || model == "stats" {
            return None;
        }
        match rest.strip_prefix("/versions/").map(split) {
            Some((version, rest)) => Some(Self { model, version: Some(version), rest }),
            None => Some(Self { model, version: None, rest }),
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

impl Target {
    pub(super) fn compile(
        tenant: &TenantName,
        name: Option<&Label>,
        spec: &Spec,
        models: &[ModelName],
        aliases: &dyn Aliases,
    ) -> Result<Self, Invalid> {
        let to = match spec {
            Spec::Model(model) => To::Model(Model::compile(tenant, model, models, aliases)?),
            Spec::Upstream(name) => To::Upstream(name.clone()),
        };
        let own = || match &to {
            To::Model(model) => model.describe(),
            To::Upstream(name) => name.to_string(),
        };
        Ok(Self { name: name.map_or_else(own, Label::to_string), to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_models_are_changed_and_their_ends_kept() {
        let model = |name: Option<&str>, version: Option<&str>| Model {
            name: name.map(|name| name.parse().unwrap()),
            version: version.map(|version| version.parse().unwrap()),
        };
        let path = |model: Model, path: &str| model.path(path);
        assert_eq!(path(model(None, None), "/v2/models/a/infer").unwrap(), "/v2/models/a/infer");
        assert_eq!(path(model(Some("b"), None), "/v2/models/a/versions/3/infer").unwrap(), "/v2/models/b/versions/3/infer");
        assert_eq!(path(model(None, Some("7")), "/v2/models/a/versions/3/ready").unwrap(), "/v2/models/a/versions/7/ready");
        assert_eq!(path(model(None, Some("7")), "/v2/models/a").unwrap(), "/v2/models/a/versions/7");
        assert_eq!(path(model(Some("b"), None), "/chat").unwrap(), "/v2/models/b/infer");
        assert_eq!(path(model(None, None), "/chat"), None);
        assert_eq!(path(model(None, None), "/v2/models/stats"), None);
    }
}
