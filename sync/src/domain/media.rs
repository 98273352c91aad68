//! Media: what readers open.

use serde::{Deserialize, Serialize};

use super::kind_table::kind_table;
use super::{DESCRIPTION_CHARS_MAX, InvalidField, NAME_CHARS_MAX, check_chars, check_entries, check_name};
use crate::chunk::BlobHash;

/// What sort of thing is opened.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum MediaKind {
    /// EPUB, CBZ, a PDF of some length.
    #[n(0)]
    Book,
    /// Any other text.
    #[default]
    #[n(1)]
    Doc,
    /// Sound.
    #[n(2)]
    Podcast,
    /// Moving pictures.
    #[n(3)]
    Video,
    /// A picture.
    #[n(4)]
    Image,
}

/// What a file is to its medium.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum FileRole {
    /// The thing itself.
    #[default]
    #[n(0)]
    Main,
    /// The same in another format or quality.
    #[n(1)]
    Alternate,
    /// Subtitles, transcripts, attachments.
    #[n(2)]
    Supplement,
}

/// One file of a medium.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct MediaFile {
    /// Its content.
    #[n(0)]
    pub blob: BlobHash,
    /// Its media type (RFC 6838).
    #[n(1)]
    pub media_type: String,
    /// The name to download it under.
    #[n(2)]
    pub name: String,
    /// Its size in bytes.
    #[n(3)]
    pub size_bytes: u64,
    /// What it is to the medium.
    #[n(4)]
    #[serde(default)]
    pub role: FileRole,
}

/// A named place in a medium.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[cbor(map)]
pub struct Chapter {
    /// What it is called.
    #[n(0)]
    pub title: String,
    /// Where it starts in sound or video, in milliseconds.
    #[n(1)]
    pub start_ms: Option<u64>,
    /// The page that it starts on, from 1.
    #[n(2)]
    pub page: Option<u32>,
    /// Where it starts inside an EPUB.
    #[n(3)]
    pub href: Option<String>,
}

kind_table! {
    /// A book, document, podcast, video or picture.
    Media = 2 "media" {
        /// Its title.
        1 lww title: String,
        /// What sort of thing it is.
        2 lww media_kind: MediaKind,
        /// A few sentences.
        3 lww description: String,
        /// Languages as BCP 47 tags.
        4 lww languages: Vec<String>,
        /// Who published it.
        5 lww publisher: Option<String>,
        /// When, as its maker wrote it.
        6 lww published: Option<String>,
        /// How long it plays, in milliseconds.
        7 lww duration_ms: Option<u64>,
        /// How many pages it has.
        8 lww pages: Option<u32>,
        /// Named places in it.
        9 lww chapters: Vec<Chapter>,
        /// Its files.
        10 lww files: Vec<MediaFile>,
        /// A picture.
        11 lww cover: Option<BlobHash>,
        /// Hidden from readers, and restorable: the soft delete.
        12 lww disabled: bool,
    }
}

impl Media {
    /// The file that the medium is; `None` if it has none.
    pub fn main_file(&self) -> Option<&MediaFile> {
        self.files.iter().find(|file| file.role == FileRole::Main).or(self.files.first())
    }

    fn check(&self) -> Result<(), InvalidField> {
        check_name("title", &self.title)?;
        check_chars("description", &self.description, DESCRIPTION_CHARS_MAX)?;
        check_entries("languages", &self.languages)?;
        check_entries("chapters", &self.chapters)?;
        check_entries("files", &self.files)?;
        for language in &self.languages {
            let well_formed = (2..=35).contains(&language.len())
                && language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !well_formed {
                let problem = format!("holds `{language}`, which is not a BCP 47 tag such as `en` or `pt-BR`");
                return Err(InvalidField { field: "languages", problem });
            }
        }
        for (field, text) in [("publisher", &self.publisher), ("published", &self.published)] {
            if let Some(text) = text {
                check_chars(field, text, NAME_CHARS_MAX)?;
            }
        }
        for chapter in &self.chapters {
            check_chars("chapters", &chapter.title, NAME_CHARS_MAX)?;
        }
        for file in &self.files {
            check_name("files", &file.name)?;
            check_chars("files", &file.media_type, NAME_CHARS_MAX)?;
        }
        Ok(())
    }
}
