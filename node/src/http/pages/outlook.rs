//! `/status`: what is still to come to this library, how fast, until when, and why it waits; and the line about it on other
//! pages.

use alexandria_api::catalogue::Catalogue;
use alexandria_sync::budget::Period;
use alexandria_sync::outlook::{Outlook, Until, Wait};
use alexandria_sync::wire::Class;
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::layout;
use super::quantity;
use super::visit::Visit;
use super::wording::{Texts, fill};

/// The address of the page.
pub(super) const PATH: &str = "/status";

/// The page.
pub(super) async fn page<C: Catalogue>(catalogue: &C, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let outlook = catalogue.outlook().await?;
    let body = html! {
        (layout::trail(t, &[], &html! { (t.outlook) }))
        h1 { (t.outlook) }
        @match &outlook {
            None => p { (t.on_its_own) },
            Some(outlook) => (figures(t, outlook)),
        }
    };
    Ok(Page::new(t.outlook, body))
}

/// One line for a page about something else; nothing if nothing is to come.
pub(super) async fn line<C: Catalogue>(catalogue: &C, t: &Texts) -> Result<Markup, PageError> {
    let outlook = catalogue.outlook().await?.filter(|outlook| !is_done(outlook));
    Ok(html! {
        @if let Some(outlook) = outlook {
            p.outlook {
                a href=(PATH) { (t.to_come) ": " (amount(t, &outlook)) }
                @if let Some(wait) = &outlook.wait { " · " (wait_text(t, wait)) }
            }
        }
    })
}

/// Why content that was asked for does not come, in a sentence; nothing if it may come.
pub(super) async fn reason<C: Catalogue>(catalogue: &C, t: &Texts) -> Result<Option<Markup>, PageError> {
    let outlook = catalogue.outlook().await?;
    Ok(outlook.map(|outlook| html! { @if let Some(wait) = &outlook.wait { (wait_text(t, wait)) } }))
}

fn is_done(outlook: &Outlook) -> bool {
    outlook.records == 0 && outlook.content.is_empty()
}

fn amount(t: &Texts, outlook: &Outlook) -> String {
    let (blobs, bytes) =
        outlook.content.values().fold((0, 0), |(blobs, bytes), amount| (blobs + amount.blobs, bytes + amount.bytes));
    if blobs == 0 {
        fill(t.entries, &[&quantity::count(t, outlook.records)])
    } else {
        fill(t.files_of, &[&quantity::count(t, blobs), &quantity::size(t, bytes)])
    }
}

fn figures(t: &Texts, outlook: &Outlook) -> Markup {
    html! {
        @if is_done(outlook) { p { (t.all_is_here) } }
        section.details {
            dl {
                @if outlook.records > 0 { dt { (t.catalogue_entries) } dd { (quantity::count(t, outlook.records)) } }
                @for (class, amount) in &outlook.content {
                    dt { (class_name(t, *class)) }
                    dd { (fill(t.files_of, &[&quantity::count(t, amount.blobs), &quantity::size(t, amount.bytes)])) }
                }
                @if outlook.bytes_to_send > 0 { dt { (t.to_send) } dd { (quantity::size(t, outlook.bytes_to_send)) } }
                @if outlook.bytes_per_s > 0 {
                    dt { (t.speed) }
                    dd { (fill(t.a_second, &[&quantity::size(t, outlook.bytes_per_s)])) }
                }
                @if let Some(seconds) = outlook.done_in_s {
                    dt { (t.done_in) }
                    dd { (quantity::duration(seconds.saturating_mul(1000))) }
                }
                @if let Some(wait) = &outlook.wait { dt { (t.why_it_waits) } dd { (wait_text(t, wait)) } }
                @if let Some(seconds) = outlook.next_attempt_s {
                    dt { (t.next_attempt) }
                    dd { (quantity::duration(seconds.saturating_mul(1000))) }
                }
                @if let Some(budget) = outlook.budget {
                    dt { (t.data_left) }
                    dd {
                        @let (all, content) = (quantity::size(t, budget.all_bytes), quantity::size(t, budget.content_bytes));
                        (fill(t.of_it_for_files, &[&all, &content]))
                    }
                }
            }
        }
    }
}

fn class_name(t: &Texts, class: Class) -> &'static str {
    match class {
        Class::Control | Class::Records => t.catalogue_entries,
        Class::Reader => t.asked_for,
        Class::Software => t.software,
        Class::Pinned => t.small_files,
        Class::Background => t.other_files,
    }
}

/// A reason in the visitor's language. What a machine said stays as it is.
fn wait_text(t: &Texts, wait: &Wait) -> Markup {
    let until = wait.until().map(Until::to_clock).unwrap_or_default();
    let text = match wait {
        Wait::OutsideHours(_) => t.wait_hours,
        Wait::UsedUp { period: Period::Day, .. } => t.wait_day,
        Wait::UsedUp { period: Period::Month, .. } => t.wait_month,
        Wait::ContentUsedUp { period: Period::Day, .. } => t.wait_day_content,
        Wait::ContentUsedUp { period: Period::Month, .. } => t.wait_month_content,
        Wait::NoRoom => t.wait_no_room,
        Wait::NoLink { .. } => t.wait_no_link,
        Wait::Refused { .. } => t.wait_refused,
        Wait::NotAsked => t.wait_not_asked,
    };
    html! { (fill(text, &[&until])) }
}
