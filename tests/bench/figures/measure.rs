//! What every figure needs: medians, sizes, content that nothing compresses.

use std::path::Path;

use alexandria_e2e::namespace::Namespace;

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes that nothing compresses.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Text of this size that no chunk repeats.
pub(crate) fn write_noise(path: &Path, len: u64) {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut bytes = [0; 32];
    for _ in 0..len / 64 {
        reader.fill(&mut bytes);
        let line = blake3::Hash::from_bytes(bytes).to_hex();
        file.write_all(line.as_bytes()).expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}

/// Bytes of all files below a folder.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// In millions of bytes.
pub(crate) fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// Has what is sent over TCP from this namespace governed by this congestion control; tells by which it is.
pub(crate) fn govern_tcp(namespace: &Namespace, name: &str) -> String {
    const SETTING: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let governed = namespace.within(|| {
        if let Err(error) = std::fs::write(SETTING, name) {
            eprintln!("TCP cannot be governed by {name}: {error}");
        }
        std::fs::read_to_string(SETTING)
    });
    governed.expect("the kernel tells").trim().to_owned()
}
