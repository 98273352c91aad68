//! The few S3 calls that the content store makes, on one S3 bucket.
//!
//! Every call has a timeout and a few tries (`aws`); what fails after those is an [`ObjectError`].

use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use bytes::Bytes;

/// Keys in one call to delete or list, at most: a limit of S3.
const KEYS_MAX: usize = 1000;
/// Lists of what is to be removed that are asked for, at most, before it is given up for this time.
const ERASE_ROUNDS_MAX: usize = 1000;
/// S3's word for a range past the end of an object.
const TOO_SHORT: &str = "InvalidRange";
/// Bytes that one copy inside S3 moves; S3 allows 5 GiB.
const COPY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why S3 did not do it.
#[derive(Debug, thiserror::Error)]
#[error("S3 {operation} of {key}")]
pub struct ObjectError {
    /// What was asked.
    pub operation: &'static str,
    /// Of which object, or bucket.
    pub key: String,
    /// S3's own word for it, if it answered.
    pub code: Option<String>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ObjectError {
    fn new<E, R>(operation: &'static str, key: &str, error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let code = error.code().map(str::to_owned);
        Self { operation, key: key.to_owned(), code, source: Box::new(error) }
    }

    fn other(operation: &'static str, key: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation, key: key.to_owned(), code: None, source: source.into() }
    }

    /// A body that ended before its time.
    pub(super) fn broken_off(key: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::other("get", key, source)
    }

    /// Whether the object ends before what was asked for.
    pub fn is_too_short(&self) -> bool {
        self.code.as_deref() == Some(TOO_SHORT)
    }

    /// Whether the server does not know such a call: not all that speak S3 know all of it.
    fn is_unknown_call(&self) -> bool {
        matches!(self.code.as_deref(), Some("NotImplemented" | "MethodNotAllowed"))
    }

    /// Whether an upload cannot be completed with the parts that were noted: one is gone, or not what it was.
    pub fn refuses_parts(&self) -> bool {
        matches!(self.code.as_deref(), Some("InvalidPart" | "InvalidPartOrder" | "EntityTooSmall"))
    }

    /// Whether there is no such object or upload.
    pub fn is_missing(&self) -> bool {
        matches!(self.code.as_deref(), Some("NoSuchKey" | "NoSuchUpload" | "NotFound"))
    }
}

/// A multipart upload that S3 knows of.
#[derive(Clone, Debug)]
pub(super) struct OpenUpload {
    /// Its object.
    pub(super) key: String,
    /// Its id.
    pub(super) upload_id: String,
}

/// One S3 bucket.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    client: Client,
    bucket: String,
}

