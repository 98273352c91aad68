//! How a medium is opened: a player, a picture, or the buttons that lead to it.
//!
//! A player starts where the address says (`?at=`, in seconds) by a media fragment, which every browser knows.

use alexandria_api::catalogue::{Catalogue, Content};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{FileRole, Media, MediaFile};
use alexandria_sync::id::RecordId;
use futures::StreamExt;
use maud::{Markup, html};

use super::{content, saved};
use crate::http::pages::answer::PageError;
use crate::http::pages::card;
use crate::http::pages::outlook;
use crate::http::pages::quantity;
use crate::http::pages::read::{self, Readable};
use crate::http::pages::visit::Visit;
use crate::http::pages::walk::Found;
use crate::http::pages::wording::Texts;

/// The parameter that says where a player starts.
pub(super) const AT: &str = "at";
/// Of a picture, read to learn its size.
const PICTURE_HEAD_BYTES: u64 = 64 * 1024;
/// Files that a player is offered to choose from.
const SOURCES_MAX: usize = 8;
/// Where a player may start, at most: a thousand hours.
const SECONDS_MAX: f64 = 3_600_000.0;

/// The page of a medium with its player at `ms`.
pub(super) fn at(media: RecordId, ms: u64) -> String {
    format!("/media/{media}?{AT}={}.{:03}#player", ms / 1000, ms % 1000)
}

/// The part of the page that opens the medium.
pub(super) async fn opening<C: Catalogue>(
    catalogue: &C,
    visit: &Visit,
    media: &Found<Media>,
) -> Result<Markup, PageError> {
    let t = visit.texts();
    let Some(main) = media.it.main_file() else { return Ok(cover_and(media, &html! {})) };
    let Some(found) = catalogue.open_blob(main.blob).await? else {
        let reason = outlook::reason(catalogue, t).await?;
        let mut whereabouts = catalogue.whereabouts(&[main.blob]).await?;
        let nearby = whereabouts.remove(&main.blob).map(|found| found.nearby).filter(|names| !names.is_empty());
        return Ok(cover_and(
            media,
            &html! {
                div.notice {
                    p { (t.not_arrived) }
                    @if let Some(nearby) = nearby {
                        p { (card::at(t, &nearby)) }
                    } @else {
                        p { (t.not_arrived_next) }
                    }
                    // It is read while it comes, if there is somewhere that it can come from.
                    @if let Some(reason) = reason {
                        p { (reason) }
                        p.actions { a.button href=(content(main)) { (t.fetch_now) } }
                    }
                }
            },
        ));
    };
    let essence = main.media_type.split(';').next().unwrap_or_default().trim();
    let save = html! {
        a.button.quiet href=(saved(main)) download=(main.name) {
            (t.download) " " span.count { (quantity::size(t, main.size_bytes)) }
        }
    };
    Ok(match essence {
        _ if essence.starts_with("audio/") => {
            let player = html! {
                audio controls preload="metadata" autoplay[visit.parameter(AT).is_some()] { (sources(t, visit, &media.it, "audio/")) }
                p.actions { (save) }
            };
            cover_and(media, &player)
        }
        _ if essence.starts_with("video/") => html! {
            div.opening #player {
                video controls playsinline preload="metadata" width="640" height="360"
                    poster=[media.it.cover.map(blob)] autoplay[visit.parameter(AT).is_some()] {
                    (sources(t, visit, &media.it, "video/"))
                    (tracks(&media.it))
                }
                p.actions { (save) }
            }
        },
        "image/jpeg" | "image/png" | "image/webp" | "image/gif" | "image/avif" => {
            let size = picture_size(found).await?;
            html! {
                div.opening #player {
                    a.picture href=(content(main)) {
                        img src={ "/v1/blobs/" (main.blob) } alt=(media.it.title)
                            width=[size.map(|(width, _)| width)] height=[size.map(|(_, height)| height)];
                    }
                    p.actions { a.button href=(content(main)) { (t.full_size) } " " (save) }
                }
            }
        }
        "application/pdf" => {
            cover_and(media, &html! { p.actions { a.button href=(content(main)) { (t.open) } " " (save) } })
        }
        _ if Readable::of(essence).is_some() => {
            let reading =
                html! { p.actions { a.button href=(read::part_address(media.id, 1)) { (t.read) } " " (save) } };
            cover_and(media, &reading)
        }
        _ => cover_and(media, &html! { p.actions { (save) } }),
    })
}

fn blob(hash: BlobHash) -> String {
    format!("/v1/blobs/{hash}")
}

fn cover_and(media: &Found<Media>, opening: &Markup) -> Markup {
    html! {
        div.opening.with-cover #player {
            (card::cover(media))
            div.how { (opening) }
        }
    }
}

fn sources(t: &Texts, visit: &Visit, media: &Media, family: &str) -> Markup {
    let start = visit.parameter(AT).and_then(|at| at.parse::<f64>().ok()).filter(|at| (0.0..SECONDS_MAX).contains(at));
    let playable =
        media.files.iter().filter(|file| file.role != FileRole::Supplement && file.media_type.starts_with(family));
    let mut playable: Vec<&MediaFile> = playable.take(SOURCES_MAX).collect();
    playable.sort_by_key(|file| file.role != FileRole::Main);
    html! {
        @for file in &playable {
            source src={ (blob(file.blob)) @if let Some(start) = start { "#t=" (start) } } type=(file.media_type);
        }
        p { (t.cannot_play) " " @for file in &playable { a href=(saved(file)) { bdi { (file.name) } } " " } }
    }
}

/// Subtitles: what comes beside a video as WebVTT, named like `talk.fr.vtt`.
fn tracks(media: &Media) -> Markup {
    let tracks =
        media.files.iter().filter(|file| file.role == FileRole::Supplement && file.media_type.starts_with("text/vtt"));
    html! {
        @for file in tracks.take(SOURCES_MAX) {
            @let stem = file.name.trim_end_matches(".vtt");
            @let tag = stem.rsplit_once('.').map(|(_, tag)| tag).filter(|tag| (2..=11).contains(&tag.len()));
            track kind="subtitles" src=(blob(file.blob)) label=(stem) srclang=(tag.unwrap_or("und"));
        }
    }
}

/// Its size in pixels, so that the page does not jump when it comes.
async fn picture_size<T: Content>(picture: T) -> Result<Option<(usize, usize)>, PageError> {
    let mut head = Vec::new();
    let mut pieces = picture.read(0..picture.info().size_bytes.min(PICTURE_HEAD_BYTES));
    while let Some(piece) = pieces.next().await {
        head.extend_from_slice(&piece?);
    }
    Ok(imagesize::blob_size(&head).ok().map(|size| (size.width, size.height)))
}
