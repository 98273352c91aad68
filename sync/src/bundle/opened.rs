//! Opens bundles and receipts: reads the head, and decides whether its maker is believed, whether it is still good, and
//! whether it is meant for this replica.

use std::collections::BTreeMap;
use std::io::{self, Read};

use minicbor::Decode;
use minicbor::bytes::ByteVec;

use super::format::{self, BundleHead, VERSION};
use super::segment::{Frame, ReadSegmentError, Segment, SegmentReader};
use super::{BUCKETS_MAX, Ending, Issuer, Receiver, VALIDITY_MS_MAX, date};
use crate::absence::may_give;
use crate::hlc::ClockQuality;
use crate::id::{BucketId, Epoch, NodeId, Seq};
use crate::identity::PeerRole;
use crate::signature::{Signatory, SignatureError};
use crate::store::Peer;
use crate::wire::{DecodeFrameError, Message, PROTOCOL_MAX, PROTOCOL_MIN};

/// Why nothing of a bundle or a receipt is taken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another file.
    #[error("it is neither a bundle nor a receipt")]
    NotOne,
    /// Copy it again.
    #[error("it ends within its first segment: nothing of it can be checked")]
    Cut,
    /// Copy it again.
    #[error("its first segment is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Made by a later version.
    #[error("it has the form {found}; this version reads {VERSION}")]
    TooNew {
        /// Its form.
        found: u16,
    },
    /// Nobody has signed it; `--unsigned` takes it all the same.
    #[error("nobody has signed it; --unsigned takes it on your word")]
    Unsigned,
    /// It is signed, but this replica belongs to no fleet that could vouch for the signer.
    #[error(
        "it is signed, but this replica is in no fleet that could vouch for the signer; --unsigned takes it on your word"
    )]
    Unverifiable,
    /// Another fleet's, or forged.
    #[error("its signer is not of this fleet")]
    Foreign(#[source] SignatureError),
    /// Forged.
    #[error("it says that {claimed} made it, but {signer} has signed it")]
    AnotherSigner {
        /// Whom it names.
        claimed: NodeId,
        /// Whom the certificate names.
        signer: NodeId,
    },
    /// Too old: what was deleted since may have been forgotten, and would come back.
    #[error("it expired on {}: deletions since then may be forgotten, and it would bring back what they removed", date(*.expired_unix_ms))]
    Expired {
        /// When, in milliseconds since 1970.
        expired_unix_ms: u64,
    },
    /// Its maker was away for too long: what was deleted meanwhile may have been forgotten here, and would come back.
    #[error("its maker was in step with the bridge last {}; what was deleted since may be forgotten here, and would come back", in_step(*.in_step_ms))]
    Lapsed {
        /// As of when, in milliseconds since 1970; 0 if it does not say.
        in_step_ms: u64,
    },
    /// Valid longer than any bundle may be.
    #[error("it is made to last until {}, longer than {} days", date(*.expires_unix_ms), VALIDITY_MS_MAX / super::DAY_MS)]
    TooLongLived {
        /// Until when it says, in milliseconds since 1970.
        expires_unix_ms: u64,
    },
    /// A clock is wrong: the exporter's, since the one here is trusted.
    #[error("it says that it was made on {}, which is in the future", date(*.made_unix_ms))]
    FromTheFuture {
        /// When it says, in milliseconds since 1970.
        made_unix_ms: u64,
    },
    /// Made here.
    #[error("this replica made it itself")]
    Own,
    /// It leaves out what another reader has.
    #[error("it was made for {reader} and leaves out what that one has")]
    ForAnother {
        /// For whom.
        reader: NodeId,
    },
    /// It leaves out what this replica had before it was restored.
    #[error("it was made for an earlier life of this replica and leaves out what that had; export one for anyone")]
    ForAnotherLife,
    /// A receipt for another exporter.
    #[error("it is a receipt for {exporter}")]
    ReceiptForAnother {
        /// For whom.
        exporter: NodeId,
    },
    /// A receipt whose cursors count rows that are no more.
    #[error("it is a receipt for an earlier life of this replica, which was restored since")]
    ReceiptForAnotherLife,
}

