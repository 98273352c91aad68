//! What is told of bundles and receipts, at nodes and at the bridge alike: as data, and in words for people at a terminal.
//!
//! The words are plain lines of text, without one at the end. Not here: asking people, showing progress, and what only one of the two
//! programs has to say.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BucketRefusal, Ending, Export, Exported, Imported, Issuer, KindCounts, Receipt, Survey, date};
use crate::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount,
    Typed, User,
};
use crate::id::{BucketId, NodeId};
use crate::identity::PeerRole;
use crate::record::Kind;

/// Refused buckets that are told of by name, at most.
const REFUSED_TOLD_MAX: usize = 100;

/// What a bundle carries.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct BundleExported {
    /// Records.
    pub records: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Blobs that did not fit.
    pub blobs_left_out: u64,
    /// Blobs that the records name and that are not here either.
    pub blobs_absent: u64,
    /// Whether records did not fit.
    pub records_left_out: bool,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// For whom, if it is for one.
    pub reader: Option<NodeId>,
    /// Whether it starts where its reader stands, rather than at the beginning.
    pub goes_on: bool,
    /// Whether it is signed.
    pub signed: bool,
}

/// Who made a bundle or a receipt.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MadeBy {
    /// Which replica.
    pub node: NodeId,
    /// Whether that is a bridge.
    pub is_bridge: bool,
    /// When by its clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the authority of the fleet here vouches for it.
    pub vouched: bool,
}

/// What a bundle would change.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BundleContents {
    /// By whom.
    pub made_by: MadeBy,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// Its records.
    pub kinds: Vec<KindChanges>,
    /// Buckets of which nothing would be taken.
    pub refused: Vec<RefusedBucket>,
    /// Blobs that are not here.
    pub blobs_new: u64,
    /// Their bytes.
    pub bytes_new: u64,
    /// Blobs that are here.
    pub blobs_known: u64,
    /// Whether there is room for those that are not here.
    pub has_room: bool,
    /// What is wrong with the file, if anything.
    pub fault: Option<String>,
}

/// What would become of the records of one kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct KindChanges {
    /// Which kind.
    pub kind: String,
    /// Not here yet.
    pub new: u64,
    /// Here in another version.
    pub changed: u64,
    /// Deleted for good.
    pub deleted: u64,
    /// Known already.
    pub known: u64,
    /// From a clock that is too far ahead.
    pub set_aside: u64,
}

/// A bucket of which nothing is taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RefusedBucket {
    /// Which.
    pub bucket: BucketId,
    /// Why.
    pub reason: String,
    /// Whether an earlier bundle is missing.
    pub gap: bool,
}

/// What a receipt says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ReceiptContents {
    /// By whom.
    pub made_by: MadeBy,
    /// Buckets that it has read of.
    pub buckets: u64,
    /// Blobs that it lacks.
    pub lacks: u64,
    /// Whether a later one is known already.
    pub outdated: bool,
}

/// What was taken of a bundle.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BundleImported {
    /// By whom it was made.
    pub made_by: MadeBy,
    /// Records that changed something.
    pub applied: u64,
    /// Records that said nothing new.
    pub known: u64,
    /// Records that were set aside.
    pub set_aside: u64,
    /// Blobs that have become whole.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs of which not all was there.
    pub blobs_incomplete: u64,
    /// Blobs that were being received from elsewhere.
    pub blobs_busy: u64,
    /// Whether there was no room for all content.
    pub full: bool,
    /// Buckets of which nothing was taken.
    pub refused: Vec<RefusedBucket>,
    /// What is wrong with the file, if anything.
    pub fault: Option<String>,
    /// The receipt for its exporter.
    pub receipt: Option<PathBuf>,
    /// Why there is none.
    pub receipt_error: Option<String>,
}

impl BundleExported {
    /// What was written of `what`.
    pub fn of(exported: &Exported, what: &Export<'_>) -> Self {
        Self {
            records: exported.records,
            blobs: exported.blobs,
            bytes: exported.file_bytes,
            blobs_left_out: exported.blobs_left_out,
            blobs_absent: exported.blobs_absent,
            records_left_out: exported.records_left_out,
            expires_unix_ms: what.hello.unix_ms.saturating_add(what.validity_ms),
            reader: what.reader.map(|reader| reader.node),
            goes_on: what.reader.is_some_and(|reader| reader.receipt.is_some()),
            signed: what.signer.is_some(),
        }
    }
}

