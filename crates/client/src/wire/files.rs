//! The bodies of the routes of files, in the shape of OpenAI's files endpoints, and of bulk jobs.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /v1/files` | a form with `purpose` and `file` | [`File`] |
//! | `PUT /api/v1/files` `?name= &purpose= &keep_seconds=` | the bytes | 201 [`File`] |
//! | `GET /v1/files` `?limit= &after= &purpose=` | | [`FileList`] |
//! | `GET /v1/files/{id}` | | [`File`] |
//! | `GET /v1/files/{id}/content` | | the bytes |
//! | `DELETE /v1/files/{id}` | | [`FileDeleted`] |
//! | `POST /api/v1/bulk` | [`NewBulk`] | 202 [`super::jobs::Submitted`] |
//! | `GET /api/v1/jobs/{id}/result` of a bulk job | | [`BulkResult`] |
//! | `GET /api/v1/jobs/{id}/output` | | the output rows; 202 while the job has not ended |
//!
//! All of `/v1/files` is also under `/api/v1/files`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its id.
    pub id: String,
    /// `file`.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// When it was uploaded, in seconds since 1970.
    pub created_at: u64,
    /// When it will be gone, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// What its uploader calls it.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// `processed`.
    pub status: String,
    /// The digest of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// A page of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// `list`.
    pub object: String,
    /// Newest first.
    pub data: Vec<File>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// The first one's id.
    pub first_id: Option<String>,
    /// The last one's id, which is the `after` of the next page.
    pub last_id: Option<String>,
}

/// A file that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDeleted {
    /// Its id.
    pub id: String,
    /// `file`.
    pub object: String,
    /// Always.
    pub deleted: bool,
}

/// A file of rows for a model. What a job may say of when and how it runs may be said too (`class`, `priority`, `webhook`, …).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NewBulk {
    /// The model.
    pub model: String,
    /// Its version; the default one when the job begins otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The id of the file.
    pub file: String,
    /// `json-lines`, `csv` or `parquet`; what the file's name says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where the elements of inputs stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, BulkInput>,
    /// The wished outputs; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// `jsonl` or `csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
    /// Rows of one inference; as many as the model takes otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Inferences at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Which jobs go first when the node is busy; `background` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Words by which it is found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where an input's elements stand in a row: one of these at most; in the field of the input's name otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BulkInput {
    /// In this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// In these fields, one for each element.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// In fields of this prefix and a number, counted from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The shape of one row, for inputs that leave dimensions open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
}

/// What a bulk job has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkResult {
    /// Input rows, which is output rows.
    pub rows: u64,
    /// How many of them have an error.
    pub failed: u64,
    /// Bytes of the output.
    pub bytes: u64,
    /// `json-lines` or `csv`.
    pub format: String,
    /// The version that answered.
    #[serde(default)]
    pub version: Option<u64>,
}

/// How far a bulk job is: what its event `rows` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRows {
    /// Rows that are written.
    pub rows: u64,
    /// How many of them have an error.
    pub failed: u64,
}
