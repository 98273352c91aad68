//! What every figure needs: medians, sizes, processor time, content that nothing compresses.

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
            eprintln!(
                "TCP cannot be governed by {name}: {error}; as root, sysctl -w net.ipv4.tcp_allowed_congestion_control='reno {name}' lets it"
            );
        }
        std::fs::read_to_string(SETTING)
    });
    governed.expect("the kernel tells").trim().to_owned()
}

/// Ticks of the kernel's clock in a second, as it tells them to programs (`times(2)`): 100 on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// Processor time that a process and all that it started have used so far, in seconds, those that have ended included.
pub(crate) fn processor_seconds(pid: u32) -> f64 {
    let mut ticks = 0;
    let mut family = vec![pid];
    let processes: Vec<(u32, u32, u64)> = std::fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(processor_ticks)
        .collect();
    while let Some(parent) = family.pop() {
        for &(pid, parent_of, used) in &processes {
            if pid == parent {
                ticks += used;
            }
            if parent_of == parent {
                family.push(pid);
            }
        }
    }
    ticks as f64 / TICKS_PER_S
}

/// A process, its parent, and what it and its children that have ended have used; `None` if it is gone.
fn processor_ticks(pid: u32) -> Option<(u32, u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, but the last parenthesis is its end.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let used = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((pid, parent, used))
}
