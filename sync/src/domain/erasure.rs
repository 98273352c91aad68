//! The right to be forgotten: that a record is to be erased, and that a replica has erased it. What follows from an
//! [`Erasure`] is decided in `erase`.

use super::InvalidField;
use super::kind_table::kind_table;
use crate::chunk::BlobHash;
use crate::hlc::Stamp;
use crate::id::{BucketId, NodeId, RecordId};
use crate::record::Kind;

/// Blobs that one erasure names, at most: what a record may name, and room for its other versions.
pub const ERASED_BLOBS_MAX: usize = 4_000;

kind_table! {
    /// A record of this bucket, and the content that only it names, are to be nowhere. Never changed once it is written.
    Erasure = 20 "erasure" {
        /// The kind of the erased record.
        1 lww kind: u16,
        /// Its id.
        2 lww record: RecordId,
        /// The content that versions of it named.
        3 lww blobs: Vec<BlobHash>,
    }
}

kind_table! {
    /// A node has erased all that an [`Erasure`] is about, from its disk too. Lives in the node's site.
    ErasureReceipt = 21 "erasure_receipt" {
        /// The erasure.
        1 lww erasure: RecordId,
        /// The bucket that it is in.
        2 lww bucket: Option<BucketId>,
        /// The life of the node's data that it was erased from.
        3 max incarnation: u32,
    }
}

impl Erasure {
    /// The id of the erasure of a record that was ordered at `ordered`, with this content. Replicas that find the same
    /// write the same; two that order the same apart do not, so that no erasure ever changes, and none moves in a feed
    /// behind the tombstones that follow from it.
    pub fn record_id(kind: Kind, id: RecordId, ordered: Stamp, blobs: &[BlobHash]) -> RecordId {
        let (kind, time) = (kind.0.to_be_bytes(), ordered.time.to_bits().to_be_bytes());
        let incarnation = ordered.incarnation.0.to_be_bytes();
        let mut parts: Vec<&[u8]> =
            vec![b"erasure", &kind, id.as_bytes(), &time, ordered.node.as_bytes(), &incarnation];
        parts.extend(blobs.iter().map(|blob| blob.as_bytes().as_slice()));
        RecordId::derived(&parts)
    }

    fn check(&self) -> Result<(), InvalidField> {
        if self.blobs.len() > ERASED_BLOBS_MAX {
            let problem = format!("has {} entries; at most {ERASED_BLOBS_MAX} are allowed", self.blobs.len());
            return Err(InvalidField { field: "blobs", problem });
        }
        Ok(())
    }
}

impl ErasureReceipt {
    /// The id of the receipt of `node` for an erasure.
    pub fn record_id(bucket: BucketId, erasure: RecordId, node: NodeId) -> RecordId {
        RecordId::derived(&[b"erasure receipt", &bucket.to_bytes(), erasure.as_bytes(), node.as_bytes()])
    }

    fn check(&self) -> Result<(), InvalidField> {
        if self.bucket.is_none() {
            return Err(InvalidField { field: "bucket", problem: "must be given".into() });
        }
        Ok(())
    }
}
