//! ZIP archives: whether one is a book, a comic or neither, and that it is sound and safe to hand out.
//!
//! Before anything inside is believed, every entry's name is checked and every entry is unpacked once to nowhere, within
//! a budget: that finds bombs whatever their headers claim, and damage by the entries' checksums.
//!
//! Not here: what the entries mean (`epub`, `comic`).

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use zip::{ZipArchive, result::ZipError};

use super::{
    Inspection, Limits, Source, comic, epub,
    refusal::Refusal,
    sniff::{self, Format},
};

/// Reads a ZIP file as whichever of our formats it is.
pub(super) fn inspect(mut source: Source<'_>, extension: Option<&str>) -> Result<Inspection, Refusal> {
    let head = super::read_head(&mut source.file).map_err(Refusal::Io)?;
    let size_bytes = source.size_bytes;
    let mut archive = Archive::open(source)?;
    let format = match (archive.holds(epub::CONTAINER), extension) {
        (true, Some("cbz")) => {
            return Err(Refusal::Mislabelled { extension: "cbz".to_owned(), actual: Format::Epub.name() });
        }
        (true, _) => Format::Epub,
        (false, Some("cbz")) if archive.names.iter().any(|name| comic::is_page(name)) => Format::Cbz,
        (false, Some(extension @ ("cbz" | "epub"))) => {
            return Err(Refusal::Mislabelled { extension: extension.to_owned(), actual: sniff::foreign(&head) });
        }
        (false, _) => return Err(Refusal::Unsupported { what: sniff::foreign(&head) }),
    };
    archive.check_entries(format)?;
    match format {
        Format::Epub => epub::inspect(&mut archive, size_bytes),
        _ => comic::inspect(&mut archive, size_bytes),
    }
}

/// An archive with a bearable number of entries.
pub(super) struct Archive<'a> {
    zip: ZipArchive<BufReader<File>>,
    /// In the order of the central directory, which is how entries are numbered.
    names: Vec<String>,
    size_bytes: u64,
    limits: &'a Limits,
}

impl<'a> Archive<'a> {
    fn open(mut source: Source<'a>) -> Result<Self, Refusal> {
        let entries = declared_entries(&mut source.file, source.size_bytes).map_err(Refusal::Io)?;
        let entries = entries
            .ok_or(Refusal::Truncated { format: "a book archive", missing: "its table of contents is missing" })?;
        let entries_max = source.limits.archive_entries_max;
        if entries > entries_max {
            return Err(Refusal::TooManyEntries { entries, entries_max });
        }
        let zip = ZipArchive::new(BufReader::new(source.file)).map_err(|error| damaged("a book archive", error))?;
        if zip.len() as u64 > entries_max {
            return Err(Refusal::TooManyEntries { entries: zip.len() as u64, entries_max });
        }
        let names = zip.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        Ok(Self { zip, names, size_bytes: source.size_bytes, limits: source.limits })
    }

    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.names.iter().any(|held| held == name)
    }

    /// The unpacked bytes of an entry, or `None` if there is no such entry.
    ///
    /// # Errors
    ///
    /// [`Refusal::PartTooLarge`] beyond `bytes_max`, whatever the entry's header claims.
    pub(super) fn read(&mut self, name: &str, part: &'static str, bytes_max: u64) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(index) = self.names.iter().position(|held| held == name) else { return Ok(None) };
        let entry = self.zip.by_index(index).map_err(|error| damaged(part, error))?;
        let mut bytes = Vec::new();
        entry.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| Refusal::damaged(part, error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Refusal::PartTooLarge { part, bytes_max });
        }
        Ok(Some(bytes))
    }

    /// Refuses unsafe names, locked entries, bombs, and entries that do not match their checksums.
    fn check_entries(&mut self, format: Format) -> Result<(), Refusal> {
        let limits = self.limits;
        let unpacked_bytes_max = self
            .size_bytes
            .saturating_mul(limits.archive_ratio_max)
            .max(limits.archive_ratio_floor_bytes)
            .min(limits.archive_unpacked_bytes_max);
        let mut left = unpacked_bytes_max;
        for (index, name) in self.names.iter().enumerate() {
            if !is_safe_name(name) {
                return Err(Refusal::UnsafeEntryName { entry: name.chars().take(120).collect() });
            }
            let entry = self.zip.by_index(index).map_err(|error| damaged(format.name(), error))?;
            let unpacked = io::copy(&mut entry.take(left.saturating_add(1)), &mut io::sink())
                .map_err(|error| Refusal::damaged(format.name(), error))?;
            left = left.checked_sub(unpacked).ok_or(Refusal::Bomb { unpacked_bytes_max })?;
        }
        Ok(())
    }
}

/// A path that stays below wherever it is unpacked, on any system.
fn is_safe_name(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    !name.is_empty()
        && !name.contains('\0')
        && !name.starts_with(['/', '\\'])
        && !drive
        && name.split(['/', '\\']).all(|part| part != "..")
}

/// The number of entries that the end of the archive declares, read without reading the entries.
fn declared_entries(file: &mut File, size_bytes: u64) -> io::Result<Option<u64>> {
    /// The end record, its longest comment, and the ZIP64 records before it.
    const TAIL_BYTES: u64 = 22 + 65_535 + 20 + 56;
    const END: &[u8] = b"PK\x05\x06";
    const END_64: &[u8] = b"PK\x06\x06";
    const COUNT_IN_END_64: u16 = u16::MAX;

    file.seek(SeekFrom::Start(size_bytes.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    file.rewind()?;

    let Some(end) = memchr::memmem::rfind(&tail, END) else { return Ok(None) };
    let Some(count) = tail.get(end + 10..end + 12).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
    else {
        return Ok(None);
    };
    if count < COUNT_IN_END_64 {
        return Ok(Some(u64::from(count)));
    }
    let count_64 = memchr::memmem::rfind(&tail[..end], END_64)
        .and_then(|end_64| tail.get(end_64 + 32..end_64 + 40)?.try_into().ok())
        .map(u64::from_le_bytes);
    Ok(Some(count_64.unwrap_or_else(|| u64::from(count))))
}

fn damaged(format: &'static str, error: ZipError) -> Refusal {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) | ZipError::InvalidPassword => Refusal::Locked,
        ZipError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Refusal::Truncated { format, missing: "an entry ends past the end of the file" }
        }
        error => Refusal::damaged(format, error),
    }
}

#[cfg(test)]
mod tests {
    use super::is_safe_name;

    #[test]
    fn names_that_climb_out_are_unsafe() {
        for safe in ["a", "OEBPS/ch 1.xhtml", "..a/b..", "a/./b", "été/日本.png"] {
            assert!(is_safe_name(safe), "{safe}");
        }
        for unsafe_ in ["", "/etc/passwd", "\\x", "../a", "a/../../b", "a\\..\\b", "C:\\x", "c:x", "a\0b", ".."] {
            assert!(!is_safe_name(unsafe_), "{unsafe_}");
        }
    }
}
