//! A PDF's outline ("bookmarks") as chapters with page numbers.

use std::collections::{HashMap, HashSet};

use hayro_syntax::{
    Pdf,
    object::{Array, Dict, MaybeRef, Object, ObjectIdentifier, String as PdfString},
};

use super::{
    super::{Chapter, ChapterStart, wording},
    text,
};

/// Outline items and named destinations may form circles and trees of any size; this many steps are taken.
const STEPS_MAX: usize = 20_000;

/// The outline's items, flattened, in order; those that lead to no page of this document are left out.
pub(super) fn read(pdf: &Pdf, root: &Dict<'_>, chapters_max: usize) -> Vec<Chapter> {
    let Some(outlines) = root.get::<Dict<'_>>("Outlines") else { return Vec::new() };
    let mut page_numbers = HashMap::new();
    for (index, page) in pdf.pages().iter().enumerate() {
        if let (Some(id), Ok(number)) = (page.raw().obj_id(), u32::try_from(index + 1)) {
            page_numbers.insert(id, number);
        }
    }
    let destinations = Destinations { named: named_destinations(root), page_numbers };

    let mut chapters = Vec::new();
    let mut seen = HashSet::new();
    let mut stack: Vec<Dict<'_>> = outlines.get::<Dict<'_>>("First").into_iter().collect();
    for _ in 0..STEPS_MAX {
        let Some(item) = stack.pop() else { break };
        if item.obj_id().is_some_and(|id| !seen.insert(id)) {
            continue;
        }
        // The next sibling comes after the children.
        stack.extend(item.get::<Dict<'_>>("Next"));
        stack.extend(item.get::<Dict<'_>>("First"));
        let title = item.get::<PdfString<'_>>("Title").and_then(|title| wording::line(&text(title.as_bytes())));
        let page = item
            .get::<Object<'_>>("Dest")
            .or_else(|| item.get::<Dict<'_>>("A")?.get::<Object<'_>>("D"))
            .and_then(|destination| destinations.page(destination));
        if let (Some(title), Some(page)) = (title, page) {
            chapters.push(Chapter { title, start: ChapterStart::Page(page) });
            if chapters.len() == chapters_max {
                break;
            }
        }
    }
    chapters
}

struct Destinations<'a> {
    named: HashMap<Vec<u8>, Array<'a>>,
    page_numbers: HashMap<ObjectIdentifier, u32>,
}

impl<'a> Destinations<'a> {
    fn page(&self, destination: Object<'a>) -> Option<u32> {
        let explicit = match destination {
            Object::Array(array) => array,
            Object::String(name) => self.named.get(name.as_bytes())?.clone(),
            Object::Name(name) => self.named.get(name.as_str().as_bytes())?.clone(),
            _ => return None,
        };
        match explicit.raw_iter().next()? {
            MaybeRef::Ref(page) => self.page_numbers.get(&page.into()).copied(),
            MaybeRef::NotRef(_) => None,
        }
    }
}

/// Both places where destinations are named: the catalogue's own dictionary, and the name tree.
fn named_destinations<'a>(root: &Dict<'a>) -> HashMap<Vec<u8>, Array<'a>> {
    let mut named = HashMap::new();
    if let Some(old) = root.get::<Dict<'a>>("Dests") {
        for key in old.keys().take(STEPS_MAX) {
            if let Some(array) = old.get::<Object<'a>>(key.clone()).and_then(explicit) {
                named.insert(key.as_str().as_bytes().to_vec(), array);
            }
        }
    }
    let tree = root.get::<Dict<'a>>("Names").and_then(|names| names.get::<Dict<'a>>("Dests"));
    let mut stack: Vec<Dict<'a>> = tree.into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(node) = stack.pop() {
        if named.len() >= STEPS_MAX || seen.len() >= STEPS_MAX {
            break;
        }
        if node.obj_id().is_some_and(|id| !seen.insert(id)) {
            continue;
        }
        if let Some(kids) = node.get::<Array<'a>>("Kids") {
            stack.extend(kids.iter::<Dict<'a>>().take(STEPS_MAX));
        }
        if let Some(pairs) = node.get::<Array<'a>>("Names") {
            let mut pairs = pairs.iter::<Object<'a>>().take(2 * STEPS_MAX);
            while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
                if let (Object::String(key), Some(array)) = (key, explicit(value)) {
                    named.insert(key.as_bytes().to_vec(), array);
                }
            }
        }
    }
    named
}

fn explicit(value: Object<'_>) -> Option<Array<'_>> {
    match value {
        Object::Array(array) => Some(array),
        Object::Dict(dict) => dict.get("D"),
        _ => None,
    }
}
