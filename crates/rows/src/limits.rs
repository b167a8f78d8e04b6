//! How much of anything a reader takes.

/// The bounds of a reader. None of them grows with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest row in bytes of text, for JSON lines and CSV (the header counts as one). A longer row is skipped without
    /// being kept, and is a row error. A row as JSON values may take 16 times as much memory, not more.
    pub max_row_bytes: usize,
    /// How deep arrays and objects may be inside one another in a row.
    pub max_depth: usize,
    /// The most columns of a CSV or Parquet file, and of what is asked for.
    pub max_columns: usize,
    /// How much memory the buffers of one call of [`crate::Reader::read_columns`] may take, in bytes: fewer rows than asked for come
    /// when more would not fit. One row always comes.
    pub max_batch_bytes: usize,
    /// The most bytes that a compressed source may unpack to. Memory does not depend on it.
    pub max_unpacked_bytes: u64,
    /// The longest footer of a Parquet file, in bytes. What it is parsed into takes several times as much.
    pub max_footer_bytes: usize,
    /// The largest page of a Parquet file, packed or unpacked, in bytes.
    pub max_page_bytes: usize,
    /// How much memory the pages of all columns that are being read may take together, in bytes.
    pub max_pages_bytes: usize,
    /// The most elements of lists that are unpacked together, in all columns of a Parquet file.
    pub max_list_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_row_bytes: 1 << 20,
            max_depth: 32,
            max_columns: 16_384,
            max_batch_bytes: 64 << 20,
            max_unpacked_bytes: 1 << 40,
            max_footer_bytes: 32 << 20,
            max_page_bytes: 64 << 20,
            max_pages_bytes: 512 << 20,
            max_list_elements: 1 << 24,
        }
    }
}
