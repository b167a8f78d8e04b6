//! Issuers of tokens: where their keys are, and that their tokens can mean somebody.

use plinth_store::resources::gateway::IssuerRecord;
use url::Url;

use super::{Asker, at_most, networks, shown, text};
use crate::problems::Problems;

/// Checks an issuer.
pub(crate) fn issuer(problems: &mut Problems, issuer: &IssuerRecord, asker: Asker<'_>) {
    let allowed = networks::allowed(problems, &issuer.allow_networks, asker);
    networks::outside(problems, "issuer", &issuer.issuer, &allowed, asker);
    must_be_secure(problems, "issuer", &issuer.issuer, &allowed);
    if let Some(url) = &issuer.jwks_url {
        jwks(problems, url, &allowed, asker);
    }
    problems.must(!issuer.audiences.is_empty(), "audiences", || {
        "name at least one audience: a token that was made for another service must not open this one".into()
    });
    at_most(problems, "audiences", &issuer.audiences, 32);
    problems.each("audiences", &issuer.audiences, |p, audience| {
        p.must(!audience.is_empty(), "", || "an audience is not empty".into());
        text(p, "", audience, 1 << 10);
    });
    for (field, claim) in [("tenant_claim", &issuer.tenant_claim), ("roles_claim", &issuer.roles_claim)] {
        if let Some(claim) = claim {
            claim_name(problems, field, claim);
        }
    }
    if issuer.tenant.is_none() && issuer.tenant_claim.is_none() {
        problems.add("tenant", "its tokens belong to nobody: give a tenant, or the claim that names it");
    }
    problems.must(issuer.roles.len() <= 256, "roles", || "there are at most 256 words for roles".into());
    if issuer.default_role.is_none() && (issuer.roles_claim.is_none() || issuer.roles.is_empty()) {
        problems.add("roles", "its tokens allow nothing: give 'roles_claim' with 'roles', or a 'default_role'");
    }
}

fn claim_name(problems: &mut Problems, field: &str, claim: &str) {
    problems.must(!claim.is_empty(), field, || "the name of a claim is not empty".into());
    text(problems, field, claim, 256);
}

/// A key that comes over a line that anybody may write on is no key. A network that was allowed by name is one's own.
fn must_be_secure(problems: &mut Problems, field: &str, url: &str, allowed: &[ipnet::IpNet]) {
    let insecure = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    problems.must(!insecure || !allowed.is_empty(), field, || {
        "keys are fetched with https only; http is possible for what 'allow_networks' opens".into()
    });
}

/// The address of keys may have a query, as some providers need one.
fn jwks(problems: &mut Problems, url: &str, allowed: &[ipnet::IpNet], asker: Asker<'_>) {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.fragment().is_none());
    let Some(mut plain) = parsed else {
        problems.add("jwks_url", format!("'{}' is not an address such as https://id.example/keys", shown(url)));
        return;
    };
    plain.set_query(None);
    networks::outside(problems, "jwks_url", plain.as_str(), allowed, asker);
    must_be_secure(problems, "jwks_url", url, allowed);
}
