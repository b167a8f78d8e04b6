//! Gathers what is wrong with a request, so that all of it is said at once.
//!
//! Invariant: a problem names the whole path of its field, and the first of them decides the reason of the error. A failure
//! that is not the caller's (a store that is away) is never gathered: it ends the work at once.

use plinth_types::{Error, Flaw, Reason, Result};

/// More than these are not listed.
const MOST: usize = 50;

/// The problems so far, and where one is looking.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    prefix: String,
    found: Vec<Flaw>,
    more: usize,
}

impl Problems {
    /// Something makes no sense.
    pub fn add(&mut self, field: &str, text: impl Into<String>) {
        self.add_as(Reason::InvalidResource, field, text);
    }

    /// As [`Problems::add`], for another reason.
    pub fn add_as(&mut self, reason: Reason, field: &str, text: impl Into<String>) {
        if self.found.len() == MOST {
            self.more += 1;
            return;
        }
        self.found.push(Flaw { field: joined(&self.prefix, field), reason, text: text.into() });
    }

    /// Adds the problem unless this holds; whether it does.
    pub fn must(&mut self, holds: bool, field: &str, text: impl FnOnce() -> String) -> bool {
        if !holds {
            self.add(field, text());
        }
        holds
    }

    /// Looks at a part of what is being looked at.
    pub fn within<T>(&mut self, step: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.enter(step);
        let seen = look(self);
        self.leave(before);
        seen
    }

    /// Looks at each item of a list.
    pub fn each<'a, T: 'a>(&mut self, name: &str, items: impl IntoIterator<Item = &'a T>, mut look: impl FnMut(&mut Self, &'a T)) {
        for (at, item) in items.into_iter().enumerate() {
            self.within(&format!("{name}[{at}]"), |problems| look(problems, item));
        }
    }

    /// Goes into a part; the answer leads back by [`Problems::leave`].
    pub fn enter(&mut self, step: &str) -> usize {
        let before = self.prefix.len();
        self.prefix = joined(&self.prefix, step);
        before
    }

    /// Goes back out.
    pub fn leave(&mut self, before: usize) {
        self.prefix.truncate(before);
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.found.len()
    }

    /// The error that tells them all; the first decides its reason.
    ///
    /// # Errors
    /// When there is one at all.
    pub fn into_result(self) -> Result<()> {
        let Some(first) = self.found.first() else { return Ok(()) };
        let others = self.found.len() - 1 + self.more;
        let text = match others {
            0 => first.text.clone(),
            1 => format!("{} (and 1 more problem)", first.text),
            _ => format!("{} (and {others} more problems)", first.text),
        };
        let error = Error::new(first.reason, text);
        let error = if first.field.is_empty() { error } else { error.field(first.field.clone()) };
        Err(if others == 0 { error } else { error.flaws(self.found) })
    }
}

fn joined(prefix: &str, step: &str) -> String {
    let dot = if prefix.is_empty() || step.is_empty() || step.starts_with('[') { "" } else { "." };
    format!("{prefix}{dot}{step}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_their_whole_path() {
        let mut problems = Problems::default();
        problems.within("resources[2]", |p| {
            p.within("spec", |p| {
                p.each("targets", &[1, 0], |p, n| {
                    p.must(*n > 0, "weight", || "none".into());
                })
            });
            p.add("name", "bad");
        });
        let error = problems.into_result().unwrap_err();
        assert_eq!((error.field_name(), error.public_text()), (Some("resources[2].spec.targets[1].weight"), "none (and 1 more problem)"));
        let fields: Vec<_> = error.flaw_list().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["resources[2].spec.targets[1].weight", "resources[2].name"]);
    }

    #[test]
    fn one_problem_is_the_error() {
        let mut problems = Problems::default();
        problems.add_as(Reason::ModelNotFound, "name", "no model");
        let error = problems.into_result().unwrap_err();
        assert_eq!((error.reason(), error.public_text(), error.flaw_list().len()), (Reason::ModelNotFound, "no model", 0));
    }

    #[test]
    fn no_more_than_fifty_are_listed() {
        let mut problems = Problems::default();
        (0..60).for_each(|n| problems.add(&format!("f{n}"), "x"));
        let error = problems.into_result().unwrap_err();
        assert_eq!((error.flaw_list().len(), error.public_text()), (50, "x (and 59 more problems)"));
    }
}
