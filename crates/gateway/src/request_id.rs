//! Gives every request a name: the caller's when it is well-formed, else a new one.

use plinth_net::Request;
use plinth_runtime::Random;
use plinth_types::RequestId;

/// The header in which callers name requests and in which answers repeat the name.
pub const HEADER: &str = "x-request-id";

/// The request's name.
pub fn of(request: &Request, random: &dyn Random) -> RequestId {
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    given.unwrap_or_else(|| draw(random))
}

#[allow(clippy::expect_used, reason = "sixteen hexadecimal digits are a well-formed id")]
fn draw(random: &dyn Random) -> RequestId {
    format!("{:016x}", random.next_u64()).parse().expect("sixteen hexadecimal digits are a well-formed id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;

    #[test]
    fn a_hostile_name_is_not_repeated() {
        let request = |value: &str| http::Request::builder().header(HEADER, value).body(plinth_net::RequestBody::empty()).unwrap();
        let random = SeededRandom::new(1);
        assert_eq!(of(&request("abc-1"), &random).as_str(), "abc-1");
        for bad in ["a b", "<script>", &"x".repeat(100)] {
            assert_eq!(of(&request(bad), &random).as_str().len(), 16);
        }
    }
}
