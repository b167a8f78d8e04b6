//! What a principal may call: one function over what it is and what a route demands.

use plinth_net::Access;
use plinth_store::resources::Role;
use plinth_types::{Error, Reason, Result, TenantName};

use crate::Principal;

/// Whether `principal` may call a route with this access. Pure.
///
/// # Errors
/// [`Reason::NotPermitted`], with the role that is needed.
pub fn authorise(principal: &Principal, access: Access) -> Result<()> {
    let needed = match access {
        Access::Public => return Ok(()),
        Access::Read => Role::Viewer,
        Access::Infer => Role::Developer,
        Access::Operate => Role::Operator,
        Access::Admin | Access::Platform => Role::Admin,
    };
    if principal.role < needed {
        let text = format!("this key has the role {}; {} takes the role {}", word(principal.role), what(needed), word(needed));
        return Err(Error::new(Reason::NotPermitted, text));
    }
    if access == Access::Platform && principal.tenant != TenantName::default_tenant() {
        let text = "this concerns all tenants; an admin key of the tenant 'default' may do it";
        return Err(Error::new(Reason::NotPermitted, text));
    }
    Ok(())
}

/// The word for a role, as keys are made with it.
#[must_use]
pub const fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Developer => "developer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// The role of this word.
#[must_use]
pub fn role(word: &str) -> Option<Role> {
    match word {
        "viewer" => Some(Role::Viewer),
        "developer" | "infer" => Some(Role::Developer),
        "operator" => Some(Role::Operator),
        "admin" => Some(Role::Admin),
        _ => None,
    }
}

const fn what(needed: Role) -> &'static str {
    match needed {
        Role::Viewer => "looking",
        Role::Developer => "using models",
        Role::Operator => "changing what is served",
        Role::Admin => "this",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_those_before_it_may_and_only_the_default_tenant_concerns_all() {
        use Access::{Admin, Infer, Operate, Platform, Public, Read};
        let order = [Public, Read, Infer, Operate, Admin, Platform];
        for (role, may) in [(Role::Viewer, 2), (Role::Developer, 3), (Role::Operator, 4), (Role::Admin, 6)] {
            for (place, access) in order.into_iter().enumerate() {
                let home = Principal { role, ..Principal::anybody() };
                assert_eq!(authorise(&home, access).is_ok(), place < may, "{role:?} {access:?}");
                let elsewhere = Principal { tenant: "acme".parse().unwrap(), ..home };
                assert_eq!(authorise(&elsewhere, access).is_ok(), place < may && access != Platform, "{role:?} {access:?} in acme");
            }
            assert_eq!(super::role(word(role)), Some(role));
        }
        let viewer = Principal { role: Role::Viewer, ..Principal::anybody() };
        let error = authorise(&viewer, Operate).unwrap_err();
        assert_eq!((error.reason(), error.public_text().contains("operator")), (Reason::NotPermitted, true));
        assert_eq!(super::role("root"), None);
    }
}
