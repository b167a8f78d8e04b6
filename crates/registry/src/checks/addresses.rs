//! The lists of addresses.

use plinth_store::resources::gateway::AddressesRecord;

use super::networks;
use crate::problems::Problems;

/// Checks the lists.
pub(crate) fn addresses(problems: &mut Problems, record: &AddressesRecord) {
    let AddressesRecord { allow, deny, trusted_proxies } = record;
    for (field, list) in [("allow", allow), ("deny", deny), ("trusted_proxies", trusted_proxies)] {
        networks::list(problems, field, list, 10_000);
    }
    // Then everybody could say that he is anybody.
    let everything = |text: &String| text.parse::<ipnet::IpNet>().is_ok_and(|network| network.prefix_len() == 0);
    if trusted_proxies.iter().any(everything) {
        problems.add("trusted_proxies", "not every address can be a proxy that is believed");
    }
}
