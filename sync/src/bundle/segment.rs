//! Segments: runs of frames, each closed by a seal over everything in the file before it.
//!
//! [`SegmentWriter`] seals after every so many bytes. [`SegmentReader`] holds one segment in memory and hands it out
//! only when its seal fits, so that what was cut off or changed is never seen by whoever applies it.
//!
//! Invariant: a segment that was handed out is as its signer wrote it, and so is everything before it.

use std::io::{self, ErrorKind, Read, Write};

use bytes::Bytes;
use minicbor::bytes::ByteVec;

use super::format::{self, Seal};
use crate::identity::Identity;
use crate::signature::{Signatory, SignatureError};
use crate::wire::{DecodeFrameError, FRAME_HEADER_BYTES, FrameHeader};

/// A segment is closed once it has this many bytes, at the latest: what a cut may cost.
pub const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a segment that is read, at most: a little less than full, and then the largest frame there is.
pub const SEGMENT_BYTES_MAX: usize = SEGMENT_BYTES + crate::wire::frame::MANIFEST_BYTES_MAX + 4096;
/// Frames in a segment, at most.
pub const SEGMENT_FRAMES_MAX: usize = 64 * 1024;
/// Segments in a file, at most: 16 TiB of full ones.
pub const SEGMENTS_MAX: u32 = 4 * 1024 * 1024;
/// Bytes of a seal, at most.
pub(super) const SEAL_BYTES_MAX: u64 = 192;

/// Why a segment was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteSegmentError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The key.
    #[error(transparent)]
    Sign(#[from] SignatureError),
}

/// Writes frames, and seals them in segments.
pub(super) struct SegmentWriter<'s, W> {
    out: W,
    signer: Option<&'s Identity>,
    segment_bytes: usize,
    hasher: blake3::Hasher,
    index: u32,
    frames: usize,
    bytes: usize,
    written_bytes: u64,
}

impl<'s, W: Write> SegmentWriter<'s, W> {
    /// Closes segments once they have `segment_bytes`, at most [`SEGMENT_BYTES`].
    pub(super) fn new(out: W, signer: Option<&'s Identity>, segment_bytes: usize) -> Self {
        let segment_bytes = segment_bytes.min(SEGMENT_BYTES);
        let hasher = blake3::Hasher::new();
        Self { out, signer, segment_bytes, hasher, index: 0, frames: 0, bytes: 0, written_bytes: 0 }
    }

    /// Bytes written so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Writes one frame, and closes the segment if it is full.
    pub(super) fn frame(&mut self, frame: &[u8]) -> Result<(), WriteSegmentError> {
        self.frame_of_head(frame)?;
        if self.bytes >= self.segment_bytes || self.frames + 1 >= SEGMENT_FRAMES_MAX {
            self.seal(false)?;
        }
        Ok(())
    }

    /// Writes one frame of the head, which is one segment however large.
    pub(super) fn frame_of_head(&mut self, frame: &[u8]) -> Result<(), WriteSegmentError> {
        self.write(frame)?;
        self.bytes += frame.len();
        self.frames += 1;
        Ok(())
    }

    /// Closes the segment if anything is in it.
    pub(super) fn close_segment(&mut self) -> Result<(), WriteSegmentError> {
        if self.frames == 0 { Ok(()) } else { self.seal(false) }
    }

    /// Closes the file, and gives it back, flushed, with its size in bytes.
    pub(super) fn end(mut self) -> Result<(W, u64), WriteSegmentError> {
        self.seal(true)?;
        self.out.flush()?;
        Ok((self.out, self.written_bytes))
    }

