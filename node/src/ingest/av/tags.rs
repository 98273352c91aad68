//! What tags of every kind (ID3, Vorbis comments, iTunes atoms, Matroska) mean to the library.

use symphonia::core::meta::{MetadataRevision, StandardTag, StandardVisualKey, Visual};

use super::super::{Cover, Inspection, Limits, wording};

/// Adds what one set of tags says; what an earlier one said stands.
pub(super) fn apply(revision: &MetadataRevision, limits: &Limits, inspection: &mut Inspection) {
    let tracks = revision.per_track.iter().flat_map(|track| &track.metadata.tags);
    let mut album_artists = Vec::new();
    for tag in revision.media.tags.iter().chain(tracks).filter_map(|tag| tag.std.as_ref()) {
        match tag {
            StandardTag::TrackTitle(title) | StandardTag::MovieTitle(title) | StandardTag::TvEpisodeTitle(title) => {
                fill(&mut inspection.title, title);
            }
            StandardTag::Artist(name)
            | StandardTag::Author(name)
            | StandardTag::Writer(name)
            | StandardTag::Director(name) => name.split(['\0', ';']).for_each(|name| inspection.add_author(name)),
            StandardTag::AlbumArtist(name) => album_artists.push(name.clone()),
            StandardTag::Language(tag) => tag.split(['\0', ';']).for_each(|tag| inspection.add_language(tag)),
            StandardTag::Description(text)
            | StandardTag::Synopsis(text)
            | StandardTag::Summary(text)
            | StandardTag::PodcastDescription(text)
            | StandardTag::Comment(text) => {
                inspection.description = inspection.description.take().or_else(|| wording::description(text));
            }
            StandardTag::Label(name) | StandardTag::ProductionStudio(name) | StandardTag::TvNetwork(name) => {
                inspection.publisher = inspection.publisher.take().or_else(|| wording::line(name));
            }
            StandardTag::ReleaseDate(date)
            | StandardTag::RecordingDate(date)
            | StandardTag::OriginalReleaseDate(date) => {
                inspection.published = inspection.published.take().or_else(|| wording::date(date));
            }
            StandardTag::ReleaseYear(year) | StandardTag::RecordingYear(year) => {
                inspection.published = inspection.published.take().or_else(|| wording::date(&year.to_string()));
            }
            _ => {}
        }
    }
    if inspection.authors.is_empty() {
        for name in &album_artists {
            inspection.add_author(name);
        }
    }
    if inspection.cover.is_none() {
        inspection.cover = cover(&revision.media.visuals, limits);
    }
}

fn fill(field: &mut String, text: &str) {
    if field.is_empty() {
        *field = wording::line(text).unwrap_or_default();
    }
}

/// The front cover, or else the first picture.
fn cover(visuals: &[Visual], limits: &Limits) -> Option<Cover> {
    let front = visuals.iter().find(|visual| visual.usage == Some(StandardVisualKey::FrontCover));
    front.or(visuals.first()).and_then(|visual| Cover::accept(visual.data.to_vec(), limits))
}
