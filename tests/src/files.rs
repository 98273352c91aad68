//! Files for tests to import: those of the built-in library, which are real ones of every sort, and noise of any size.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::Rng;

use crate::{process::source_tree, seed::generator};

/// A file of the built-in library.
pub struct RealFile {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// An EPUB and a PDF in two languages, a recording, a film and pictures.
pub fn real() -> Vec<RealFile> {
    let folder = source_tree().join("node/builtin/library");
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    let mut files: Vec<RealFile> = listed
        .map(|entry| {
            let entry = entry.expect("a folder can be read to its end");
            let name = entry.file_name().into_string().expect("the names are ASCII");
            let bytes = fs::read(entry.path()).unwrap_or_else(|error| panic!("read {name}: {error}"));
            RealFile { name, bytes }
        })
        .collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!files.is_empty(), "{} holds files", folder.display());
    files
}

/// Writes [`real`] files into a new folder below `parent`, some of them in folders of their own.
pub fn real_folder(parent: &Path) -> PathBuf {
    let folder = parent.join("import me");
    for (index, file) in real().into_iter().enumerate() {
        let shelf = if index % 2 == 0 { folder.clone() } else { folder.join("shelf").join(index.to_string()) };
        write(&shelf, &file.name, &file.bytes);
    }
    folder
}

/// Writes a file, making its folder.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, bytes))
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    path
}

/// Bytes that nothing compresses, the same for the same seed.
pub fn noise(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    generator(seed).fill(bytes.as_mut_slice());
    bytes
}

/// The name of some content: its BLAKE3 hash in hex.
pub fn content_name(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