    fn seal(&mut self, end: bool) -> Result<(), WriteSegmentError> {
        let hash = *self.hasher.finalize().as_bytes();
        let message = Seal::message(self.index, &hash, end);
        let signature = self.signer.map(|signer| signer.sign(&message)).transpose()?;
        let seal = Seal { index: self.index, hash: hash.into(), signature: signature.map(ByteVec::from), end };
        self.write(&format::frame(format::SEAL, &seal))?;
        self.index += 1;
        (self.bytes, self.frames) = (0, 0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteSegmentError> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Why there is no next segment.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadSegmentError {
    /// The file ends before the next seal.
    #[error("the file ends in the middle")]
    Cut,
    /// What is there is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<DecodeFrameError> for ReadSegmentError {
    fn from(error: DecodeFrameError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// One frame, whose body was not looked into.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) head: FrameHeader,
    pub(super) body: Bytes,
}

/// A segment whose hash fits. Whether its signature does is asked of [`Self::verify`].
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) frames: Vec<Frame>,
    /// Whether it is the last.
    pub(super) end: bool,
    seal: Seal,
}

impl Segment {
    /// Checks the signature; where there is no signatory, that there is no signature either.
    pub(super) fn verify(&self, signatory: Option<&Signatory>) -> Result<(), ReadSegmentError> {
        let seal = &self.seal;
        match (signatory, &seal.signature) {
            (None, None) => Ok(()),
            (Some(signatory), Some(signature)) => signatory
                .verify(&Seal::message(seal.index, &seal.hash, seal.end), signature)
                .map_err(|error| ReadSegmentError::Damaged(error.to_string())),
            (None, Some(_)) => Err(ReadSegmentError::Damaged("a signature without a certificate".into())),
            (Some(_), None) => Err(ReadSegmentError::Damaged("a signature is missing".into())),
        }
    }
}

/// Reads segments in order.
pub(super) struct SegmentReader<R> {
    input: R,
    hasher: blake3::Hasher,
    index: u32,
    /// Bytes up to the end of the last whole segment.
    whole_bytes: u64,
}

impl<R: Read> SegmentReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, hasher: blake3::Hasher::new(), index: 0, whole_bytes: 0 }
    }

    /// Segments read so far.
    pub(super) fn segments(&self) -> u32 {
        self.index
    }

    /// Bytes up to the end of the last whole segment.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Reads the next segment and checks its hash. Not to be called after the last.
    pub(super) fn next(&mut self) -> Result<Segment, ReadSegmentError> {
        let damaged = |text: &str| Err(ReadSegmentError::Damaged(text.into()));
        if self.index == SEGMENTS_MAX {
            return damaged("more segments than any file has");
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            let mut head_bytes = [0; FRAME_HEADER_BYTES];
            self.fill(&mut head_bytes)?;
            let head = FrameHeader::decode(head_bytes)?;
            bytes += FRAME_HEADER_BYTES + head.body_len;
            if bytes > SEGMENT_BYTES_MAX {
                return damaged("a segment is too long");
            }
            let mut body = vec![0; head.body_len];
            self.fill(&mut body)?;
            if head.frame_type() == format::SEAL {
                let seal: Seal =
                    minicbor::decode(&body).map_err(|error| ReadSegmentError::Damaged(format!("a seal: {error}")))?;
                // The last seal is not hashed itself, so nothing in its head may be left to chance.
                if head_bytes[FRAME_HEADER_BYTES - 1] != 0 {
                    return damaged("a seal has flags");
                }
                if seal.index != self.index || *seal.hash != *self.hasher.finalize().as_bytes() {
                    return damaged("the hash of a segment does not fit");
                }
                // Nor may its end be, where no signature covers it: a seal in the middle that says so would hide the rest.
                if seal.end && seal.signature.is_none() && self.input.read(&mut [0])? > 0 {
                    return damaged("more follows what is said to be the end");
                }
                self.hasher.update(&head_bytes);
                self.hasher.update(&body);
                self.index += 1;
                self.whole_bytes += bytes as u64;
                return Ok(Segment { frames, end: seal.end, seal });
            }
            self.hasher.update(&head_bytes);
            self.hasher.update(&body);
            if frames.len() == SEGMENT_FRAMES_MAX {
                return damaged("a segment has too many frames");
            }
            frames.push(Frame { head, body: body.into() });
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadSegmentError> {
        match self.input.read_exact(buffer) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(ReadSegmentError::Cut),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CloseReason, Message};

    fn written(frames: usize) -> Vec<u8> {
        let mut writer = SegmentWriter::new(Vec::new(), None, SEGMENT_BYTES);
        for _ in 0..frames {
            writer.frame(&Message::Close { reason: CloseReason::Done, text: "x".repeat(400) }.to_frame()).unwrap();
        }
        writer.end().unwrap().0
    }

    /// Regression: a bit of a seal in the middle said that the file ends there, and nobody noticed (seed 8776 of the simulator).
    #[test]
    fn no_bit_of_an_unsigned_file_changes_unnoticed() {
        let mut writer = SegmentWriter::new(Vec::new(), None, SEGMENT_BYTES);
        for text in ["one", "two", "three"] {
            writer.frame(&Message::Close { reason: CloseReason::Done, text: text.into() }.to_frame()).unwrap();
            writer.close_segment().unwrap();
        }
        let bytes = writer.end().unwrap().0;
        let reads = |bytes: &[u8]| {
            let mut reader = SegmentReader::new(bytes);
            while let Ok(segment) = reader.next() {
                if segment.end {
                    return true;
                }
            }
            false
        };
        assert!(reads(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!reads(&changed), "bit {bit} of {}", bytes.len() * 8);
        }
    }

    #[test]
    fn segments_stay_near_their_size_and_read_back() {
        let bytes = written(30_000);
        let mut reader = SegmentReader::new(bytes.as_slice());
        let mut frames = 0;
        loop {
            let segment = reader.next().unwrap();
            frames += segment.frames.len();
            assert!(
                segment.frames.iter().map(|frame| frame.body.len() + FRAME_HEADER_BYTES).sum::<usize>()
                    < SEGMENT_BYTES + 4096
            );
            if segment.end {
                break;
            }
        }
        assert_eq!((frames, reader.whole_bytes()), (30_000, bytes.len() as u64));
        assert_eq!(reader.segments() as usize, bytes.len().div_ceil(SEGMENT_BYTES));
    }

    #[test]
    fn a_frame_that_claims_more_than_its_limit_takes_no_memory() {
        let lie = [0x7f, 0xff, 0xff, 0xff, 4, 0];
        assert!(matches!(SegmentReader::new(&lie[..]).next(), Err(ReadSegmentError::Damaged(_))));
    }

    #[test]
    fn a_segment_without_end_is_refused_at_its_limit() {
        let endless = Message::Close { reason: CloseReason::Done, text: String::new() }.to_frame();
        let endless = endless.repeat(SEGMENT_FRAMES_MAX + 1);
        assert!(matches!(SegmentReader::new(endless.as_slice()).next(), Err(ReadSegmentError::Damaged(_))));
    }
}
