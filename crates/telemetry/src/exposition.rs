//! A strict reader of the text exposition format, for tests: here and of the whole node.
//!
//! Refuses what Prometheus would refuse or misread: a sample outside its metric, HELP or TYPE twice,
//! a label set twice, a histogram that is not cumulative or whose last bucket is not its count.

use std::collections::{BTreeMap, BTreeSet};

type Pairs = Vec<(String, String)>;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, with `_bucket`, `_sum` or `_count` for histograms.
    pub name: String,
    /// The labels, in their order.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// All samples of one exposition.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// All samples in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter()
    }

    /// The value of the sample with this name and exactly these labels, in any order.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeSet<_> = labels.iter().copied().collect();
        let same = |sample: &&Sample| {
            sample.name == name && sample.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<BTreeSet<_>>() == wanted
        };
        self.0.iter().find(same).map(|sample| sample.value)
    }
}

/// Reads an exposition.
///
/// # Errors
/// With the line and what is wrong with it.
pub fn parse(text: &str) -> Result<Samples, String> {
    let mut reader = Reader::default();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
    }
    reader.check_histograms()?;
    Ok(Samples(reader.samples))
}

#[derive(Default)]
struct Reader {
    helped: BTreeSet<String>,
    kinds: BTreeMap<String, String>,
    current: String,
    seen: BTreeSet<(String, Pairs)>,
    samples: Vec<Sample>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without text")?;
            if help.trim().is_empty() || !self.helped.insert(name.to_owned()) {
                return Err("HELP is empty or there twice".to_owned());
            }
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
            if !matches!(kind, "counter" | "gauge" | "histogram") {
                return Err("no such type".to_owned());
            }
            if !self.helped.contains(name) || self.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err("TYPE before HELP, or there twice".to_owned());
            }
            self.current = name.to_owned();
            return Ok(());
        }
        let sample = sample(line)?;
        let kind = self.kinds.get(&self.current).map_or("", String::as_str);
        let suffix = sample.name.strip_prefix(self.current.as_str()).ok_or("a sample outside its metric")?;
        let fits = if kind == "histogram" { matches!(suffix, "_bucket" | "_sum" | "_count") } else { suffix.is_empty() };
        if !fits || kind.is_empty() {
            return Err("a sample that is not of its metric's type".to_owned());
        }
        if kind == "counter" && (sample.value.is_nan() || sample.value < 0.0) {
            return Err("a counter below zero".to_owned());
        }
        let mut sorted = sample.labels.clone();
        sorted.sort();
        if !self.seen.insert((sample.name.clone(), sorted)) {
            return Err("the same sample twice".to_owned());
        }
        self.samples.push(sample);
        Ok(())
    }

    fn check_histograms(&self) -> Result<(), String> {
        let by_name: BTreeMap<(&str, &Pairs), f64> =
            self.samples.iter().map(|sample| ((sample.name.as_str(), &sample.labels), sample.value)).collect();
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let (bucket, count, sum) = (format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum"));
            let mut series: BTreeMap<Pairs, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == bucket) {
                let (le, rest): (Vec<_>, Vec<_>) = sample.labels.iter().cloned().partition(|(label, _)| label == "le");
                let bound = le.first().and_then(|(_, bound)| number(bound)).ok_or_else(|| format!("{name}: a bucket without a bound"))?;
                series.entry(rest).or_default().push((bound, sample.value));
            }
            for (labels, buckets) in series {
                let ordered = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
                let last = buckets.last().copied().unwrap_or_default();
                let whole = by_name.get(&(count.as_str(), &labels)) == Some(&last.1) && by_name.contains_key(&(sum.as_str(), &labels));
                if !ordered || last.0 != f64::INFINITY || !whole {
                    return Err(format!("{name}: buckets of {labels:?} are not a cumulative histogram"));
                }
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust also reads "inf" and "infinity", which the format does not know.
        text if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) => text.parse().ok(),
        _ => None,
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':');
    text.bytes().all(good) && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("not a metric name".to_owned());
    }
    let mut labels: Pairs = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label, false) || labels.iter().any(|(known, _)| known == label) {
                return Err("not a label name, or there twice".to_owned());
            }
            let (value, after) = label_value(after)?;
            labels.push((label.to_owned(), value));
            if let Some(next) = after.strip_prefix(',') {
                rest = next;
                continue;
            }
            rest = after.strip_prefix('}').ok_or("labels do not end")?;
            break;
        }
    }
    let value = rest.strip_prefix(' ').and_then(number).ok_or("not a number")?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

fn label_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("a bad escape".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a label value does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Labels, TextWriter};
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_well_formed() {
        let head = "# HELP a h\n# TYPE a gauge\n";
        assert!(parse(&format!("{head}a 1\n")).is_ok());
        for bad in [
            "b 1\n",
            "a 1\na 2\n",
            "a{x=\"1\",x=\"2\"} 1\n",
            "a{x=\"\\t\"} 1\n",
            "a inf\n",
            "a\n",
            "a 1",
            "# HELP a h\n",
            "# TYPE a gauge\n",
        ] {
            assert!(parse(&format!("{head}{bad}")).is_err(), "{bad:?}");
        }
        let head = "# HELP h h\n# TYPE h histogram\n";
        let rest = "h_sum 1\nh_count 2\n";
        assert!(parse(&format!("{head}h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\n{rest}")).is_ok());
        for bad in ["h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\n", "h_bucket{le=\"+Inf\"} 1\n", "h_bucket{le=\"1\"} 2\n", "h 1\n"] {
            assert!(parse(&format!("{head}{bad}{rest}")).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_label_value_reads_back(value in "\\PC*|[\\\\\"\n\r\t a]{0,8}") {
            // `lines()` also splits at "\r\n", which the format does not.
            prop_assume!(!value.contains('\r'));
            let mut out = TextWriter::default();
            out.begin("a", "gauge", "h");
            out.real("a", Labels::new(&["x"], &[&value]), 1.5);
            let samples = parse(&out.finish()).unwrap();
            prop_assert_eq!(samples.value("a", &[("x", &value)]), Some(1.5));
        }
    }
}