impl From<ReadSegmentError> for OpenError {
    fn from(error: ReadSegmentError) -> Self {
        match error {
            ReadSegmentError::Cut => Self::Cut,
            ReadSegmentError::Damaged(problem) => Self::Damaged(problem),
            ReadSegmentError::Io(error) => Self::Io(error),
        }
    }
}

/// Tells who made a bundle that `receiver` takes, by its head alone.
///
/// # Errors
///
/// [`OpenError`]: why nothing of it is taken.
pub fn issuer(receiver: &Receiver<'_>, input: impl Read) -> Result<Issuer, OpenError> {
    Ok(Opened::open(receiver, input)?.issuer)
}

/// A bundle whose head was checked.
pub(super) struct Opened<R> {
    pub(super) issuer: Issuer,
    pub(super) expires_unix_ms: u64,
    /// After which row it starts, for each bucket.
    pub(super) starts: BTreeMap<BucketId, Seq>,
    /// Whether rows that came from the receiver are not in it.
    pub(super) leaves_out_own: bool,
    segments: SegmentReader<R>,
    signatory: Option<Signatory>,
    ended: bool,
}

impl<R: Read> Opened<R> {
    pub(super) fn open(receiver: &Receiver<'_>, input: R) -> Result<Self, OpenError> {
        let mut segments = SegmentReader::new(input);
        let first = segments.next()?;
        let head: BundleHead = body(&first, format::BUNDLE)?;
        if head.version != VERSION {
            return Err(OpenError::TooNew { found: head.version });
        }
        let (issuer, signatory) = believe(receiver, &first, head.certificate.as_ref())?;
        let (made_unix_ms, expires_unix_ms) = (issuer.hello.unix_ms, head.expires_unix_ms);
        if expires_unix_ms > made_unix_ms.saturating_add(VALIDITY_MS_MAX) {
            return Err(OpenError::TooLongLived { expires_unix_ms });
        }
        if receiver.clock.unix_ms >= expires_unix_ms {
            return Err(OpenError::Expired { expired_unix_ms: expires_unix_ms });
        }
        let ahead_ms = made_unix_ms.saturating_sub(receiver.clock.unix_ms);
        if receiver.clock.quality == ClockQuality::Trusted && ahead_ms > receiver.clock.drift_bound_ms {
            return Err(OpenError::FromTheFuture { made_unix_ms });
        }
        if issuer.hello.node == receiver.local.node {
            return Err(OpenError::Own);
        }
        let standing = issuer.hello.standing.unwrap_or_default();
        if !may_give(standing, receiver.standing) {
            return Err(OpenError::Lapsed { in_step_ms: standing.in_step_ms });
        }
        match head.reader.map(Peer::from) {
            Some(reader) if reader.node != receiver.local.node => {
                return Err(OpenError::ForAnother { reader: reader.node });
            }
            Some(reader) if reader != receiver.local => return Err(OpenError::ForAnotherLife),
            _ => {}
        }
        let mut starts = BTreeMap::new();
        for frame in &first.frames[2..] {
            match message(frame).map_err(|error| OpenError::Damaged(error.to_string()))? {
                // Heads tell people how far it goes; the pages say it themselves.
                Some(Message::Offer(_)) | None => {}
                Some(Message::Pull { bucket, after, epoch, .. }) if epoch == issuer.hello.epoch => {
                    starts.insert(bucket, after);
                }
                Some(_) => return Err(OpenError::Damaged("a frame in the wrong place".into())),
            }
        }
        if starts.len() > BUCKETS_MAX {
            return Err(OpenError::Damaged("it has too many buckets".into()));
        }
        let leaves_out_own = head.reader.is_some();
        Ok(Self { issuer, expires_unix_ms, starts, leaves_out_own, segments, signatory, ended: first.end })
    }

