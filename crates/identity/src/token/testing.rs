//! A provider for tests: keys, tokens, a server for its documents, and a stand-in without a network.
//!
//! `testing/rsa2048.pk8` is a key for these tests and nothing else: `ring` makes no RSA keys.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use plinth_store::resources::Role;
use plinth_store::resources::gateway::IssuerRecord;
use plinth_types::Label;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{FetchError, FetchJwks, KeyStore, base64url::encode};

pub const ISSUER: &str = "https://login.corp.example";
pub const JWKS: &str = "https://login.corp.example/keys";

/// A key of a provider.
pub struct Signer {
    pub kid: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(include_bytes!("testing/rsa2048.pk8")).unwrap())) }
    }

    pub fn p256(kid: &'static str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self { kid, pair: Pair::P256(EcdsaKeyPair::from_pkcs8(how, pair.as_ref(), &random).unwrap()) }
    }

    pub fn p384(kid: &'static str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P384_SHA384_FIXED_SIGNING);
        let pair = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self { kid, pair: Pair::P384(EcdsaKeyPair::from_pkcs8(how, pair.as_ref(), &random).unwrap()) }
    }

    pub fn ed25519(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { kid, pair: Pair::Ed(Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap()) }
    }

    /// The public half as the provider publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public: RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)})
            }
            Pair::P256(pair) => curve("P-256", pair.public_key().as_ref()),
            Pair::P384(pair) => curve("P-384", pair.public_key().as_ref()),
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A signature under an algorithm that this kind of key has; under another its usual one.
    pub fn sign(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let how: &dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(how, &random, text, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, text).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    /// A good token of this key.
    pub fn good(&self, algorithm: &str, claims: &Value) -> String {
        self.token(&json!({"alg": algorithm, "kid": self.kid, "typ": "JWT"}), claims)
    }
}

fn curve(name: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({"kty": "EC", "crv": name, "x": encode(x), "y": encode(y)})
}

/// The document with the public halves of these keys.
pub fn document(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Claims that are good at 1000 seconds after 1970.
pub fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": "plinth", "exp": 2000, "iat": 900, "realm": {"roles": ["ml-users", "ml-ops"]}, "org": "acme"})
}

pub fn record() -> IssuerRecord {
    IssuerRecord {
        description: String::new(),
        issuer: ISSUER.to_owned(),
        audiences: vec!["plinth".to_owned(), "plinth-2".to_owned()],
        jwks_url: Some(JWKS.to_owned()),
        allow_networks: Vec::new(),
        tenant_claim: Some("org".to_owned()),
        tenant: None,
        roles_claim: Some("realm.roles".to_owned()),
        roles: BTreeMap::from([("ml-users".to_owned(), Role::Developer), ("ml-ops".to_owned(), Role::Operator)]),
        default_role: None,
    }
}

/// A provider without a network: documents by address, that can be away, and slow.
#[derive(Default)]
pub struct Provider {
    pub documents: Mutex<HashMap<String, String>>,
    pub asked: AtomicUsize,
    pub away: AtomicBool,
    pub slow: AtomicBool,
}

impl Provider {
    pub fn publish(&self, url: &str, text: impl Into<String>) {
        self.documents.lock().unwrap().insert(url.to_owned(), text.into());
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl FetchJwks for Provider {
    async fn fetch(&self, url: &str, _: &[String]) -> Result<Bytes, FetchError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let found = self.documents.lock().unwrap().get(url).cloned();
        match found.filter(|_| !self.away.load(Ordering::SeqCst)) {
            Some(text) => Ok(text.into()),
            None => Err(FetchError("away".to_owned())),
        }
    }
}

/// Keeps keys in memory.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<Label, Vec<u8>>>);

impl KeyStore for Memory {
    fn load(&self, issuer: &Label) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(issuer).cloned())
    }

    fn save(&self, issuer: &Label, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(issuer.clone(), bytes.to_vec());
        Ok(())
    }
}

/// Serves documents over HTTP on loopback until its task ends; its address.
pub async fn serve(documents: HashMap<&'static str, String>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let base = address.clone();
    #[allow(clippy::disallowed_methods, reason = "a server of a test, ended by its handle")]
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let (status, body) = documents.get(path.as_str()).map_or(("404 Not Found", String::new()), |text| ("200 OK", text.clone()));
            let body = body.replace("{base}", &base);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, task)
}

/// Asks over HTTP, for tests against [`serve`].
pub struct PlainHttp;

#[async_trait]
impl FetchJwks for PlainHttp {
    async fn fetch(&self, url: &str, _: &[String]) -> Result<Bytes, FetchError> {
        let failed = |error: io::Error| FetchError(error.to_string());
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = TcpStream::connect(host).await.map_err(failed)?;
        stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned().into()) } else { Err(FetchError(head.to_owned())) }
    }
}
