//! What sorts of media there are, as addresses, styles and people name them.

use alexandria_sync::domain::MediaKind;

use super::wording::Texts;

/// All kinds, in the order in which they are offered.
pub(super) const KINDS: [MediaKind; 5] =
    [MediaKind::Book, MediaKind::Doc, MediaKind::Podcast, MediaKind::Video, MediaKind::Image];

/// Its name in addresses and styles.
pub(super) const fn slug(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Book => "book",
        MediaKind::Doc => "doc",
        MediaKind::Podcast => "audio",
        MediaKind::Video => "video",
        MediaKind::Image => "image",
    }
}

/// The kind that an address names.
pub(super) fn from_slug(text: &str) -> Option<MediaKind> {
    KINDS.into_iter().find(|kind| slug(*kind) == text)
}

/// What one of it is called.
pub(super) const fn name(t: &Texts, kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Book => t.book,
        MediaKind::Doc => t.document,
        MediaKind::Podcast => t.recording,
        MediaKind::Video => t.video,
        MediaKind::Image => t.image,
    }
}

/// What many of it are called.
pub(super) const fn plural(t: &Texts, kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Book => t.books,
        MediaKind::Doc => t.documents,
        MediaKind::Podcast => t.audio,
        MediaKind::Video => t.videos,
        MediaKind::Image => t.images,
    }
}
