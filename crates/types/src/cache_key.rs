//! The key of a cached answer.
//!
//! Invariant: a key is computed here from what the answer depends on, tenant first, and is never taken from a request. Every
//! part enters the hash with its length before it and every list with its count, so no two different requests give one key.
//! The order of inputs, of wished outputs and of parameters does not count; everything else does.
//!
//! What an answer does not depend on (the request's id, its priority, its time-outs) is not handed in.

use crate::{Digest, DigestHasher, ModelName, Parameter, Parameters, TenantName, Tensor};

/// Begins every key. Another number makes other keys: to be raised when what is hashed changes.
const FORM: &[u8] = b"plinth response cache 1";

/// Names a cached answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The key as a digest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

/// What the keys of one tenant's requests to one version have in common, hashed once. Cheap to clone.
#[derive(Clone)]
pub struct CacheScope(DigestHasher);

impl CacheScope {
    /// The keys of what `model` answers to `tenant`. `contents` are the content digests of everything that takes part in the
    /// answer, in a fixed order: the version, the versions of its steps, a configuration that replaces the version's own.
    #[must_use]
    pub fn new(tenant: &TenantName, model: &ModelName, contents: &[Digest]) -> Self {
        let mut hasher = DigestHasher::new();
        let mut parts = Parts(&mut hasher);
        parts.bytes(FORM);
        parts.bytes(tenant.as_str().as_bytes());
        parts.bytes(model.as_str().as_bytes());
        parts.number(contents.len() as u64);
        for content in contents {
            parts.bytes(content.as_bytes());
        }
        Self(hasher)
    }

    /// The key of the answer to `inputs`; `outputs` are the names that were asked for, empty for all, and `parameters` those
    /// that no protocol knows.
    ///
    /// Hashes every byte of the inputs: about 1 ms for each 2 MB.
    #[must_use]
    pub fn key(&self, inputs: &[Tensor], outputs: &[String], parameters: &Parameters) -> CacheKey {
        let mut hasher = self.0.clone();
        let mut parts = Parts(&mut hasher);
        parts.number(inputs.len() as u64);
        if inputs.is_sorted_by(|a, b| a.name() <= b.name()) {
            inputs.iter().for_each(|input| parts.tensor(input));
        } else {
            let mut sorted: Vec<_> = inputs.iter().collect();
            sorted.sort_by(|a, b| a.name().cmp(b.name()));
            sorted.into_iter().for_each(|input| parts.tensor(input));
        }
        parts.number(outputs.len() as u64);
        if outputs.is_sorted() {
            outputs.iter().for_each(|output| parts.bytes(output.as_bytes()));
        } else {
            let mut sorted: Vec<_> = outputs.iter().collect();
            sorted.sort();
            sorted.into_iter().for_each(|output| parts.bytes(output.as_bytes()));
        }
        parts.number(parameters.len() as u64);
        for (name, value) in parameters {
            parts.bytes(name.as_bytes());
            parts.parameter(value);
        }
        CacheKey(hasher.finish())
    }
}

impl std::fmt::Debug for CacheScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheScope")
    }
}

/// Takes parts in so that they cannot be told apart wrongly.
struct Parts<'a>(&'a mut DigestHasher);

