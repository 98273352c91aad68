//! Which files below some paths are worth inspecting, always in the same order.
//!
//! Hidden files are passed over silently, as every file manager does. Files of types that the library does not take
//! are named with their reason, so that a librarian can see why a folder of 100 files gave 97 books.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use super::{
    Limits,
    refusal::{InspectError, Refusal},
    sniff,
};

/// What a walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// Sorted by name within each folder, in the order of the paths given; without repeats.
    pub files: Vec<PathBuf>,
    pub skipped: Vec<Skipped>,
}

/// A file or folder that was left out, and why. Its text names both.
pub type Skipped = InspectError;

/// Why a walk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("there are more than {files_max} files; import them in parts")]
    TooManyFiles { files_max: usize },
}

/// Finds the files at and below `paths`. A path that was named itself is taken even if it is hidden.
///
/// Symbolic links are followed; a link to a folder that contains it is reported, not followed. Folders deeper than
/// [`Limits::walk_depth_max`] are not entered.
///
/// # Errors
///
/// [`WalkError`]; a path that does not exist or cannot be read is not an error but [`Found::skipped`].
pub fn walk(paths: &[PathBuf], limits: &Limits) -> Result<Found, WalkError> {
    let mut found = Found::default();
    let mut seen = std::collections::HashSet::new();
    for root in paths {
        let entries = WalkDir::new(root)
            .follow_links(true)
            .max_depth(limits.walk_depth_max)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
        for entry in entries {
            if found.files.len() + found.skipped.len() >= limits.walk_files_max {
                return Err(WalkError::TooManyFiles { files_max: limits.walk_files_max });
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    found.skipped.push(unreadable(root, error));
                    continue;
                }
            };
            if entry.file_type().is_dir() {
                continue;
            }
            let path = entry.into_path();
            // Two links, or two of the paths given, may lead to one file.
            let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !seen.insert(identity) {
                continue;
            }
            match of_no_use(&path) {
                Some(reason) => found.skipped.push(Skipped { path, reason }),
                None => found.files.push(path),
            }
        }
    }
    Ok(found)
}

/// Only what is surely not for the library is left out here: a mislabelled or broken file is for `inspect` to refuse.
fn of_no_use(path: &Path) -> Option<Refusal> {
    let head = match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Some(Refusal::NotAFile),
        Ok(_) => File::open(path).and_then(|mut file| super::read_head(&mut file)),
        Err(error) => Err(error),
    };
    let refusal = head
        .map_err(Refusal::Io)
        .and_then(|head| sniff::sniff(&head, sniff::extension(path).as_deref()).map(drop))
        .err()?;
    (!matches!(refusal, Refusal::Mislabelled { .. })).then_some(refusal)
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().first() == Some(&b'.')
}

fn unreadable(root: &Path, error: walkdir::Error) -> Skipped {
    let path = error.path().unwrap_or(root).to_owned();
    Skipped { path, reason: Refusal::Io(io::Error::from(error)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(paths: &[PathBuf], base: &Path) -> Vec<String> {
        paths.iter().map(|path| path.strip_prefix(base).expect("below base").display().to_string()).collect()
    }

    #[test]
    fn files_come_in_a_stable_order_without_the_hidden_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path();
        fs::create_dir_all(base.join("b/.git")).expect("folders");
        for name in ["b/2.txt", "b/10.txt", "a.txt", ".hidden.txt", "b/.git/x.txt", "z.py", "c.pdf"] {
            fs::write(base.join(name), "some text").expect("a file");
        }
        let found = walk(&[base.to_owned(), base.join("a.txt")], &Limits::default()).expect("a walk");
        assert_eq!(names(&found.files, base), ["a.txt", "b/10.txt", "b/2.txt", "c.pdf"]);
        assert_eq!(found.skipped.len(), 1);
        assert!(
            found.skipped[0]
                .to_string()
                .ends_with("z.py: it is a text of some other kind, which the library does not take")
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_reported() {
        let found = walk(&[PathBuf::from("/nonexistent/shelf")], &Limits::default()).expect("a walk");
        assert!(found.files.is_empty());
        assert!(found.skipped[0].to_string().contains("/nonexistent/shelf"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_never_in_circles() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path();
        fs::create_dir(base.join("shelf")).expect("a folder");
        fs::write(base.join("shelf/a.txt"), "text").expect("a file");
        symlink(base, base.join("shelf/loop")).expect("a link");
        symlink(base.join("shelf/a.txt"), base.join("shelf/same.txt")).expect("a link");
        symlink(base.join("gone"), base.join("shelf/dangling.txt")).expect("a link");
        let found = walk(&[base.to_owned()], &Limits::default()).expect("a walk");
        assert_eq!(names(&found.files, base), ["shelf/a.txt"]);
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
    }

    #[test]
    fn a_walk_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..5 {
            fs::write(folder.path().join(format!("{number}.txt")), "text").expect("a file");
        }
        let limits = Limits { walk_files_max: 3, ..Limits::default() };
        assert!(matches!(walk(&[folder.path().to_owned()], &limits), Err(WalkError::TooManyFiles { files_max: 3 })));
    }
}