impl Objects {
    /// The bucket of this name.
    pub(super) fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Whether the bucket is there and ours.
    pub(super) async fn check_bucket(&self) -> Result<(), ObjectError> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        answer.map(|_| ()).map_err(|error| ObjectError::new("check", &self.bucket, error))
    }

    /// Writes a whole object.
    pub(super) async fn put(&self, key: &str, bytes: Bytes, media_type: &str) -> Result<(), ObjectError> {
        let call = self.client.put_object().bucket(&self.bucket).key(key).content_type(media_type);
        let answer = call.body(ByteStream::from(bytes)).send().await;
        answer.map(|_| ()).map_err(|error| ObjectError::new("put", key, error))
    }

    /// Starts reading `len` bytes from `offset`; `None` if there is no such object. `len` is not 0.
    pub(super) async fn open(&self, key: &str, offset: u64, len: u64) -> Result<Option<ByteStream>, ObjectError> {
        let range = format!("bytes={offset}-{}", offset + len - 1);
        let answer = self.client.get_object().bucket(&self.bucket).key(key).range(range).send().await;
        match answer.map_err(|error| ObjectError::new("get", key, error)) {
            Ok(answer) => Ok(Some(answer.body)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads `len` bytes from `offset`; `None` if there is no such object.
    pub(super) async fn read(&self, key: &str, offset: u64, len: u64) -> Result<Option<Bytes>, ObjectError> {
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let Some(body) = self.open(key, offset, len).await? else { return Ok(None) };
        let bytes = body.collect().await.map_err(|error| ObjectError::other("get", key, error))?.into_bytes();
        if bytes.len() as u64 == len {
            return Ok(Some(bytes));
        }
        let code = Some(TOO_SHORT.to_owned());
        Err(ObjectError { operation: "get", key: key.to_owned(), code, source: "short answer".into() })
    }

    /// The size of an object in bytes; `None` if there is none.
    pub(super) async fn size_bytes(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer.map_err(|error| ObjectError::new("head", key, error)) {
            Ok(answer) => Ok(answer.content_length().and_then(|length| u64::try_from(length).ok())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes objects. Those that are not there are removed already.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), ObjectError> {
        let keys: Vec<(String, Option<String>)> = keys.iter().map(|key| (key.clone(), None)).collect();
        self.delete_versions(&keys).await
    }

    /// Removes versions of objects, by key and version; without one, the object.
    async fn delete_versions(&self, versions: &[(String, Option<String>)]) -> Result<(), ObjectError> {
        for versions in versions.chunks(KEYS_MAX) {
            let first = versions.first().map_or("", |(key, _)| key.as_str());
            let identifier = |(key, version): &(String, Option<String>)| {
                ObjectIdentifier::builder().key(key).set_version_id(version.clone()).build()
            };
            let objects: Result<Vec<_>, _> = versions.iter().map(identifier).collect();
            let delete = objects
                .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build())
                .map_err(|error| ObjectError::other("delete", first, error))?;
            let answer = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await;
            let answer = answer.map_err(|error| ObjectError::new("delete", first, error))?;
            if let Some(error) = answer.errors().first() {
                let message = error.message().unwrap_or("refused").to_owned();
                return Err(ObjectError::other("delete", error.key().unwrap_or(first), message));
            }
        }
        Ok(())
    }

    /// Removes all that S3 has under `prefix`: objects, unfinished uploads and, where a bucket keeps them, old versions.
    pub(super) async fn erase_under(&self, prefix: &str) -> Result<(), ObjectError> {
        for _ in 0..ERASE_ROUNDS_MAX {
            let answer = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix).send().await;
            let answer = answer.map_err(|error| ObjectError::new("list uploads", &format!("{prefix}*"), error))?;
            let is_free_of_uploads = answer.uploads().is_empty();
            for upload in answer.uploads() {
                let (Some(key), Some(upload_id)) = (upload.key(), upload.upload_id()) else { continue };
                self.abort_upload(key, upload_id).await?;
            }
            let mut doomed = Vec::new();
            let answer = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).send().await;
            let answer = answer.map_err(|error| ObjectError::new("list", &format!("{prefix}*"), error))?;
            doomed.extend(answer.contents().iter().filter_map(|object| Some((object.key()?.to_owned(), None))));
            if doomed.is_empty() {
                doomed = self.versions_under(prefix).await?;
            }
            if doomed.is_empty() && is_free_of_uploads {
                return Ok(());
            }
            self.delete_versions(&doomed).await?;
        }
        Err(ObjectError::other("erase", prefix, "there is always more"))
    }

    /// Old versions under `prefix`, and what S3 remembers of deletions, from the first [`KEYS_MAX`].
    async fn versions_under(&self, prefix: &str) -> Result<Vec<(String, Option<String>)>, ObjectError> {
        let answer = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix).send().await;
        match answer.map_err(|error| ObjectError::new("list versions", &format!("{prefix}*"), error)) {
            Ok(answer) => {
                let versions = answer.versions().iter().map(|version| (version.key(), version.version_id()));
                let markers = answer.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
                let owned =
                    |(key, version): (Option<&str>, Option<&str>)| Some((key?.to_owned(), Some(version?.to_owned())));
                Ok(versions.chain(markers).filter_map(owned).collect())
            }
            // A server without versions keeps none.
            Err(error) if error.is_unknown_call() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Of so many objects under `prefix` after one of this key those that are older than `age`, and after which key there are more.
    pub(super) async fn older_than(
        &self,
        prefix: &str,
        age: Duration,
        (after, keys_max): (Option<String>, u16),
    ) -> Result<(Vec<String>, Option<String>), ObjectError> {
        let call = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_start_after(after);
        let answer = call
            .max_keys(keys_max.into())
            .send()
            .await
            .map_err(|error| ObjectError::new("list", &format!("{prefix}*"), error))?;
        let objects = answer.contents();
        let last = objects.last().and_then(|object| object.key()).map(str::to_owned);
        let old = objects.iter().filter(|object| is_older(object.last_modified(), age));
        let keys = old.filter_map(|object| object.key().map(str::to_owned)).collect();
        Ok((keys, last.filter(|_| answer.is_truncated() == Some(true))))
    }

    /// Starts a multipart upload; returns its id.
    pub(super) async fn create_upload(&self, key: &str, media_type: &str) -> Result<String, ObjectError> {
        let call = self.client.create_multipart_upload().bucket(&self.bucket).key(key).content_type(media_type);
        let answer = call.send().await.map_err(|error| ObjectError::new("create upload", key, error))?;
        let upload_id = answer.upload_id().map(str::to_owned);
        upload_id.ok_or_else(|| ObjectError::other("create upload", key, "answer without an id"))
    }

    /// Uploads a part, counted from 0; returns its tag.
    pub(super) async fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        part: u32,
        bytes: Bytes,
    ) -> Result<String, ObjectError> {
        let call = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload_id);
        let answer = call.part_number(part_number(part)).body(ByteStream::from(bytes)).send().await;
        let answer = answer.map_err(|error| ObjectError::new("upload part", key, error))?;
        let tag = answer.e_tag().map(str::to_owned);
        tag.ok_or_else(|| ObjectError::other("upload part", key, "answer without a tag"))
    }

    /// Makes an object of the parts, which are given by their tags from the first on.
    pub(super) async fn complete_upload(&self, key: &str, upload_id: &str, tags: &[String]) -> Result<(), ObjectError> {
        let parts = (0..)
            .zip(tags)
            .map(|(part, tag)| CompletedPart::builder().part_number(part_number(part)).e_tag(tag).build());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let call = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        let answer = call.multipart_upload(parts).send().await;
        answer.map(|_| ()).map_err(|error| ObjectError::new("complete upload", key, error))
    }

    /// Gives up a multipart upload; what is gone already is fine.
    pub(super) async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), ObjectError> {
        let call = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        match call.send().await.map_err(|error| ObjectError::new("abort upload", key, error)) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Of so many multipart uploads after one those that are older than `age`, and after which there are more.
    pub(super) async fn uploads_older_than(
        &self,
        age: Duration,
        (after, uploads_max): (Option<OpenUpload>, u16),
    ) -> Result<(Vec<OpenUpload>, Option<OpenUpload>), ObjectError> {
        let (key, upload_id) = after.map(|after| (after.key, after.upload_id)).unzip();
        let call = self.client.list_multipart_uploads().bucket(&self.bucket);
        let call = call.max_uploads(uploads_max.into());
        let answer = call.set_key_marker(key).set_upload_id_marker(upload_id).send().await;
        let answer = answer.map_err(|error| ObjectError::new("list uploads", "*", error))?;
        let upload = |key: Option<&str>, upload_id: Option<&str>| {
            Some(OpenUpload { key: key?.to_owned(), upload_id: upload_id?.to_owned() })
        };
        let last = upload(answer.next_key_marker(), answer.next_upload_id_marker());
        let old = answer.uploads().iter().filter(|upload| is_older(upload.initiated(), age));
        let uploads = old.filter_map(|old| upload(old.key(), old.upload_id())).collect();
        Ok((uploads, last.filter(|_| answer.is_truncated() == Some(true))))
    }

    /// Copies an object of `size_bytes` inside S3, in pieces if it is large.
    pub(super) async fn copy(
        &self,
        from: &str,
        to: &str,
        size_bytes: u64,
        media_type: &str,
    ) -> Result<(), ObjectError> {
        let source = format!("{}/{from}", self.bucket);
        if size_bytes <= COPY_BYTES_MAX {
            let call = self.client.copy_object().bucket(&self.bucket).key(to).copy_source(source);
            let answer = call.send().await;
            return answer.map(|_| ()).map_err(|error| ObjectError::new("copy", to, error));
        }
        let upload_id = self.create_upload(to, media_type).await?;
        let copied = self.copy_parts(&source, to, &upload_id, size_bytes).await;
        if copied.is_err() {
            // What cannot be removed now is found by the sweep.
            let _ = self.abort_upload(to, &upload_id).await;
        }
        copied
    }

    async fn copy_parts(&self, source: &str, to: &str, upload_id: &str, size_bytes: u64) -> Result<(), ObjectError> {
        let mut tags = Vec::new();
        for (part, start) in (0u32..).zip((0..size_bytes).step_by(COPY_BYTES_MAX as usize)) {
            let end = (start + COPY_BYTES_MAX).min(size_bytes);
            let call = self.client.upload_part_copy().bucket(&self.bucket).key(to).upload_id(upload_id);
            let call = call.copy_source(source).copy_source_range(format!("bytes={start}-{}", end - 1));
            let answer = call.part_number(part_number(part)).send().await;
            let answer = answer.map_err(|error| ObjectError::new("copy part", to, error))?;
            let tag = answer.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
            tags.push(tag.ok_or_else(|| ObjectError::other("copy part", to, "answer without a tag"))?);
        }
        self.complete_upload(to, upload_id, &tags).await
    }
}

/// S3 counts from 1.
fn part_number(part: u32) -> i32 {
    part as i32 + 1
}

fn is_older(time: Option<&aws_sdk_s3::primitives::DateTime>, age: Duration) -> bool {
    let Some(time) = time.and_then(|time| SystemTime::try_from(*time).ok()) else { return false };
    SystemTime::now().duration_since(time).is_ok_and(|elapsed| elapsed > age)
}
