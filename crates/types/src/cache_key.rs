//! The key of a cached answer.
//!
//! Invariant: a key is computed here from what the answer depends on, tenant first, and is never
//! taken from a request. Every part enters the hash with its length before it, so no two
//! different lists of parts give one key.

use crate::{Digest, DigestHasher, TenantName, Tensor};

/// Names a cached answer: tenant, the exact version that answers, and the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The key of what `version` (its content digest) answers to `inputs` for `tenant`; `outputs` are the names
    /// that were asked for, empty for all.
    #[must_use]
    pub fn new(tenant: &TenantName, version: &Digest, inputs: &[Tensor], outputs: &[String]) -> Self {
        let mut hasher = DigestHasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(tenant.as_str().as_bytes());
        part(version.as_bytes());
        part(&(inputs.len() as u64).to_le_bytes());
        for input in inputs {
            part(input.name().as_bytes());
            part(input.datatype().name().as_bytes());
            part(&(input.shape().dims().len() as u64).to_le_bytes());
            for dim in input.shape().dims() {
                part(&dim.to_le_bytes());
            }
            part(input.data());
        }
        for output in outputs {
            part(output.as_bytes());
        }
        Self(hasher.finish())
    }

    /// The key as a digest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, Shape};

    #[test]
    fn every_part_counts() {
        let tenant: TenantName = "a".parse().unwrap();
        let version = Digest::of(b"v");
        let tensor = |name: &str, dims: Vec<u64>| Tensor::new(name, DataType::Uint8, Shape::new(dims).unwrap(), vec![1, 2].into()).unwrap();
        let key = CacheKey::new(&tenant, &version, &[tensor("x", vec![2])], &[]);
        assert_eq!(key, CacheKey::new(&tenant, &version, &[tensor("x", vec![2])], &[]));
        for other in [
            CacheKey::new(&"b".parse().unwrap(), &version, &[tensor("x", vec![2])], &[]),
            CacheKey::new(&tenant, &Digest::of(b"w"), &[tensor("x", vec![2])], &[]),
            CacheKey::new(&tenant, &version, &[tensor("y", vec![2])], &[]),
            CacheKey::new(&tenant, &version, &[tensor("x", vec![1, 2])], &[]),
            CacheKey::new(&tenant, &version, &[tensor("x", vec![2])], &["o".into()]),
        ] {
            assert_ne!(key, other);
        }
    }
}
