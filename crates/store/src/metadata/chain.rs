//! The chain of the audit: each entry carries a digest of itself and of the digest before it.
//!
//! Invariant: a link is made in the transaction that writes its entry, over the columns as they are stored, byte for byte. Who
//! changes or takes out an entry must make all later links anew; kept elsewhere, the last of them shows that.
//! Entries of releases before the chain have no link. The first entry after one of them continues from that entry's
//! content, so that at least this one is held fast.

use plinth_types::{Digest, DigestHasher};

use super::commit::OPERATION;
use super::rows::revision_param;
use super::session::{Param, Row, Session, failed};
use super::statements::{AUDIT_LINK, AUDIT_LINKED};
use super::{MetadataError, Revision};

/// An entry of the audit, as the chain sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLink {
    /// The entry.
    pub revision: Revision,
    /// The digest of what it says.
    pub content: Digest,
    /// The link that stands beside it; `None` when an older release wrote it.
    pub stored: Option<Digest>,
}

impl AuditLink {
    /// The link that must stand beside this entry after `previous`, which is `None` for the very first entry.
    #[must_use]
    pub fn after(&self, previous: Option<Digest>) -> Digest {
        link(previous, &self.content)
    }

    /// What the next entry continues from.
    #[must_use]
    pub fn base(&self) -> Digest {
        self.stored.unwrap_or_else(|| self.after(None))
    }
}

fn link(previous: Option<Digest>, content: &Digest) -> Digest {
    let previous = previous.map(|digest| digest.hex()).unwrap_or_default();
    Digest::of(format!("{previous}\n{}\n", content.hex()).as_bytes())
}

/// The digest of an entry's columns: each with its length before it, so that no two entries read the same.
fn content(numbers: [i64; 2], texts: [&str; 6]) -> Digest {
    let mut hasher = DigestHasher::new();
    for number in numbers {
        hasher.update(&number.to_be_bytes());
    }
    for text in texts {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finish()
}

/// The link of an entry that is about to be written: its columns in the order of the table, revision first.
pub(super) async fn next(session: &mut dyn Session, head: Revision, numbers: [i64; 2], texts: [&str; 6]) -> Result<Digest, MetadataError> {
    let previous = [Param::Int(revision_param(head)?)];
    let found = session.fetch(AUDIT_LINK, &previous).await.map_err(failed(OPERATION))?;
    let previous = match found.into_iter().next() {
        None => None,
        Some(mut row) => match stored(&row.text()?)? {
            Some(link) => Some(link),
            None => {
                let rows = session.fetch(AUDIT_LINKED, &[previous[0], Param::Int(1)]).await.map_err(failed(OPERATION))?;
                rows.into_iter().next().map(read).transpose()?.map(|entry| entry.base())
            }
        },
    };
    Ok(link(previous, &content(numbers, texts)))
}

/// A row of the audit with its link.
pub(super) fn read(mut row: Row) -> Result<AuditLink, MetadataError> {
    let numbers = [row.int()?, row.int()?];
    let texts = [row.text()?, row.text()?, row.text()?, row.text()?, row.text()?, row.text()?];
    let revision = u64::try_from(numbers[0]).map_err(|_| MetadataError::Damaged(format!("{} is not a revision", numbers[0])))?;
    let content = content(numbers, texts.each_ref().map(String::as_str));
    Ok(AuditLink { revision: Revision(revision), content, stored: stored(&row.text()?)? })
}

fn stored(text: &str) -> Result<Option<Digest>, MetadataError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| MetadataError::Damaged("a link of the audit is not a digest".to_owned()))
}
