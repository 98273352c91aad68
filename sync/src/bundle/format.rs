//! The frames that are in bundles and receipts only. Optional types, so that a session would skip them.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::chunk::BlobHash;
use crate::id::{Epoch, NodeId};
use crate::store::Peer;
use crate::wire::FRAME_HEADER_BYTES;

/// Opens a bundle.
pub const BUNDLE: u8 = 160;
/// Ends a segment.
pub const SEAL: u8 = 161;
/// Opens a receipt.
pub const RECEIPT: u8 = 162;
/// Names content that follows.
pub const CONTENT: u8 = 163;

/// The form of bundles and receipts that is described in docs/PROTOCOL.md.
pub const VERSION: u16 = 1;
/// Blobs named in one CONTENT frame, at most.
pub const CONTENT_ENTRIES_MAX: usize = 90;

/// Body of BUNDLE.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub(super) struct BundleHead {
    #[n(0)]
    pub(super) version: u16,
    #[n(1)]
    pub(super) expires_unix_ms: u64,
    #[n(2)]
    pub(super) certificate: Option<ByteVec>,
    #[n(3)]
    pub(super) reader: Option<PeerBody>,
}

/// Body of RECEIPT.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub(super) struct ReceiptHead {
    #[n(0)]
    pub(super) version: u16,
    #[n(1)]
    pub(super) exporter: PeerBody,
    #[n(2)]
    pub(super) certificate: Option<ByteVec>,
    #[n(3)]
    #[cbor(default)]
    pub(super) lacks_more: bool,
}

/// A replica in one of its epochs.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(array)]
pub(super) struct PeerBody {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    epoch: Epoch,
}

impl From<Peer> for PeerBody {
    fn from(peer: Peer) -> Self {
        Self { node: peer.node, epoch: peer.epoch }
    }
}

impl From<PeerBody> for Peer {
    fn from(body: PeerBody) -> Self {
        Self { node: body.node, epoch: body.epoch }
    }
}

/// Body of SEAL.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub(super) struct Seal {
    #[n(0)]
    pub(super) index: u32,
    #[n(1)]
    pub(super) hash: ByteArray<32>,
    #[n(2)]
    pub(super) signature: Option<ByteVec>,
    #[n(3)]
    #[cbor(default)]
    pub(super) end: bool,
}

impl Seal {
    /// What is signed: a seal cannot be moved to another place of the file, nor an end be made of one.
    pub(super) fn message(index: u32, hash: &[u8; 32], end: bool) -> Vec<u8> {
        [&b"alexandria 2026 segment seal"[..], &index.to_be_bytes(), &[u8::from(end)], hash].concat()
    }
}

/// Body of CONTENT.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub(super) struct Content {
    #[n(0)]
    pub(super) blobs: Vec<ContentEntry>,
}

/// A blob that follows.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(array)]
pub(super) struct ContentEntry {
    #[n(0)]
    pub(super) blob: BlobHash,
    #[n(1)]
    pub(super) size_bytes: u64,
}

/// A whole frame of one of the types above.
pub(super) fn frame<T: Encode<()>>(frame_type: u8, body: &T) -> Bytes {
    let body = minicbor::to_vec(body).expect("encoding to memory cannot fail");
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + body.len());
    frame.put_u32(body.len() as u32);
    frame.put_u8(frame_type);
    frame.put_u8(0);
    frame.put_slice(&body);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::SMALL_BYTES_MAX;

    #[test]
    fn the_largest_list_of_content_fits_into_a_frame() {
        let entry = ContentEntry { blob: BlobHash::from_bytes([0xff; 32]), size_bytes: u64::MAX };
        let frame = frame(CONTENT, &Content { blobs: vec![entry; CONTENT_ENTRIES_MAX] });
        assert!(frame.len() <= FRAME_HEADER_BYTES + SMALL_BYTES_MAX, "{}", frame.len());
    }
}