impl fmt::Display for BundleExported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, blobs) = (Count(self.records), Count(self.blobs));
        let until = date(self.expires_unix_ms);
        write!(f, "{records} records and {blobs} files in a bundle of {}, good until {until}", Size(self.bytes))?;
        if !self.signed {
            f.write_str("\nit is not signed: this node is in no fleet, and whoever imports it has to say --unsigned")?;
        }
        if let Some(reader) = self.reader.filter(|_| !self.goes_on) {
            write!(f, "\nit starts at the beginning: no receipt of node {reader} is known")?;
        }
        let next = "did not fit: import the receipt of this one, then export again for the same node";
        if self.records_left_out {
            write!(f, "\nsome records {next}")?;
        } else if self.blobs_left_out > 0 {
            write!(f, "\n{} files {next}", Count(self.blobs_left_out))?;
        }
        if self.blobs_absent > 0 {
            write!(f, "\n{} files are not here either", Count(self.blobs_absent))?;
        }
        Ok(())
    }
}

impl MadeBy {
    /// Who has issued it.
    pub fn of(issuer: &Issuer) -> Self {
        Self {
            node: issuer.hello.node,
            is_bridge: issuer.role == PeerRole::Bridge,
            unix_ms: issuer.hello.unix_ms,
            vouched: issuer.vouched,
        }
    }

    fn role(&self) -> &'static str {
        if self.is_bridge { "bridge" } else { "node" }
    }
}

impl fmt::Display for MadeBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vouched = if self.vouched { "signed by a member of this fleet" } else { "NOT SIGNED by anyone known here" };
        write!(f, "{} {} on {}, {vouched}", self.role(), self.node, date(self.unix_ms))
    }
}

impl BundleContents {
    /// What a look has found in a file of this size.
    pub fn of(survey: &Survey, file_bytes: u64, has_room: bool) -> Self {
        let cut = "it is shorter than the content that it lists: it was cut off";
        let fault = fault(&survey.ending).or_else(|| (file_bytes < survey.content_bytes).then(|| cut.to_owned()));
        Self {
            made_by: MadeBy::of(&survey.issuer),
            expires_unix_ms: survey.expires_unix_ms,
            kinds: survey.kinds.iter().map(|(&kind, &counts)| KindChanges::of(kind, counts)).collect(),
            refused: refused(&survey.refused),
            blobs_new: survey.blobs_new,
            bytes_new: survey.bytes_new,
            blobs_known: survey.blobs_known,
            has_room,
            fault,
        }
    }

    /// Whether all of it can be taken; what is not for here does not count.
    pub fn is_sound(&self) -> bool {
        is_without_gaps(&self.refused) && self.fault.is_none() && self.has_room
    }
}

impl fmt::Display for BundleContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  made by    {}, good until {}", self.made_by, date(self.expires_unix_ms))?;
        if self.kinds.is_empty() {
            f.write_str("\n  records    none")?;
        }
        for kind in &self.kinds {
            let KindChanges { kind, new, changed, deleted, known, set_aside } = kind;
            let [new, changed, deleted, known] = [new, changed, deleted, known].map(|&count| Count(count));
            write!(f, "\n  records    {kind:<16} {new} new, {changed} changed, {deleted} deleted, {known} known")?;
            if *set_aside > 0 {
                write!(f, ", {} from a clock too far ahead", Count(*set_aside))?;
            }
        }
        let (new, known) = (Count(self.blobs_new), Count(self.blobs_known));
        write!(f, "\n  content    {new} files new, {}; {known} here already", Size(self.bytes_new))?;
        if !self.has_room {
            f.write_str("\n  ROOM       there is not enough for all of this content: what fits is taken")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, "\n  DAMAGED    {fault}")?;
        }
        write_refused(f, &self.refused)
    }
}

impl KindChanges {
    fn of(kind: Kind, counts: KindCounts) -> Self {
        let KindCounts { new, changed, deleted, known, set_aside } = counts;
        Self { kind: kind_name(kind), new, changed, deleted, known, set_aside }
    }
}

impl ReceiptContents {
    /// What a receipt says, where `known` was the last one from the same peer.
    pub fn of(receipt: &Receipt, known: Option<&Receipt>) -> Self {
        Self {
            made_by: MadeBy::of(&receipt.issuer),
            buckets: receipt.cursors.len() as u64,
            lacks: receipt.lacks.len() as u64,
            outdated: known.is_some_and(|known| !receipt.is_no_older_than(known)),
        }
    }

    /// In words; `program` is what exports the next bundle.
    pub fn in_words(&self, program: &str) -> String {
        let Self { made_by, outdated, .. } = self;
        let (buckets, lacks) = (Count(self.buckets), Count(self.lacks));
        let next = if *outdated {
            "OUTDATED   a later one is known already; this one is not taken".into()
        } else {
            format!("next       `{program} bundle export FILE --for {}` carries what is new", made_by.node)
        };
        format!("  receipt    of {made_by}\n  it says    {buckets} buckets read, {lacks} files lacking\n  {next}")
    }
}

