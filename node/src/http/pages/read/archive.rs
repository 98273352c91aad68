//! What is inside a ZIP that is a blob: names looked up in its directory, bytes unpacked within a limit.
//!
//! Nothing is unpacked to disk, so a name that climbs out of the archive is only a name. Every read from the blob counts
//! against a budget, which bounds the directory whatever it claims to hold, and the work that a bomb can ask for.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alexandria_api::catalogue::Content;
use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;
use zip::ZipArchive;
use zip::result::ZipError;

use super::ReadError;

/// Read from a blob to find its directory: enough for 40,000 entries.
const DIRECTORY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Read from a blob for one entry, still packed.
const ENTRY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Fetched from the blob at a time.
const WINDOW_BYTES: u64 = 64 * 1024;

/// A blob as the blocking reader that parsers want. Only for threads that may block.
pub(super) struct BlobReader<T> {
    content: T,
    runtime: Handle,
    position: u64,
    window: Bytes,
    window_start: u64,
    /// What may still be fetched.
    budget_bytes: Arc<AtomicU64>,
}

impl<T: Content> BlobReader<T> {
    pub(super) fn new(content: T, runtime: Handle) -> Self {
        Self { content, runtime, position: 0, window: Bytes::new(), window_start: 0, budget_bytes: Arc::default() }
    }

    /// All of it.
    pub(super) fn whole(&mut self, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
        if self.content.info().size_bytes > bytes_max {
            return Err(ReadError::TooLarge { what: "the file" });
        }
        self.budget_bytes.store(bytes_max.saturating_add(WINDOW_BYTES), Ordering::Relaxed);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|_| ReadError::Damaged("it cannot be read"))?;
        Ok(bytes)
    }

    fn fetch(&mut self) -> io::Result<()> {
        // Whole windows, so that a parser that goes backwards in small steps does not fetch the same bytes each time.
        let start = self.position - self.position % WINDOW_BYTES;
        let end = self.content.info().size_bytes.min(start.saturating_add(WINDOW_BYTES));
        let wanted = end.saturating_sub(start);
        let left = self.budget_bytes.load(Ordering::Relaxed).checked_sub(wanted);
        let left = left.ok_or_else(|| io::Error::new(io::ErrorKind::QuotaExceeded, "the budget is spent"))?;
        self.budget_bytes.store(left, Ordering::Relaxed);
        let mut pieces = self.content.read(start..end);
        let mut window = Vec::with_capacity(wanted as usize);
        self.runtime.block_on(async {
            while let Some(piece) = pieces.next().await {
                window.extend_from_slice(&piece.map_err(io::Error::other)?);
            }
            Ok::<_, io::Error>(())
        })?;
        if window.len() as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.window = window.into();
        self.window_start = start;
        Ok(())
    }
}

impl<T: Content> Read for BlobReader<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.content.info().size_bytes || buffer.is_empty() {
            return Ok(0);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if !(self.window_start..window_end).contains(&self.position) {
            self.fetch()?;
        }
        let held = &self.window[(self.position - self.window_start) as usize..];
        let taken = held.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&held[..taken]);
        self.position += taken as u64;
        Ok(taken)
    }
}

impl<T: Content> Seek for BlobReader<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.content.info().size_bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// An archive whose directory was read.
pub(super) struct Archive<T> {
    zip: ZipArchive<BlobReader<T>>,
    budget_bytes: Arc<AtomicU64>,
}

impl<T: Content> Archive<T> {
    pub(super) fn open(reader: BlobReader<T>) -> Result<Self, ReadError> {
        let budget_bytes = Arc::clone(&reader.budget_bytes);
        budget_bytes.store(DIRECTORY_BYTES_MAX, Ordering::Relaxed);
        let zip = ZipArchive::new(reader).map_err(|_| ReadError::Damaged("it is no archive that can be read"))?;
        Ok(Self { zip, budget_bytes })
    }

    /// The names of its pictures, in the order that a person means: `page2` before `page10`.
    pub(super) fn pictures(&self) -> Vec<String> {
        let mut pictures: Vec<String> = self
            .zip
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .filter(|name| is_picture(name))
            .collect();
        pictures.sort_by_cached_key(|name| with_wide_numbers(name));
        pictures
    }

    /// The unpacked bytes of an entry, or `None` if there is no such entry.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] beyond `bytes_max`, whatever the entry's header claims.
    pub(super) fn read(
        &mut self,
        name: &str,
        what: &'static str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(index) = self.zip.index_for_name(name) else { return Ok(None) };
        self.budget_bytes.store(ENTRY_BYTES_MAX, Ordering::Relaxed);
        let entry = self.zip.by_index(index).map_err(|error| match error {
            ZipError::FileNotFound => ReadError::NoSuchPart,
            _ => ReadError::Damaged("an entry cannot be opened"),
        })?;
        let mut bytes = Vec::new();
        let read = entry.take(bytes_max + 1).read_to_end(&mut bytes);
        if bytes.len() as u64 > bytes_max {
            return Err(ReadError::TooLarge { what });
        }
        read.map_err(|_| ReadError::Damaged("an entry does not match its checksum"))?;
        Ok(Some(bytes))
    }
}

/// Leftovers of archivers are no pages.
fn is_picture(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let ending = base.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    ["jpg", "jpeg", "png", "webp", "gif", "avif"].contains(&ending.as_str())
        && !base.starts_with('.')
        && !name.starts_with("__MACOSX/")
}

/// Sorts as the text does, once every number in it is as wide as any other.
fn with_wide_numbers(name: &str) -> String {
    const WIDTH: usize = 20;
    let mut wide = String::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if !number.is_empty() {
            wide.extend(std::iter::repeat_n('0', WIDTH.saturating_sub(number.len())));
            wide.push_str(number);
        }
        let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (text, next) = after.split_at(letters);
        wide.push_str(&text.to_lowercase());
        rest = next;
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_the_order_a_person_means_and_leftovers_are_none() {
        let mut names = ["p10.jpg", "p2.jpg", "P1.jpg", "b/1.png"];
        names.sort_by_cached_key(|name| with_wide_numbers(name));
        assert_eq!(names, ["b/1.png", "P1.jpg", "p2.jpg", "p10.jpg"]);
        assert!(is_picture("a/b/001.JPG"));
        for name in ["__MACOSX/001.jpg", "a/._001.jpg", "ComicInfo.xml", "a.jpg/", "jpg"] {
            assert!(!is_picture(name), "{name}");
        }
    }
}
