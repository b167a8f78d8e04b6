//! Networks, and addresses outside that a record names.
//!
//! Invariant: an address that is written as such and lies in a private network or where clouds hand out credentials is
//! refused here unless it is allowed; names are looked up when they are dialled, by the same rule
//! ([`plinth_net::outbound::Guard`]).

use ipnet::IpNet;
use plinth_net::outbound::{Address, Guard};

use super::{Asker, at_most, shown};
use crate::problems::Problems;

/// Reads a list of networks.
pub(super) fn list(problems: &mut Problems, field: &str, texts: &[String], most: usize) -> Vec<IpNet> {
    at_most(problems, field, texts, most);
    let mut networks = Vec::new();
    problems.each(field, texts, |p, text| match parse(text) {
        Some(network) => networks.push(network),
        None => p.add("", format!("'{}' is not a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", shown(text))),
    });
    networks
}

/// A network, or an address as the network of itself. Bits behind the prefix are a slip and refused.
fn parse(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))?;
    (network.addr() == network.network()).then_some(network)
}

/// Reads the networks that are allowed although they are private: only an administrator of the whole may open them.
pub(super) fn allowed(problems: &mut Problems, texts: &[String], asker: Asker<'_>) -> Vec<IpNet> {
    if !texts.is_empty() && !asker.platform {
        let text = "only an administrator of the default tenant may allow private networks";
        problems.add_as(plinth_types::Reason::NotPermitted, "allow_networks", text);
    }
    list(problems, "allow_networks", texts, 64)
}

/// Reads an address outside and refuses what must not be dialled.
pub(super) fn outside(problems: &mut Problems, field: &str, text: &str, allowed: &[IpNet], asker: Asker<'_>) -> Option<Address> {
    if text.len() > 2048 {
        problems.add(field, "an address has at most 2048 bytes");
        return None;
    }
    let address: Address = match text.parse() {
        Ok(address) => address,
        Err(error) => {
            problems.add(field, format!("'{}': {error}", shown(text)));
            return None;
        }
    };
    if asker.own.iter().any(|own| is_own(&address, *own)) {
        problems.add(field, format!("{address} is where this node itself listens: requests would go round in a circle"));
    } else if let Some(refusal) = refused(&address, allowed) {
        let text = format!("{refusal}; an administrator of the default tenant may allow it in 'allow_networks'");
        problems.add(field, text);
    }
    Some(address)
}

fn is_loopback_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn refused(address: &Address, allowed: &[IpNet]) -> Option<String> {
    let guard = Guard::new(allowed.iter().copied());
    let loopback = [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
    match address.literal() {
        Some(literal) => guard.check(literal).err().map(|refused| refused.to_string()),
        // RFC 6761: it never means anything else.
        None if is_loopback_name(address.host()) && loopback.iter().all(|one| guard.check(*one).is_err()) => {
            Some(format!("{} is not allowed: loopback", address.host()))
        }
        None => None,
    }
}

/// Whether it is where this node listens, as far as the text tells.
fn is_own(address: &Address, own: std::net::SocketAddr) -> bool {
    if address.port() != own.port() || own.port() == 0 {
        return false;
    }
    let any = own.ip().is_unspecified();
    match address.literal() {
        Some(literal) => literal == own.ip() || literal.is_unspecified() || any && literal.is_loopback(),
        None => is_loopback_name(address.host()) && (any || own.ip().is_loopback()),
    }
}
