//! Trace settings, and the records that they ask for (trace extension).
//!
//! With the level TIMESTAMPS every `trace_rate`-th request, until `trace_count` is used up, leaves one record in the log under
//! the target [`plinth_telemetry::TRACE_TARGET`]. A model follows its tenant's global settings in whatever it does not set
//! itself, and counts for itself once it sets anything. Invariants: a tenant sees and moves its own settings only; while
//! nothing is traced a request pays one relaxed load. Settings live as long as the process.

mod record;
mod settings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use plinth_runtime::World;
use plinth_types::{Error, ModelName, Reason, RequestId, Result, TenantName};

pub use record::{Stamps, Trace, Traced};
pub use settings::{Change, Shown};
use settings::{Own, Rule};

/// The most models with settings of their own, of one tenant.
const MAX_MODELS: usize = 4096;

/// The trace settings of a node.
pub struct Traces {
    /// Whether anything is traced at all.
    any: AtomicBool,
    books: ArcSwap<HashMap<TenantName, Arc<Book>>>,
    /// Held while a book is replaced; requests read without.
    writing: Mutex<()>,
    world: World,
}

/// One tenant's settings.
#[derive(Default, Clone)]
struct Book {
    own: Own,
    rule: Arc<Rule>,
    models: HashMap<ModelName, (Own, Arc<Rule>)>,
}

impl Book {
    fn rule(&self, model: &ModelName) -> &Arc<Rule> {
        self.models.get(model).map_or(&self.rule, |(_, rule)| rule)
    }
}

impl Traces {
    /// Nothing is traced yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { any: AtomicBool::new(false), books: ArcSwap::default(), writing: Mutex::new(()), world }
    }

    /// The settings in force for a model, or the tenant's global ones. Whether the model exists is for the caller to check.
    #[must_use]
    pub fn get(&self, tenant: &TenantName, model: Option<&ModelName>) -> Shown {
        match self.books.load().get(tenant) {
            None => Rule::default().show(),
            Some(book) => model.map_or(&book.rule, |model| book.rule(model)).show(),
        }
    }

    /// Changes settings of a model, or the tenant's global ones: all of them or, with an error, none. What is in force then.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] naming the setting, [`Reason::NotImplemented`] for what this server does not trace.
    pub fn update(&self, tenant: &TenantName, model: Option<&ModelName>, changes: &[Change]) -> Result<Shown> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut books = HashMap::clone(&self.books.load());
        let mut book = books.get(tenant).map(|book| Book::clone(book)).unwrap_or_default();
        match model {
            None => {
                book.own.apply(changes)?;
                book.rule = book.rule.renewed(&Own::default(), &book.own);
                for (own, rule) in book.models.values_mut() {
                    *rule = rule.renewed(&book.own, own);
                }
            }
            Some(model) => {
                let (mut own, old) = book.models.remove(model).unwrap_or_else(|| (Own::default(), book.rule.clone()));
                own.apply(changes)?;
                if own != Own::default() {
                    if book.models.len() >= MAX_MODELS {
                        let text = format!("at most {MAX_MODELS} models have trace settings of their own; clear another's");
                        return Err(Error::new(Reason::OverCapacity, text));
                    }
                    // Its own counting begins with its first own setting.
                    let old = if Arc::ptr_eq(&old, &book.rule) { Arc::default() } else { old };
                    let rule = old.renewed(&book.own, &own);
                    book.models.insert(model.clone(), (own, rule));
                }
            }
        }
        let shown = model.map_or(&book.rule, |model| book.rule(model)).show();
        books.insert(tenant.clone(), Arc::new(book));
        let any = books.values().any(|book| book.rule.traces() || book.models.values().any(|(_, rule)| rule.traces()));
        self.books.store(Arc::new(books));
        self.any.store(any, Ordering::Relaxed);
        Ok(shown)
    }

    /// Whether anything is traced at all: one relaxed load.
    #[inline]
    #[must_use]
    pub fn on(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The trace of a request that begins now, if this one is to be traced. It must be told how the request ended; one that
    /// is dropped before was cancelled.
    #[inline]
    #[must_use]
    pub fn begin(&self, tenant: &TenantName, model: &ModelName, request: &RequestId) -> Option<Trace> {
        if !self.on() {
            return None;
        }
        let sampled = self.books.load().get(tenant).is_some_and(|book| book.rule(model).sample());
        sampled.then(|| Trace::begin(&self.world, model, request))
    }
}

#[cfg(test)]
mod tests;
