//! How a user names a model or a version of it on the command line: `digits`, `digits@3`, `digits@champion`.

use std::str::FromStr;

use plinth_client::{Client, Error, Paging, wire};
use plinth_types::{AliasName, Label, ModelName, VersionNumber};

use crate::exit::{Exit, Failure};

/// A model, and perhaps which of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    pub model: ModelName,
    pub version: Option<Selector>,
}

/// A model's version, which must be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    pub model: ModelName,
    pub version: Selector,
}

/// Which version: digits are a number, everything else is an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    Number(VersionNumber),
    Alias(AliasName),
}

impl FromStr for Selector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self::Number).map_err(|e: plinth_types::version::ParseVersionError| e.to_string());
        }
        text.parse().map(Self::Alias).map_err(|e: plinth_types::name::ParseNameError| e.to_string())
    }
}

impl FromStr for ModelRef {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let model = name.parse().map_err(|e: plinth_types::name::ParseNameError| e.to_string())?;
        Ok(Self { model, version: version.map(str::parse).transpose()? })
    }
}

impl FromStr for VersionRef {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ModelRef { model, version } = text.parse()?;
        let version = version.ok_or_else(|| format!("say which version: {model}@NUMBER or {model}@ALIAS"))?;
        Ok(Self { model, version })
    }
}

impl VersionRef {
    /// The version's number; asks the node when an alias was given.
    pub async fn number(&self, client: &Client) -> Result<VersionNumber, Failure> {
        self.version.number(&self.model, client).await
    }
}

impl Selector {
    /// The number that it stands for.
    pub async fn number(&self, model: &ModelName, client: &Client) -> Result<VersionNumber, Failure> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Alias(alias) => alias_of(&found(client, model).await?, alias),
        }
    }
}

/// A model; when there is none of that name, the failure says which names are near.
pub async fn found(client: &Client, model: &ModelName) -> Result<wire::Model, Failure> {
    match client.model(model).await {
        Ok(found) => Ok(found),
        Err(error) => Err(with_suggestion(error, client, model).await),
    }
}

/// Adds the nearest model's name to a failure that says there is no such model.
pub async fn with_suggestion(error: Error, client: &Client, model: &ModelName) -> Failure {
    let missing = error.reason() == Some("model_not_found") || (error.status() == Some(404) && error.reason() == Some(""));
    let mut failure = Failure::from(error);
    if missing {
        // Only a help: when the list cannot be had, the first error stands as it is.
        let names = client.models(&Paging::default()).await.map(|page| page.items).unwrap_or_default();
        if let Some(near) = nearest(model.as_str(), names.iter().map(|m| m.name.as_str())) {
            failure.next.insert(0, format!("did you mean '{near}'?"));
        }
    }
    failure
}

/// Where an alias points; the failure says which aliases there are.
pub fn alias_of(model: &wire::Model, alias: &AliasName) -> Result<VersionNumber, Failure> {
    model.aliases.get(alias).copied().ok_or_else(|| {
        let failure = Failure::new(Exit::NotFound, format!("the model '{}' has no alias '{alias}'", model.name));
        let names: Vec<_> = model.aliases.keys().map(AliasName::as_str).collect();
        match nearest(alias.as_str(), names.iter().copied()) {
            Some(near) => failure.next(format!("did you mean '{}@{near}'?", model.name)),
            None if names.is_empty() => failure.next(format!("it has none; set one with `plinth model promote {}@VERSION`", model.name)),
            None => failure.next(format!("it has {}", names.join(", "))),
        }
    })
}

/// The candidate that is at most a third of its letters away.
pub fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&wanted.to_lowercase(), &name.to_lowercase());
    let near = candidates.map(|name| (distance(name), name)).filter(|(d, name)| *d <= (name.len().max(wanted.len()) / 3).max(1));
    near.min().map(|(_, name)| name)
}

/// A tag as `KEY=VALUE`.
pub fn tag(text: &str) -> Result<(Label, String), String> {
    let (key, value) = text.split_once('=').ok_or("a tag is KEY=VALUE")?;
    let key: Label = key.parse().map_err(|e: plinth_types::name::ParseNameError| e.to_string())?;
    if value.len() > 1024 || value.chars().any(char::is_control) {
        return Err("a tag's value has at most 1024 bytes and no control characters".into());
    }
    Ok((key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let number: ModelRef = "digits@3".parse().unwrap();
        assert_eq!(number.version, Some(Selector::Number(VersionNumber::try_from(3).unwrap())));
        let alias: VersionRef = "digits@champion".parse().unwrap();
        assert_eq!(alias.version, Selector::Alias(AliasName::champion()));
        assert_eq!("digits".parse::<ModelRef>().unwrap().version, None);
        assert_eq!("digits".parse::<VersionRef>().unwrap_err(), "say which version: digits@NUMBER or digits@ALIAS");
        for bad in ["", "@1", "digits@", "digits@0", "digits@01", "a/b", "digits@1@2", "../x"] {
            assert!(bad.parse::<ModelRef>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["digits", "fraud-score", "resnet-50"];
        assert_eq!(nearest("digit", names.into_iter()), Some("digits"));
        assert_eq!(nearest("Resnet50", names.into_iter()), Some("resnet-50"));
        assert_eq!(nearest("whisper", names.into_iter()), None);
    }

    #[test]
    fn tags_are_read() {
        assert_eq!(tag("stage=a=b").unwrap(), ("stage".parse().unwrap(), "a=b".into()));
        for bad in ["stage", "=x", "a b=c", "a=\u{1b}"] {
            assert!(tag(bad).is_err(), "{bad:?}");
        }
    }
}
