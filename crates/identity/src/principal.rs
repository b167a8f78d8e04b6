//! Who asks, as handlers and limits see it.
//!
//! Invariant: a principal is made by this crate alone, from credentials that were checked against one snapshot. It is
//! cheap to clone: reference counts and numbers. What it may do on a route is [`crate::authorise()`]'s to say.

use std::fmt;
use std::sync::Arc;

use plinth_store::resources::Role;
use plinth_types::{Error, ModelName, Reason, Result, TenantName};

/// Stands for one user among all, for limits by user: the id of a key, or a hash of issuer and subject. It is the same on
/// every node. A key that is rotated is another user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey(pub u64);

/// How somebody has identified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Not at all: an open node, or a route for everybody.
    Anybody,
    /// By the API key of this id.
    Key(u64),
    /// By a token: the issuer's name and the subject, `corp/alice`.
    Token(Arc<str>),
    /// By a client certificate with this URI in it.
    Certificate(Arc<str>),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Key(id) => write!(f, "key:{id:016x}"),
            Self::Token(subject) => write!(f, "token:{subject}"),
            Self::Certificate(uri) => write!(f, "certificate:{uri}"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose things the request is about.
    pub tenant: TenantName,
    /// The tenant's place in tables kept for each tenant; see [`crate::KeyRing`].
    pub tenant_index: u32,
    /// The user within the tenant.
    pub user: UserKey,
    /// What it is allowed.
    pub role: Role,
    pub(crate) caller: Caller,
    /// The models that it may use; all when `None`.
    pub(crate) models: Option<Arc<[ModelName]>>,
    /// Whether an administrator of the default tenant acts for `tenant`.
    pub(crate) acting: bool,
}

impl Principal {
    /// Everybody on an open node (`plinth up --dev`).
    #[must_use]
    pub fn anybody() -> Self {
        Self {
            tenant: TenantName::default_tenant(),
            tenant_index: 0,
            user: UserKey(0),
            role: Role::Admin,
            caller: Caller::Anybody,
            models: None,
            acting: false,
        }
    }

    /// Somebody who has not identified, on a route that is for everybody: may look and no more, whatever a handler asks.
    #[must_use]
    pub fn stranger() -> Self {
        Self { role: Role::Viewer, ..Self::anybody() }
    }

    /// How it has identified.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The name under which the audit knows it: `key:…`, and `key:… for acme` when it acts for another tenant.
    #[must_use]
    pub fn actor(&self) -> String {
        if self.acting { format!("{} for {}", self.caller, self.tenant) } else { self.caller.to_string() }
    }

    /// Whether it looks after what concerns all tenants: an administrator of the default tenant.
    #[must_use]
    pub fn is_platform(&self) -> bool {
        self.role == Role::Admin && self.tenant == TenantName::default_tenant()
    }

    /// Whether an administrator of the default tenant acts for this tenant.
    #[must_use]
    pub const fn is_acting(&self) -> bool {
        self.acting
    }

    /// Whether it may use this model. Says nothing of whether there is one.
    #[must_use]
    pub fn may_use(&self, model: &ModelName) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }

    /// Whether it may use all models, those included that are yet to come.
    #[must_use]
    pub const fn may_use_all(&self) -> bool {
        self.models.is_none()
    }

    /// Refuses a model that is not among those of the key. The same whether or not the model exists.
    ///
    /// # Errors
    /// [`Reason::NotPermitted`].
    pub fn must_use(&self, model: &ModelName) -> Result<()> {
        if self.may_use(model) {
            return Ok(());
        }
        Err(Error::new(Reason::NotPermitted, "this key may use some models, and this is not one of them").field("model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_by_model_do_not_ask_whether_it_exists() {
        let all = Principal::anybody();
        let one = Principal { models: Some(["digits".parse().unwrap()].into()), ..Principal::anybody() };
        let (digits, other) = ("digits".parse().unwrap(), "other".parse().unwrap());
        assert!(all.may_use(&digits) && all.may_use(&other) && one.may_use(&digits));
        assert_eq!(one.must_use(&other).unwrap_err().reason(), Reason::NotPermitted);
    }

    #[test]
    fn actors_read_as_the_audit_wants_them() {
        let key = Principal { caller: Caller::Key(0xab), ..Principal::anybody() };
        assert_eq!(key.actor(), "key:00000000000000ab");
        let acting = Principal { acting: true, tenant: "acme".parse().unwrap(), ..key };
        assert_eq!(acting.actor(), "key:00000000000000ab for acme");
        assert!(!acting.is_platform() && Principal::anybody().is_platform());
    }
}
