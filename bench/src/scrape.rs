//! The metrics of a node, as Prometheus would read them.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One reading.
pub struct Scrape(String);

/// Reads the metrics at this address, `http://host:port`. There may be more of them than the load generator keeps of an answer.
pub async fn read(url: &str) -> Result<Scrape> {
    let address = url.strip_prefix("http://").context("only http:// URLs")?;
    let mut stream = TcpStream::connect(address).await.context("connecting to the metrics")?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the metrics have no head")?;
    ensure!(head.starts_with("HTTP/1.1 200 ") && !body.is_empty(), "the metrics were answered with {}", head.lines().next().unwrap_or(""));
    Ok(Scrape(body.to_owned()))
}

impl Scrape {
    /// The sum of all series of this name that have all of these labels, as `name="value"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |line: &str| {
            let (series, value) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?.rsplit_once(' ')?;
            labels.iter().all(|label| series.contains(label)).then(|| value.parse::<f64>().ok())?
        };
        self.0.lines().filter_map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let text =
            "# HELP a_total x\na_total{u=\"1\",s=\"x\"} 3\na_total{u=\"1\",s=\"y\"} 4\na_total{u=\"2\",s=\"x\"} 5\na_total_more 9\nb 2\n";
        let scrape = Scrape(text.to_owned());
        assert_eq!(scrape.sum("a_total", &["u=\"1\""]), 7.0);
        assert_eq!((scrape.sum("a_total", &[]), scrape.sum("b", &[]), scrape.sum("c", &[])), (12.0, 2.0, 0.0));
    }
}
