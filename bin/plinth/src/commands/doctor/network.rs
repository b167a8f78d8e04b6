//! Checks of what the node listens on and of what it talks to.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use plinth_client::{Client, Options};
use plinth_config::{Config, MetadataUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use url::Url;

use super::{Finding, PATIENCE};

/// Asks a PostgreSQL server whether it speaks TLS; only PostgreSQL answers `S` or `N`. Source: PostgreSQL manual,
/// "Message Formats", SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whether each address is free, or a node holds it already.
pub async fn listeners(config: &Config) -> Vec<Finding> {
    let listen = &config.listen;
    let mut findings = vec![listener("listen_http", listen.http, true).await];
    for (check, address) in [("listen_grpc", listen.grpc), ("listen_metrics", listen.metrics), ("listen_admin", listen.admin)] {
        if let Some(address) = address {
            findings.push(listener(check, address, false).await);
        }
    }
    findings
}

async fn listener(check: &'static str, address: SocketAddr, is_node: bool) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Finding::good(check, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if is_node && node_answers(address).await {
                return Finding::good(check, format!("a node answers at {address}"));
            }
            if !is_node {
                let remedy = "that is as it should be when a node runs; otherwise set another address";
                return Finding::warning(check, format!("{address} is in use"), remedy);
            }
            let remedy = format!("end what listens there, or `plinth up --set listen.http={}:PORT`", address.ip());
            Finding::bad(check, format!("{address} is in use, and not by a node"), remedy)
        }
        Err(error) => Finding::bad(
            check,
            format!("{address} cannot be listened on: {error}"),
            "set an address of this machine and a port that this user may use",
        ),
    }
}

async fn node_answers(address: SocketAddr) -> bool {
    // Nobody can connect to "any address"; loopback stands for it.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let options = Options { request_timeout: PATIENCE, connect_timeout: PATIENCE, retries: 0, ..Options::default() };
    let client = Client::new(&format!("http://{}", SocketAddr::new(ip, address.port())), None, options);
    match client {
        Ok(client) => client.live().await.is_ok(),
        Err(_) => false,
    }
}

/// Whether the PostgreSQL server answers, when one is configured.
pub async fn postgres(config: &Config) -> Option<Finding> {
    let MetadataUrl::Postgres(secret) = &config.metadata.url else { return None };
    let remedy = "start it, or mend metadata.url";
    let Some(place) = Url::parse(secret.expose()).ok().and_then(|url| Some((url.host_str()?.to_owned(), url.port().unwrap_or(5432))))
    else {
        return Some(Finding::bad("postgresql", "metadata.url names no host", remedy));
    };
    // The place alone: the address may hold a password.
    let shown = format!("{}:{}", place.0, place.1);
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect((place.0.as_str(), place.1)).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    });
    Some(match answer.await {
        Ok(Ok(b'S' | b'N')) => Finding::good("postgresql", format!("answers at {shown}; user and password are tried by `plinth up`")),
        Ok(Ok(_)) => Finding::bad("postgresql", format!("what answers at {shown} is not PostgreSQL"), remedy),
        Ok(Err(error)) => Finding::bad("postgresql", format!("{shown} cannot be reached: {error}"), remedy),
        Err(_) => Finding::bad("postgresql", format!("{shown} did not answer in time"), remedy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    fn config(toml: &str) -> Config {
        Config::parse(std::path::Path::new("test.toml"), toml, std::iter::empty()).unwrap()
    }

    #[tokio::test]
    async fn an_address_in_use_by_something_else_is_bad() {
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = held.local_addr().unwrap();
        let accept = async {
            let (stream, _) = held.accept().await.unwrap();
            drop(stream);
            std::future::pending::<()>().await;
        };
        let finding = tokio::select! {
            finding = listener("listen_http", address, true) => finding,
            () = accept => unreachable!(),
        };
        assert_eq!(finding.verdict, Verdict::Bad, "{finding:?}");
        assert_eq!(listener("listen_metrics", address, false).await.verdict, Verdict::Warning);
        drop(held);
        assert_eq!(listener("listen_http", address, true).await.verdict, Verdict::Good);
    }

    #[tokio::test]
    async fn postgres_is_told_from_something_else_and_its_password_stays_hidden() {
        for (byte, verdict) in [(b'N', Verdict::Good), (b'H', Verdict::Bad)] {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("[metadata]\nurl = \"postgres://u:hunter2@{}/d\"", server.local_addr().unwrap());
            let answer = async {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, SSL_REQUEST);
                stream.write_all(&[byte]).await.unwrap();
                std::future::pending::<()>().await;
            };
            let config = config(&url);
            let finding = tokio::select! {
                finding = postgres(&config) => finding.unwrap(),
                () = answer => unreachable!(),
            };
            assert_eq!(finding.verdict, verdict);
            assert!(!format!("{finding:?}").contains("hunter2"));
        }
        assert_eq!(postgres(&config("")).await, None);
    }
}
