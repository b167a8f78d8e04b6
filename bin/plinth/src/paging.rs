//! Reading lists to their end, or as far as was asked.

use plinth_client::{Error, Paging, wire};

use crate::exit::{Exit, Failure};

/// The most items that any list shows; a node that gives more is broken or needs a program.
const MAX_ITEMS: usize = 100_000;

/// Gathers at most `limit` items, page by page.
pub async fn gather<T>(
    limit: Option<usize>,
    mut fetch: impl AsyncFnMut(Paging) -> Result<wire::Page<T>, Error>,
) -> Result<Vec<T>, Failure> {
    let most = limit.unwrap_or(MAX_ITEMS);
    let mut items = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let left = u32::try_from(most.saturating_sub(items.len())).unwrap_or(u32::MAX);
        let page = fetch(Paging { after: after.clone(), limit: limit.map(|_| left) }).await?;
        items.extend(page.items);
        if items.len() >= most {
            items.truncate(most);
            return Ok(items);
        }
        match page.next {
            None => return Ok(items),
            next if next == after => return Err(Failure::new(Exit::Failed, "the node's list does not end")),
            next => after = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(limit: Option<usize>, next: impl Fn(u32) -> Option<String>) -> Result<Vec<u32>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(gather(limit, async |paging: Paging| {
            let first: u32 = paging.after.map_or(0, |a| a.parse().unwrap());
            Ok(wire::Page { items: vec![first, first + 1], next: next(first + 2) })
        }))
    }

    #[test]
    fn pages_are_followed_to_the_end_or_the_limit() {
        let until_six = |n: u32| (n < 6).then(|| n.to_string());
        assert_eq!(gathered(None, until_six).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(gathered(Some(3), until_six).unwrap(), [0, 1, 2]);
        assert!(gathered(None, |_| Some("2".into())).is_err());
    }
}
