//! Whether the audit is what was written: its chain, from the first entry to the last.

use plinth_store::metadata::{AuditLink, Revision};
use plinth_types::{Digest, Result};

use super::Registry;

/// How many entries are read at a time.
const PAGE: u32 = 200;

/// What a look at the whole audit has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries that hold together.
    pub entries: u64,
    /// Those of them that older releases wrote, without a link.
    pub unlinked: u64,
    /// The link of the last of them. Kept elsewhere, it shows later whether somebody has made all links anew.
    pub head: Option<Digest>,
    /// The first entry that does not follow from those before it: it or one before it was changed or taken out.
    pub broken: Option<Revision>,
}

impl AuditReport {
    /// Takes in the next entry; whether it follows.
    fn follow(&mut self, link: &AuditLink) -> bool {
        let in_order = link.revision.0 == self.entries + 1;
        let holds = link.stored.is_none_or(|stored| stored == link.after(self.head));
        if !in_order || !holds {
            self.broken = Some(link.revision);
            return false;
        }
        self.entries += 1;
        self.unlinked += u64::from(link.stored.is_none());
        self.head = Some(link.base());
        true
    }
}

impl Registry {
    /// Reads every entry of the audit, of all tenants, and checks its link. Reads only; entries that are committed meanwhile
    /// may be missing in the report.
    ///
    /// # Errors
    /// `StoreUnavailable`. A chain that is broken is a finding, no error.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        let mut report = AuditReport::default();
        loop {
            let page = self.ledger.audit_chain(Revision(report.entries + 1), PAGE).await?;
            if !page.iter().all(|link| report.follow(link)) || page.is_empty() {
                return Ok(report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_one_another_without_a_gap() {
        let content = Digest::of(b"x");
        let link = |revision, stored| AuditLink { revision: Revision(revision), content, stored };
        let mut report = AuditReport::default();
        let old = link(1, None);
        assert!(report.follow(&old));
        let second = link(2, Some(link(2, None).after(Some(old.base()))));
        assert!(report.follow(&second) && !report.follow(&second));
        assert_eq!((report.entries, report.unlinked, report.head, report.broken), (2, 1, second.stored, Some(Revision(2))));
        assert!(!report.follow(&link(4, None)), "a gap");
        assert!(!report.follow(&link(3, Some(content))), "another link");
    }
}
