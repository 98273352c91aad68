//! Looking into S3, path style.

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::{Aws, elements, escape};
use crate::http::Response;

/// S3 as a test sees it.
pub struct S3<'a>(pub(super) &'a Aws);

impl S3<'_> {
    pub async fn create_bucket(&self, bucket: &str) {
        self.0.request("s3", Method::PUT, &format!("/{bucket}")).ok().await;
    }

    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        self.0.request("s3", Method::PUT, &path(bucket, key)).body(body).ok().await;
    }

    pub async fn delete(&self, bucket: &str, key: &str) {
        self.0.request("s3", Method::DELETE, &path(bucket, key)).ok().await;
    }

    /// The whole object, if it is there.
    pub async fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        Some(self.read(Method::GET, bucket, key).await?.body)
    }

    /// The size of an object, if it is there.
    pub async fn size_bytes(&self, bucket: &str, key: &str) -> Option<u64> {
        let head = self.read(Method::HEAD, bucket, key).await?;
        let length = head.header("content-length").and_then(|length| length.parse().ok());
        Some(length.unwrap_or_else(|| panic!("no length: {head:?}")))
    }

    /// All keys that begin with `prefix`, in order. Fails past the first thousand.
    pub async fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let path = format!("/{bucket}?list-type=2&prefix={}", escape(prefix));
        let answer = self.0.request("s3", Method::GET, &path).ok().await;
        assert_eq!(elements(answer.text(), "IsTruncated"), ["false"], "more objects than one page shows");
        elements(answer.text(), "Key")
    }

    /// Multipart uploads that were neither completed nor aborted: what a careless bridge leaves and pays for.
    pub async fn unfinished_uploads(&self, bucket: &str) -> Vec<String> {
        let answer = self.0.request("s3", Method::GET, &format!("/{bucket}?uploads")).ok().await;
        elements(answer.text(), "UploadId")
    }

    async fn read(&self, method: Method, bucket: &str, key: &str) -> Option<Response> {
        let path = path(bucket, key);
        let answer = self.0.request("s3", method, &path).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {}", crate::http::Chain(&error)));
        if answer.status == StatusCode::NOT_FOUND {
            return None;
        }
        assert!(answer.status.is_success(), "{answer:?}");
        Some(answer)
    }
}

fn path(bucket: &str, key: &str) -> String {
    let key: Vec<String> = key.split('/').map(escape).collect();
    format!("/{bucket}/{}", key.join("/"))
}
