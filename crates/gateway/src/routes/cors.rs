//! Which pages of other origins may use a route: the server's part of CORS (Fetch standard, section 3.2).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use plinth_net::{Body, Response};
use plinth_store::resources::gateway::CorsSpec;

use super::Invalid;

/// Compiled rules.
#[derive(Debug)]
pub struct Cors {
    any: bool,
    origins: Vec<String>,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: u32,
}

impl Cors {
    pub(super) fn compile(spec: &CorsSpec, methods: &[String]) -> Result<Self, Invalid> {
        let list = |words: &[String]| {
            let text = words.join(", ");
            text.parse::<HeaderValue>().map_err(|_| Invalid(format!("'{text}' cannot stand in a header")))
        };
        let some = |words: &[String]| if words.is_empty() { Ok(None) } else { list(words).map(Some) };
        let any = spec.origins.iter().any(|origin| origin == "*");
        if any && spec.credentials {
            return Err(Invalid("credentials are not for all origins".to_owned()));
        }
        let usual = ["GET", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned);
        let own = [&spec.methods[..], methods, &usual].into_iter().find(|words| !words.is_empty()).unwrap_or_default();
        Ok(Self {
            any,
            origins: spec.origins.clone(),
            methods: list(own)?,
            headers: some(&spec.headers)?,
            expose: some(&spec.expose)?,
            credentials: spec.credentials,
            max_age: spec.max_age_seconds.unwrap_or(600),
        })
    }

    /// Whether this is a browser's question before a request.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Answers a browser's question. An origin that is not allowed gets an answer without permission, as the standard wants it.
    pub fn preflight(&self, headers: &HeaderMap) -> Response {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if self.allow(headers, answer.headers_mut()) {
            let out = answer.headers_mut();
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            if let Some(allowed) = &self.headers {
                out.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
            }
            out.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.into());
        }
        answer
    }

    /// Adds to an answer what lets a page read it.
    pub fn finish(&self, asked: &HeaderValue, answer: &mut HeaderMap) {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(ORIGIN, asked.clone());
        if self.allow(&headers, answer)
            && let Some(expose) = &self.expose
        {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// Whether pages of this origin may use the route.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || origin.to_str().is_ok_and(|origin| self.origins.iter().any(|known| known == origin))
    }

    fn allow(&self, asked: &HeaderMap, answer: &mut HeaderMap) -> bool {
        answer.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = asked.get(ORIGIN) else { return false };
        if self.any {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        }
        let known = self.allows(origin);
        if known {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Result<Cors, Invalid> {
        let spec = CorsSpec { origins: origins.iter().map(|o| (*o).to_owned()).collect(), credentials, ..CorsSpec::default() };
        Cors::compile(&spec, &[])
    }

    fn asked(origin: &'static str) -> HeaderMap {
        [(ORIGIN, HeaderValue::from_static(origin)), (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"))]
            .into_iter()
            .collect()
    }

    #[test]
    fn only_named_origins_are_let_in() {
        let rules = cors(&["https://app.example"], true).unwrap();
        let answer = rules.preflight(&asked("https://app.example"));
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        for bad in ["https://app.example.evil", "http://app.example", "null"] {
            let answer = rules.preflight(&asked(bad));
            assert!(answer.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).is_none(), "{bad}");
            assert_eq!(answer.headers()[VARY], "origin");
        }
        assert!(cors(&["*"], true).is_err());
        assert_eq!(cors(&["*"], false).unwrap().preflight(&asked("https://x")).headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
