//! The same node on PostgreSQL and S3: unchanged but for two addresses.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use plinth_types::{DataType, Dim};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::models::{self, floats, infer};
use crate::support::{Node, NodeOptions};

/// A PostgreSQL database of its own, dropped at the end.
pub(crate) struct Database {
    name: String,
}

const SERVER: &str = "postgres://postgres@127.0.0.1:5432";

impl Database {
    /// `None` where no server answers and none is required.
    pub(crate) async fn create() -> Option<Self> {
        let admin = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(&format!("{SERVER}/postgres"))).await;
        let Ok(Ok(mut admin)) = admin else {
            #[allow(clippy::disallowed_methods, reason = "the test's own switch")]
            let required = std::env::var("PLINTH_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("postgres"), "PostgreSQL is required and does not answer on 127.0.0.1:5432");
            eprintln!("SKIPPED: PostgreSQL does not answer on 127.0.0.1:5432");
            return None;
        };
        let name = format!("plinth_test_{}", std::process::id());
        let create = format!("CREATE DATABASE {name}");
        admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(create))).await.expect("a database");
        Some(Self { name })
    }

    pub(crate) fn url(&self) -> String {
        format!("{SERVER}/{}", self.name)
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("a connection")
    }

    pub(crate) async fn drop(self) {
        let mut admin = PgConnection::connect(&format!("{SERVER}/postgres")).await.expect("a connection");
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(drop))).await.expect("the database goes");
    }
}

/// An S3 server on the loopback, in this process; its address.
async fn s3(root: &std::path::Path) -> String {
    std::fs::create_dir(root.join("models")).expect("a bucket");
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).expect("a directory"));
    builder.set_auth(SimpleAuth::from_single("plinth", "secret-of-the-test"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    #[allow(clippy::disallowed_methods, reason = "the test's runtime ends with the test")]
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            #[allow(clippy::disallowed_methods, reason = "the test's runtime ends with the test")]
            tokio::spawn(
                async move { Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.map_err(drop) },
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_postgresql_and_s3_registers_serves_and_survives_their_loss() {
    let Some(database) = Database::create().await else { return };
    let root = tempfile::tempdir().unwrap();
    let endpoint = s3(root.path()).await;
    let options = NodeOptions::dev()
        .set("metadata.url", &format!("{:?}", database.url()))
        .set("objects.url", "\"s3://models/some/prefix\"")
        .set("objects.s3_endpoint", &format!("{endpoint:?}"))
        .set("objects.s3_allow_http", "true")
        .set("objects.s3_access_key", "\"plinth\"")
        .set("objects.s3_secret_key", "\"secret-of-the-test\"");
    let mut node = Node::start(options).await;
    let x = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(2)]);
    models::deploy(&node, "x", x.path()).await;
    models::push(&node, "digits", &models::digits(2), &["champion"]).await;
    models::default_is(&node, "digits", 1).await;
    let status = node.client().status().await.unwrap();
    assert!(status.metadata.starts_with("postgresql 1"), "{}", status.metadata);
    assert!(status.objects.contains("s3"), "{}", status.objects);
    assert!(!node.data_dir().join("objects").exists(), "nothing is kept on disk but the cache");

    // Every connection is cut: serving does not notice, and writing works again by itself.
    let mut admin = database.connect().await;
    admin
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'plinth' AND datname = current_database()",
        )
        .await
        .unwrap();
    assert_eq!(infer(&node, "x", &floats(&[1.0, 2.0])).await.0, 200);
    models::push(&node, "x", &models::digits(1), &[]).await;
    admin.close().await.unwrap();

    // Both are gone: a restart serves from the snapshot and the cache.
    node.stop().await;
    node.set("metadata.url", "\"postgres://nobody@127.0.0.1:1/none\"");
    node.set("objects.s3_endpoint", "\"http://127.0.0.1:1\"");
    node.restart().await;
    models::default_is(&node, "digits", 1).await;
    assert_eq!(infer(&node, "x", &floats(&[1.0, 2.0])).await.0, 200);
    node.kill();
    database.drop().await;
}
