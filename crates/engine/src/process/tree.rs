//! What the kernel says of a server's processes: which there are, what memory they hold, where they listen.
//!
//! Everything here is a look at `/proc`: it may be out of date when it is returned, and blocks for as long as a file of the
//! kernel takes. Processes that end meanwhile are left out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More processes than this are not looked at.
const MAX_PROCESSES: usize = 65_536;
/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Children of `pid`, their children, and so on; not `pid` itself.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let (mut found, mut next) = (Vec::new(), 0);
    children(pid, &mut found);
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        if found.len() < MAX_PROCESSES {
            children(pid, &mut found);
        }
    }
    found
}

fn children(pid: u32, found: &mut Vec<u32>) {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for thread in threads.flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
}

/// Bytes in memory: what each process has for itself, and the largest share that they may have in common.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let each = pids.iter().filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Some((kib("RssAnon:")?, kib("RssFile:")?.saturating_add(kib("RssShmem:")?)))
    });
    let (own, shared) = each.fold((0u64, 0u64), |(own, most), (this, shared)| (own.saturating_add(this), most.max(shared)));
    own.saturating_add(shared).saturating_mul(1 << 10)
}

/// Where a server listens, as seen from the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listening {
    /// On the port, itself, and nowhere that others could reach.
    Well,
    /// Somebody else listens on the port.
    Stranger,
    /// On a port that is open to the network.
    Exposed(u16),
    /// The kernel does not say.
    Unknown,
}

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// Who listens on `port`, and where `pids` listen.
pub(crate) fn listening(port: u16, pids: &[u32]) -> Listening {
    let table: Vec<Socket> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().filter_map(socket).collect::<Vec<_>>())
        .collect();
    judge(port, &table, &pids.iter().flat_map(|pid| sockets(*pid)).collect())
}

fn judge(port: u16, table: &[Socket], own: &BTreeSet<u64>) -> Listening {
    if own.is_empty() {
        return Listening::Unknown;
    }
    let exposed = table.iter().find(|socket| own.contains(&socket.inode) && !is_loopback(socket.address));
    if let Some(socket) = exposed {
        return Listening::Exposed(socket.port);
    }
    // What 127.0.0.1 leads to; some libraries know only sockets of the newer family, and write it in that.
    let reached = |socket: &&Socket| {
        let address = socket.address.to_canonical();
        socket.port == port && (address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address.is_unspecified())
    };
    let mut on_port = table.iter().filter(reached).peekable();
    if on_port.peek().is_none() {
        return Listening::Unknown;
    }
    if on_port.all(|socket| own.contains(&socket.inode)) { Listening::Well } else { Listening::Stranger }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Numbers of the sockets that a process has open.
fn sockets(pid: u32) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// A line of `/proc/net/tcp` if it is a listening socket: `sl local_address rem_address st … inode`.
fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Socket { address: self::address(address)?, port: u16::from_str_radix(port, 16).ok()?, inode: fields.get(9)?.parse().ok()? })
}

/// Words of the machine's own byte order in hexadecimal.
fn address(text: &str) -> Option<IpAddr> {
    let words = (0..text.len() / 8).map(|i| u32::from_str_radix(text.get(i * 8..i * 8 + 8)?, 16).ok().map(u32::to_ne_bytes));
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_process_finds_its_own_listener() {
        let pids = [std::process::id()];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Other tests of this process may listen too, but on loopback alone.
        assert_eq!(listening(port, &pids), Listening::Well);
        assert!(resident(&pids) > 1 << 20);
    }

    #[test]
    fn strangers_and_open_doors() {
        let at = |address: &str, port, inode| Socket { address: address.parse().unwrap(), port, inode };
        let own = BTreeSet::from([1, 2]);
        for (table, expected) in [
            (vec![at("127.0.0.1", 80, 1), at("0.0.0.0", 22, 9)], Listening::Well),
            (vec![at("127.0.0.1", 80, 9)], Listening::Stranger),
            (vec![at("127.0.0.1", 80, 1), at("0.0.0.0", 80, 9)], Listening::Stranger),
            (vec![at("127.0.0.1", 80, 1), at("0.0.0.0", 81, 2)], Listening::Exposed(81)),
            (vec![at("::", 80, 1)], Listening::Exposed(80)),
            (vec![at("::ffff:127.0.0.1", 80, 1)], Listening::Well),
            (vec![at("::ffff:127.0.0.1", 80, 9)], Listening::Stranger),
            (vec![at("::1", 81, 2), at("::ffff:127.0.0.1", 82, 2), at("127.0.0.1", 80, 1)], Listening::Well),
            (vec![], Listening::Unknown),
        ] {
            assert_eq!(judge(80, &table, &own), expected, "{table:?}");
        }
        assert_eq!(judge(80, &[at("127.0.0.1", 80, 1)], &BTreeSet::new()), Listening::Unknown);
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(line in "[0-9A-F: é]{0,120}") {
            let _ = socket(&line);
            let _ = address(&line);
        }
    }
}
