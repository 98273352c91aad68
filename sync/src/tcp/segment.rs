//! The bytes of a connection under TLS are segments: a kind, a length, and a body.
//!
//! Pure: bytes in, segments out. Not here: reading and writing them (`connection`).

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::Lane;

/// Bytes before the body: the kind, and the body's length.
pub const HEADER_BYTES: usize = 3;
/// Bytes of a body, at most: with the header, one record of TLS.
pub const BODY_BYTES_MAX: usize = 16_384 - HEADER_BYTES;
/// Bytes of a session's token.
pub const TOKEN_BYTES: usize = 32;
/// Bytes of the reason that a refused peer is told, at most.
pub const REASON_BYTES_MAX: usize = 200;
/// Kinds from here on may be skipped by who does not know them.
const OPTIONAL_KINDS_FROM: u8 = 128;

/// What makes a further connection part of a session. Whoever knows it, and has the certificate, may join.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SessionToken([u8; TOKEN_BYTES]);

impl SessionToken {
    /// Made of bytes that nobody can guess.
    pub fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken")
    }
}

/// One thing that one end says on a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// Bytes of the lane.
    Data(Bytes),
    /// The dialler's first word: a new session, whose control lane this is.
    Begin,
    /// The dialler's first word: another lane of the session with this token.
    Join(SessionToken, Lane),
    /// The listener's first word on the control lane: what others join with.
    Session(SessionToken),
    /// The listener wants to use this lane; the dialler joins with it.
    Open(Lane),
    /// The listener does not let the peer in, and says why.
    Refused(String),
    /// Nothing, but somebody is there.
    KeepAlive,
    /// Of a kind that may be skipped.
    Skipped,
}

/// What is not a segment. The connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SegmentError {
    /// A body longer than any.
    #[error("a segment of {0} bytes")]
    TooLong(usize),
    /// A kind that must be understood and is not.
    #[error("a segment of the unknown kind {0}")]
    UnknownKind(u8),
    /// A body that its kind cannot have.
    #[error("a segment of kind {0} with a body that it cannot have")]
    BadBody(u8),
}

/// The head of a segment whose body is still to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    kind: u8,
    /// Bytes of the body.
    pub body_len: usize,
}

impl SegmentHeader {
    /// Reads a header; a body that is too long is refused before any of it is read.
    ///
    /// # Errors
    ///
    /// [`SegmentError`].
    pub fn decode(header: [u8; HEADER_BYTES]) -> Result<Self, SegmentError> {
        let [kind, high, low] = header;
        let body_len = usize::from(u16::from_be_bytes([high, low]));
        if body_len > BODY_BYTES_MAX {
            return Err(SegmentError::TooLong(body_len));
        }
        Ok(Self { kind, body_len })
    }

    /// Makes the segment of its body.
    ///
    /// # Errors
    ///
    /// [`SegmentError`].
    pub fn decode_body(self, body: Bytes) -> Result<Segment, SegmentError> {
        let bad = SegmentError::BadBody(self.kind);
        match (self.kind, &*body) {
            (0, [_, ..]) => Ok(Segment::Data(body)),
            (1, []) => Ok(Segment::Begin),
            (2, [token @ .., lane]) => {
                let token = token.try_into().map_err(|_| bad)?;
                Ok(Segment::Join(SessionToken(token), Lane::from_number(*lane).ok_or(bad)?))
            }
            (3, token) => Ok(Segment::Session(SessionToken(token.try_into().map_err(|_| bad)?))),
            (4, [lane]) => Ok(Segment::Open(Lane::from_number(*lane).ok_or(bad)?)),
            (5, reason) if reason.len() <= REASON_BYTES_MAX => {
                Ok(Segment::Refused(String::from_utf8_lossy(reason).into_owned()))
            }
            (6, []) => Ok(Segment::KeepAlive),
            (0..=6, _) => Err(bad),
            (OPTIONAL_KINDS_FROM.., _) => Ok(Segment::Skipped),
            (kind, _) => Err(SegmentError::UnknownKind(kind)),
        }
    }
}

impl Segment {
    /// Its bytes. Data longer than [`BODY_BYTES_MAX`], and a reason longer than [`REASON_BYTES_MAX`], are cut off.
    pub fn encode(&self) -> Bytes {
        let (kind, body): (u8, Vec<u8>) = match self {
            Self::Data(data) => (0, data[..data.len().min(BODY_BYTES_MAX)].to_vec()),
            Self::Begin => (1, Vec::new()),
            Self::Join(token, lane) => (2, [&token.0[..], &[lane.number()]].concat()),
            Self::Session(token) => (3, token.0.to_vec()),
            Self::Open(lane) => (4, vec![lane.number()]),
            Self::Refused(reason) => (5, reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)].to_vec()),
            Self::KeepAlive => (6, Vec::new()),
            Self::Skipped => (OPTIONAL_KINDS_FROM, Vec::new()),
        };
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body.len());
        bytes.put_slice(&header_of(kind, body.len()));
        bytes.put_slice(&body);
        bytes.freeze()
    }

    /// The header of so many bytes of a lane, for who has them in a buffer of its own.
    pub fn data_header(len: usize) -> [u8; HEADER_BYTES] {
        header_of(0, len)
    }
}

fn header_of(kind: u8, len: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    [kind, high, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &Bytes) -> Result<Segment, SegmentError> {
        let header = SegmentHeader::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
        assert_eq!(header.body_len, bytes.len() - HEADER_BYTES);
        header.decode_body(bytes.slice(HEADER_BYTES..))
    }

    fn every_kind() -> Vec<Segment> {
        let token = SessionToken::from_bytes([7; TOKEN_BYTES]);
        vec![
            Segment::Data(Bytes::from_static(b"x")),
            Segment::Data(Bytes::from(vec![1; BODY_BYTES_MAX])),
            Segment::Begin,
            Segment::Join(token, Lane::Content(7)),
            Segment::Session(token),
            Segment::Open(Lane::Records),
            Segment::Refused("not welcome".into()),
            Segment::KeepAlive,
            Segment::Skipped,
        ]
    }

    #[test]
    fn every_segment_is_read_as_it_was_written() {
        for segment in every_kind() {
            assert_eq!(decode(&segment.encode()), Ok(segment));
        }
    }

    #[test]
    fn what_is_too_long_unknown_or_malformed_is_refused() {
        assert_eq!(SegmentHeader::decode([0, 0xff, 0xff]), Err(SegmentError::TooLong(65_535)));
        assert_eq!(decode(&Bytes::from_static(&[99, 0, 0])), Err(SegmentError::UnknownKind(99)));
        for bytes in [&[0, 0, 0][..], &[1, 0, 1, 0], &[2, 0, 1, 0], &[3, 0, 1, 0], &[4, 0, 1, 10], &[6, 0, 1, 0]] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(decode(&bytes), Err(SegmentError::BadBody(bytes[0])));
        }
    }

    proptest! {
        /// Whatever a peer sends is a segment or an error.
        #[test]
        fn no_bytes_make_it_panic(header: [u8; HEADER_BYTES], body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(header) = SegmentHeader::decode(header) {
                let _ = header.decode_body(body.into());
            }
        }
    }
}
