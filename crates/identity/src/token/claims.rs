//! What a token claims (RFC 7519, 4), read only after its signature holds, and judged against the time and its issuer.

use plinth_types::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::LEEWAY;

/// The registered claims that are looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The longest subject, as OpenID Connect has it.
const MAX_SUBJECT: usize = 255;

/// The issuer that a token names, for finding the keys. Not to be believed.
pub(super) fn issuer(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    serde_json::from_slice::<Issuer>(payload).ok().map(|found| found.iss)
}

impl Claims {
    pub(super) fn read(payload: &[u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(payload).map_err(|_| "a claim is missing or malformed: iss, sub, aud and exp are needed")
    }

    /// Whether the token is for one of these audiences, of this issuer, and good now.
    pub(super) fn check(&self, issuer: &str, audiences: &[String], now: Timestamp) -> Result<(), &'static str> {
        if self.iss != issuer {
            return Err("of another issuer");
        }
        let intended = |wanted: &String| match &self.aud {
            Audience::One(one) => one == wanted,
            Audience::Several(several) => several.contains(wanted),
        };
        if !audiences.iter().any(intended) {
            return Err("for another audience");
        }
        if self.sub.is_empty() || self.sub.len() > MAX_SUBJECT || self.sub.chars().any(char::is_control) {
            return Err("the subject is empty, too long or holds control characters");
        }
        let (now, leeway) = (seconds(now), LEEWAY.as_secs_f64());
        // Written so that what is no number is refused.
        if !(self.exp.is_finite() && now < self.exp + leeway) {
            return Err("expired");
        }
        let begun = |moment: Option<f64>| moment.is_none_or(|moment| moment.is_finite() && moment <= now + leeway);
        if !begun(self.nbf) || !begun(self.iat) {
            return Err("not valid yet");
        }
        Ok(())
    }

    pub(super) fn subject(&self) -> &str {
        &self.sub
    }

    /// When it ends, the leeway included, in milliseconds since 1970.
    pub(super) fn end(&self) -> u64 {
        let millis = ((self.exp + LEEWAY.as_secs_f64()) * 1000.0).clamp(0.0, 1e14);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what is both")]
        let millis = millis as u64;
        millis
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
fn seconds(at: Timestamp) -> f64 {
    at.millis() as f64 / 1000.0
}

/// The claim of a name: one of exactly this name, else one that lies where its dots lead.
pub(super) fn claim<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |at, step| at.get(step)))
}

/// The words of a claim: a list of texts, or one text with spaces between words, as `scope` has it.
pub(super) fn words(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(text) => text.split_ascii_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_found_by_name_first_and_by_way_of_dots_then() {
        let claims = json!({"a": {"b": ["x", 1, "y"]}, "https://corp.example/roles": "x y", "a.c": "z"});
        assert_eq!(words(claim(&claims, "a.b").unwrap()), ["x", "y"]);
        assert_eq!(words(claim(&claims, "https://corp.example/roles").unwrap()), ["x", "y"]);
        assert_eq!(words(claim(&claims, "a.c").unwrap()), ["z"]);
        assert!(claim(&claims, "a.b.c").is_none() && claim(&claims, "").is_none());
        assert!(words(&json!({"x": 1})).is_empty());
    }
}
