//! Every limit of the API in one place. What a host may set is in [`Limits`]; the rest is part of the contract.

use alexandria_sync::chunk::CHUNK_BYTES_MAX;
use alexandria_sync::chunk::manifest::CHUNKS_MAX;
use alexandria_sync::record::encoding::{RECORD_BYTES_MAX, VALUE_DEPTH_MAX};

/// Bytes of a JSON body, at most. A record may be as large, and JSON is wordier than its encoding.
pub const JSON_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;
/// Objects and arrays inside each other in a JSON body, at most.
pub const JSON_DEPTH_MAX: usize = VALUE_DEPTH_MAX;
/// Entries of a list page, at most.
pub const PAGE_SIZE_MAX: usize = crate::catalogue::PAGE_SIZE_MAX;
/// Entries of a list page, unless the client says how many.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// Characters of a full-text query, at most.
pub const QUERY_CHARS_MAX: usize = 200;
/// Rows of one page of changes, at most, and unless the client says how many.
pub const CHANGES_MAX: usize = 500;
/// Ranges of content in one request, at most; a request for more is answered with the whole.
pub const RANGES_MAX: usize = 16;
/// Bytes of a `Range` header, at most; a longer one is ignored.
pub const RANGE_HEADER_BYTES_MAX: usize = 1024;
/// Characters of the name to save content under, at most.
pub const FILE_NAME_CHARS_MAX: usize = 255;
/// Characters of a media type, at most.
pub const MEDIA_TYPE_CHARS_MAX: usize = 127;
/// Entity tags in one `If-Match` or `If-None-Match`, at most.
pub const ENTITY_TAGS_MAX: usize = 32;
/// How often an edit is worked out anew because somebody else was faster, at most.
pub const EDIT_ATTEMPTS_MAX: usize = 8;
/// Seconds after which a refused client may ask again.
pub const RETRY_AFTER_S: u32 = 2;
/// Seconds between comments that keep an event stream open.
pub const SSE_KEEP_ALIVE_S: u64 = 15;

/// The limits that a host sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one upload, at most.
    pub upload_bytes_max: u64,
    /// Seconds that a request for changes waits, at most, whatever it asks for.
    pub wait_s_max: u32,
    /// Requests that wait for changes at one time, at most: long polls and event streams.
    pub waiters_max: usize,
    /// Seconds after which an event stream ends, so that its client connects anew.
    pub stream_s_max: u32,
}

impl Limits {
    /// Seconds that a client may ask to wait. A host may answer sooner.
    pub const WAIT_S_MAX: u32 = 60;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes_max: CHUNKS_MAX as u64 * u64::from(CHUNK_BYTES_MAX),
            wait_s_max: Self::WAIT_S_MAX,
            waiters_max: 256,
            stream_s_max: 3600,
        }
    }
}