impl BundleImported {
    /// What was taken, and where the receipt is, or why there is none.
    pub fn of(imported: &Imported, receipt: Result<PathBuf, String>) -> Self {
        let (receipt, receipt_error) = match receipt {
            Ok(path) => (Some(path), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            made_by: MadeBy::of(&imported.issuer),
            applied: imported.applied.applied.into(),
            known: imported.applied.superseded.into(),
            set_aside: imported.applied.quarantined.into(),
            blobs: imported.blobs,
            blob_bytes: imported.blob_bytes,
            blobs_incomplete: imported.blobs_incomplete,
            blobs_busy: imported.blobs_busy,
            full: imported.full,
            refused: refused(&imported.refused),
            fault: fault(&imported.ending),
            receipt,
            receipt_error,
        }
    }

    /// Whether nothing is missing; what is not for here is not.
    pub fn is_complete(&self) -> bool {
        let is_whole = !self.full && self.fault.is_none() && self.blobs_busy + self.blobs_incomplete == 0;
        is_without_gaps(&self.refused) && is_whole
    }
}

impl fmt::Display for BundleImported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [applied, known, blobs] = [self.applied, self.known, self.blobs].map(Count);
        write!(f, "{applied} records taken in, {known} known before; {blobs} files, {}", Size(self.blob_bytes))?;
        if self.set_aside > 0 {
            write!(f, "\n{} records were set aside: a clock is wrong", Count(self.set_aside))?;
        }
        if self.full {
            f.write_str("\nthere was no room for all content; what is whole is kept")?;
        }
        if self.blobs_busy > 0 {
            let busy = Count(self.blobs_busy);
            write!(f, "\n{busy} files are being received from elsewhere just now; import it again")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, "\n{fault}; everything before that is kept")?;
        }
        if self.blobs_incomplete > 0 {
            write!(f, "\n{} files were not whole in it", Count(self.blobs_incomplete))?;
        }
        match (&self.receipt, &self.receipt_error) {
            (Some(receipt), _) => {
                let MadeBy { node, .. } = self.made_by;
                write!(f, "\nthe receipt for {} {node} is {}", self.made_by.role(), receipt.display())?;
            }
            (None, Some(error)) => {
                write!(f, "\nno receipt could be written ({error}); --receipt FILE puts it elsewhere")?;
            }
            (None, None) => {}
        }
        write_refused(f, &self.refused)
    }
}

fn refused(refused: &BTreeMap<BucketId, BucketRefusal>) -> Vec<RefusedBucket> {
    let told = refused.iter().take(REFUSED_TOLD_MAX).map(|(&bucket, refusal)| RefusedBucket {
        bucket,
        reason: refusal.to_string(),
        gap: matches!(refusal, BucketRefusal::Gap { .. }),
    });
    told.collect()
}

fn write_refused(f: &mut fmt::Formatter<'_>, refused: &[RefusedBucket]) -> fmt::Result {
    refused.iter().try_for_each(|RefusedBucket { bucket, reason, .. }| write!(f, "\n  LEFT OUT   {bucket}: {reason}"))
}

fn is_without_gaps(refused: &[RefusedBucket]) -> bool {
    !refused.iter().any(|refused| refused.gap)
}

/// What is wrong with a file, in words.
fn fault(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Whole => None,
        Ending::Cut { bytes, .. } => Some(format!("the file is cut off; what is whole ends at byte {bytes}")),
        Ending::Damaged { bytes, problem, .. } => Some(format!("the file is damaged after byte {bytes}: {problem}")),
    }
}

fn kind_name(kind: Kind) -> String {
    let name = match kind {
        Annotation::KIND => Annotation::NAME,
        Author::KIND => Author::NAME,
        AuthorCategory::KIND => AuthorCategory::NAME,
        Blob::KIND => Blob::NAME,
        Category::KIND => Category::NAME,
        Collection::KIND => Collection::NAME,
        Media::KIND => Media::NAME,
        MediaAuthor::KIND => MediaAuthor::NAME,
        MediaCategory::KIND => MediaCategory::NAME,
        OpenCount::KIND => OpenCount::NAME,
        User::KIND => User::NAME,
        Kind(number) => return format!("kind {number}"),
    };
    name.to_owned()
}

/// A number with its thousands set apart: `1,234,567`.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// So many bytes: `512 B`, `1.50 MiB`.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let Some(unit) = (1..=UNITS.len()).rev().find(|unit| self.0 >= 1 << (10 * unit)) else {
            return write!(f, "{} B", self.0);
        };
        let hundredths = (u128::from(self.0) * 100) >> (10 * unit);
        write!(f, "{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[unit - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_can_be_read() {
        let counts: Vec<String> = [0, 999, 1000, 1_234_567].map(|count| Count(count).to_string()).into();
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let sizes: Vec<String> = [0, 1023, 1024, 1_572_864, u64::MAX].map(|size| Size(size).to_string()).into();
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "1.50 MiB", "16383.99 PiB"]);
    }
}