impl Parts<'_> {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.bytes(tensor.name().as_bytes());
        self.bytes(tensor.datatype().name().as_bytes());
        let dims = tensor.shape().dims();
        self.number(dims.len() as u64);
        dims.iter().for_each(|dim| self.number(*dim));
        self.bytes(tensor.data());
    }

    /// A tag before the value: 1, 1.0 and "1" are three values.
    fn parameter(&mut self, value: &Parameter) {
        let (tag, number) = match value {
            Parameter::Bool(value) => (0u8, u64::from(*value)),
            Parameter::Int(value) => (1, value.cast_unsigned()),
            Parameter::Uint(value) => (2, *value),
            Parameter::Double(value) => (3, value.to_bits()),
            Parameter::Text(text) => {
                self.0.update(&[4]);
                return self.bytes(text.as_bytes());
            }
        };
        self.0.update(&[tag]);
        self.number(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, Shape};
    use proptest::prelude::*;

    /// All that a key is made of.
    #[derive(Debug, Clone, PartialEq)]
    struct Request {
        tenant: TenantName,
        model: ModelName,
        contents: Vec<Digest>,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        parameters: Parameters,
    }

    impl Request {
        fn key(&self) -> CacheKey {
            CacheScope::new(&self.tenant, &self.model, &self.contents).key(&self.inputs, &self.outputs, &self.parameters)
        }

        /// The same request, whatever the order of its lists.
        fn canonical(&self) -> Self {
            let mut request = self.clone();
            request.inputs.sort_by(|a, b| a.name().cmp(b.name()));
            request.outputs.sort();
            request
        }
    }

    fn tensor(name: &str, datatype: DataType, dims: &[u64], data: &[u8]) -> Tensor {
        Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), data.to_vec().into()).unwrap()
    }

    fn request() -> Request {
        Request {
            tenant: "a".parse().unwrap(),
            model: "m".parse().unwrap(),
            contents: vec![Digest::of(b"v")],
            inputs: vec![tensor("x", DataType::Uint8, &[2], &[1, 2]), tensor("y", DataType::Uint8, &[1], &[3])],
            outputs: vec!["o".into(), "p".into()],
            parameters: [("seed".to_owned(), Parameter::Uint(1))].into(),
        }
    }

    #[test]
    fn every_part_counts() {
        let base = request();
        let change = |f: &dyn Fn(&mut Request)| {
            let mut other = request();
            f(&mut other);
            assert_ne!(base.key(), other.key(), "{other:?}");
        };
        change(&|r| r.tenant = "b".parse().unwrap());
        change(&|r| r.model = "n".parse().unwrap());
        change(&|r| r.contents[0] = Digest::of(b"w"));
        change(&|r| r.contents.push(Digest::of(b"step")));
        change(&|r| r.inputs[0] = tensor("z", DataType::Uint8, &[2], &[1, 2]));
        change(&|r| r.inputs[0] = tensor("x", DataType::Int8, &[2], &[1, 2]));
        change(&|r| r.inputs[0] = tensor("x", DataType::Uint8, &[1, 2], &[1, 2]));
        change(&|r| r.inputs[0] = tensor("x", DataType::Uint8, &[2], &[1, 3]));
        change(&|r| drop(r.inputs.pop()));
        change(&|r| drop(r.outputs.pop()));
        change(&|r| r.outputs = vec!["op".into()]);
        change(&|r| r.parameters.clear());
        for other in [
            Parameter::Uint(2),
            Parameter::Int(-1),
            Parameter::Double(1.0),
            Parameter::Double(f64::from_bits(1)),
            Parameter::Bool(true),
            Parameter::Text("1".into()),
        ] {
            change(&|r| drop(r.parameters.insert("seed".into(), other.clone())));
        }
        change(&|r| drop(r.parameters.insert("more".into(), Parameter::Bool(false))));
    }

    #[test]
    fn order_does_not_count() {
        let base = request();
        let mut turned = request();
        turned.inputs.reverse();
        turned.outputs.reverse();
        assert_eq!(base.key(), turned.key());
    }

    /// Inputs with different names, in any order.
    fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
        let one = (prop::sample::select(vec![DataType::Uint8, DataType::Int8]), prop::collection::vec(0u8..2, 0..3), any::<bool>());
        prop::collection::btree_map("[ab]{1,2}", one, 0..3)
            .prop_map(|map| {
                let made = map.into_iter().map(|(name, (datatype, data, row))| {
                    let length = data.len() as u64;
                    let dims: &[u64] = if row { &[1, length] } else { &[length] };
                    tensor(&name, datatype, dims, &data)
                });
                made.collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    fn parameter() -> impl Strategy<Value = Parameter> {
        prop_oneof![
            any::<bool>().prop_map(Parameter::Bool),
            (-2i64..0).prop_map(Parameter::Int),
            (0u64..2).prop_map(Parameter::Uint),
            prop::sample::select(vec![0.0, 1.0, -1.0]).prop_map(Parameter::Double),
            "[01a]{0,2}".prop_map(Parameter::Text),
        ]
    }

    fn requests() -> impl Strategy<Value = Request> {
        (
            "[ab]{1,2}",
            "[ab]{1,2}",
            prop::collection::vec(0u8..2, 1..3),
            tensors(),
            prop::collection::btree_set("[ab]{1,2}", 0..3).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            prop::collection::btree_map("[ab]{0,2}", parameter(), 0..3),
        )
            .prop_map(|(tenant, model, contents, inputs, outputs, parameters)| Request {
                tenant: tenant.parse().unwrap(),
                model: model.parse().unwrap(),
                contents: contents.into_iter().map(|n| Digest::of(&[n])).collect(),
                inputs,
                outputs,
                parameters,
            })
    }

    /// A request, and one that is the same in another order, has some parts of a third, or has nothing to do with it.
    fn pairs() -> impl Strategy<Value = (Request, Request)> {
        (requests(), requests(), 0u8..=64).prop_flat_map(|(a, other, mask)| {
            let from = |bit: u8| mask & (1 << bit) != 0;
            let mut b = a.clone();
            if from(0) {
                b.tenant.clone_from(&other.tenant);
            }
            if from(1) {
                b.model.clone_from(&other.model);
            }
            if from(2) {
                b.contents.clone_from(&other.contents);
            }
            if from(3) {
                b.inputs.clone_from(&other.inputs);
            }
            if from(4) {
                b.outputs.clone_from(&other.outputs);
            }
            if from(5) {
                b.parameters.clone_from(&other.parameters);
            }
            let shuffled = (Just(b.inputs.clone()).prop_shuffle(), Just(b.outputs.clone()).prop_shuffle());
            (Just(a), shuffled.prop_map(move |(inputs, outputs)| Request { inputs, outputs, ..b.clone() }))
        })
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_requests_are((a, b) in pairs()) {
            prop_assert_eq!(a.key() == b.key(), a.canonical() == b.canonical());
            prop_assert_eq!(a.key(), a.canonical().key());
        }
    }
}
