//! Recordings and videos: duration, tags, chapters, cover and picture size, from their containers; no sample is decoded.
//!
//! Containers are read by seeking, so memory does not grow with the file. Whether there is a moving picture decides
//! between video and podcast, whatever the file is called.
//!
//! Not here: whether the file is whole (`whole`), and what the demuxers leave out (`mp4`, `matroska`).

mod matroska;
mod mp4;
mod tags;
mod whole;

use symphonia::core::{
    codecs::CodecParameters,
    common::Limit,
    formats::{Attachment, FormatOptions, FormatReader, TrackType, probe::Hint},
    io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions},
    meta::{ChapterGroup, ChapterGroupItem, MetadataOptions, StandardTag},
};

use super::{
    Chapter, ChapterStart, Cover, Inspection, Limits, MediaKind, Source, refusal::Refusal, sniff::Format, wording,
};

pub(super) fn inspect(mut source: Source<'_>, format: Format) -> Result<Inspection, Refusal> {
    let limits = source.limits;
    let size_bytes = source.size_bytes;
    let mut chapters = Vec::new();
    let mut languages = Vec::new();
    let mut mask = None;
    match format {
        Format::Mp4 | Format::M4a => {
            let scanned = mp4::scan(&mut source.file, size_bytes, limits)?;
            (chapters, languages) = (scanned.chapters, scanned.languages);
        }
        Format::WebM | Format::Matroska => {
            let scanned = matroska::scan(&mut source.file, size_bytes, format, limits)?;
            (chapters, mask) = (scanned.chapters, scanned.mask);
        }
        Format::OggVorbis | Format::Opus => whole::ogg(&mut source.file, size_bytes, format)?,
        Format::Mp3 => whole::mp3(&mut source.file, size_bytes, limits)?,
        _ => whole::flac_tags(&mut source.file, limits)?,
    }

    let mut reader = open(source, format, mask)?;
    if format == Format::Flac {
        whole::flac_samples(reader.as_mut())?;
    }
    let moving = video_track(reader.as_ref());
    let heard = reader.first_track(TrackType::Audio).is_some();
    let media_kind = match (moving.is_some(), heard) {
        (true, _) => MediaKind::Video,
        (false, true) => MediaKind::Podcast,
        (false, false) => {
            return Err(Refusal::Incomplete { format: format.name(), part: "anything to hear or to see" });
        }
    };
    let mut inspection = Inspection::bare(media_kind, mime(format, media_kind), size_bytes);
    if let Some((width, height)) = moving {
        (inspection.width_px, inspection.height_px) = (Some(width), Some(height));
    }
    inspection.duration_ms = duration_ms(reader.as_ref());
    for tag in &languages {
        inspection.add_language(tag);
    }
    for track in reader.tracks() {
        if let (Some(TrackType::Audio), Some(tag)) = (track.track_type(), &track.language) {
            inspection.add_language(tag);
        }
    }
    if let Some(group) = reader.chapters() {
        collect_chapters(group, limits.chapters_max, &mut inspection.chapters);
    }
    if inspection.chapters.is_empty() {
        inspection.chapters = chapters;
    }
    inspection.cover = attached_cover(reader.as_ref(), limits);
    let mut metadata = reader.metadata();
    loop {
        if let Some(revision) = metadata.current() {
            tags::apply(revision, limits, &mut inspection);
        }
        if metadata.pop().is_none() {
            break;
        }
    }
    Ok(inspection)
}

fn open(source: Source<'_>, format: Format, mask: Option<matroska::Mask>) -> Result<Box<dyn FormatReader>, Refusal> {
    let media: Box<dyn MediaSource> = match mask {
        Some(mask) => Box::new(matroska::Masked::new(source.file, source.size_bytes, mask)),
        None => Box::new(source.file),
    };
    let stream = MediaSourceStream::new(media, MediaSourceStreamOptions::default());
    let mut hint = Hint::new();
    hint.with_extension(hint_extension(format));
    let metadata_options = MetadataOptions::default()
        .limit_visual_bytes(Limit::Maximum(source.limits.cover_bytes_max as usize))
        .limit_tag_bytes(Limit::Default);
    symphonia::default::get_probe()
        .probe(&hint, stream, FormatOptions::default(), metadata_options)
        .map_err(|error| Refusal::damaged(format.name(), error))
}

fn hint_extension(format: Format) -> &'static str {
    match format {
        Format::Mp3 => "mp3",
        Format::M4a | Format::Mp4 => "mp4",
        Format::Flac => "flac",
        Format::WebM => "webm",
        Format::Matroska => "mkv",
        _ => "ogg",
    }
}

fn mime(format: Format, kind: MediaKind) -> &'static str {
    match (format, kind) {
        (Format::Mp3, _) => "audio/mpeg",
        (Format::Flac, _) => "audio/flac",
        (Format::OggVorbis | Format::Opus, _) => "audio/ogg",
        (Format::WebM, MediaKind::Video) => "video/webm",
        (Format::WebM, _) => "audio/webm",
        (Format::Matroska, MediaKind::Video) => "video/x-matroska",
        (Format::Matroska, _) => "audio/x-matroska",
        (_, MediaKind::Video) => "video/mp4",
        _ => "audio/mp4",
    }
}

/// The size of the first video track that is not a still cover, zero by zero if the container does not tell.
fn video_track(reader: &dyn FormatReader) -> Option<(u32, u32)> {
    reader.tracks().iter().find_map(|track| match &track.codec_params {
        Some(CodecParameters::Video(video)) => {
            Some((u32::from(video.width.unwrap_or(0)), u32::from(video.height.unwrap_or(0))))
        }
        _ => None,
    })
}

fn duration_ms(reader: &dyn FormatReader) -> Option<u64> {
    let media = reader.media_info();
    let whole = media.time_base.zip(media.duration);
    let longest = reader.tracks().iter().filter_map(|track| track.time_base.zip(track.duration));
    whole
        .into_iter()
        .chain(longest)
        .filter_map(|(base, duration)| u64::try_from(base.calc_duration(duration)?.as_millis()).ok())
        .max()
        .filter(|duration_ms| *duration_ms > 0)
}

/// Flattened, in order of time as the container has them.
fn collect_chapters(group: &ChapterGroup, chapters_max: usize, chapters: &mut Vec<Chapter>) {
    let mut stack: Vec<&ChapterGroupItem> = group.items.iter().rev().collect();
    while let Some(item) = stack.pop() {
        match item {
            ChapterGroupItem::Group(group) => stack.extend(group.items.iter().rev()),
            ChapterGroupItem::Chapter(chapter) => {
                let title = chapter.tags.iter().find_map(|tag| match &tag.std {
                    Some(StandardTag::ChapterTitle(title) | StandardTag::TrackTitle(title)) => wording::line(title),
                    _ => None,
                });
                let start_ms = u64::try_from(chapter.start_time.as_millis()).unwrap_or(0);
                if chapters.len() < chapters_max {
                    let title = title.unwrap_or_else(|| (chapters.len() + 1).to_string());
                    chapters.push(Chapter { title, start: ChapterStart::Ms(start_ms) });
                }
            }
        }
    }
}

/// Matroska keeps its cover as an attached file, by the name of `cover`.
fn attached_cover(reader: &dyn FormatReader, limits: &Limits) -> Option<Cover> {
    reader.attachments().iter().find_map(|attachment| match attachment {
        Attachment::File(file) if file.name.to_lowercase().contains("cover") => {
            Cover::accept(file.data.to_vec(), limits)
        }
        _ => None,
    })
}