    /// The frames of the next segment, once its seal was checked; how it ended, if there is none.
    pub(super) fn next_segment(&mut self) -> io::Result<Result<Vec<Frame>, Ending>> {
        if self.ended {
            return Ok(Err(Ending::Whole));
        }
        let (segments, bytes) = (self.segments.segments(), self.segments.whole_bytes());
        let checked = self.segments.next().and_then(|segment| {
            segment.verify(self.signatory.as_ref())?;
            Ok(segment)
        });
        match checked {
            Ok(segment) => {
                self.ended = segment.end;
                Ok(Ok(segment.frames))
            }
            Err(ReadSegmentError::Cut) => Ok(Err(Ending::Cut { segments, bytes })),
            Err(ReadSegmentError::Damaged(problem)) => Ok(Err(Ending::Damaged { segments, bytes, problem })),
            Err(ReadSegmentError::Io(error)) => Err(error),
        }
    }

    /// The place reached, for an ending that is found in a segment's frames.
    pub(super) fn broken(&self, problem: String) -> Ending {
        Ending::Damaged { segments: self.segments.segments(), bytes: self.segments.whole_bytes(), problem }
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.segments.whole_bytes()
    }
}

/// The body of the first frame, which must be of this type.
pub(super) fn body<'s, T: Decode<'s, ()>>(segment: &'s Segment, frame_type: u8) -> Result<T, OpenError> {
    let frame = segment.frames.first().filter(|frame| frame.head.frame_type() == frame_type);
    let frame = frame.ok_or(OpenError::NotOne)?;
    minicbor::decode(&frame.body).map_err(|error| OpenError::Damaged(error.to_string()))
}

pub(super) fn message(frame: &Frame) -> Result<Option<Message>, DecodeFrameError> {
    frame.head.decode_body(frame.body.clone())
}

/// Decides whether the maker of a head, which follows in its second frame, is believed, and checks its signature.
pub(super) fn believe(
    receiver: &Receiver<'_>,
    first: &Segment,
    certificate: Option<&ByteVec>,
) -> Result<(Issuer, Option<Signatory>), OpenError> {
    let hello = first.frames.get(1).map(message).transpose();
    let Ok(Some(Some(Message::Hello(hello)))) = hello else {
        return Err(OpenError::Damaged("it does not say who made it".into()));
    };
    if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
        return Err(OpenError::TooNew { found: hello.protocol_min });
    }
    let signatory = match (certificate, receiver.identity) {
        (Some(certificate), Some(identity)) => {
            Some(identity.recognise(certificate, hello.unix_ms / 1000).map_err(OpenError::Foreign)?)
        }
        (Some(certificate), None) if receiver.unsigned => {
            Some(Signatory::unchecked(certificate).map_err(OpenError::Foreign)?)
        }
        (Some(_), None) => return Err(OpenError::Unverifiable),
        (None, _) if receiver.unsigned => None,
        (None, _) => return Err(OpenError::Unsigned),
    };
    first.verify(signatory.as_ref())?;
    if let Some(signatory) = &signatory
        && signatory.named().id != hello.node
    {
        return Err(OpenError::AnotherSigner { claimed: hello.node, signer: signatory.named().id });
    }
    let vouched = signatory.is_some() && receiver.identity.is_some();
    let role = signatory.as_ref().filter(|_| vouched).map_or(PeerRole::Node, |signatory| signatory.named().role);
    Ok((Issuer { hello, role, vouched }, signatory))
}

fn in_step(in_step_ms: u64) -> String {
    if in_step_ms == 0 { "nobody knows when".into() } else { format!("as of {}", date(in_step_ms)) }
}

/// A reader that nobody is: no row has come from it.
pub(super) const NOBODY: Peer = Peer { node: NodeId::from_bytes([0; 16]), epoch: Epoch(0) };
