//! Memory at the peak, measured by Linux in a process of its own for each image.

use std::fs;
use std::path::Path;
use std::process::Command;

use alexandria_ml::{Analyser, Config, PEAK_BYTES_FIXED, PEAK_BYTES_PER_PIXEL};
use image::{DynamicImage, ImageFormat};

use crate::images::{encoded, headers, scene};

/// Names the file that the process of its own looks at.
const FILE: &str = "ALEXANDRIA_ML_MEASURED_FILE";

/// Runs in the process of its own; elsewhere there is nothing to measure.
#[test]
fn measured() {
    let Ok(file) = std::env::var(FILE) else { return };
    let bytes = fs::read(file).expect("the file to measure");
    let before = kilobytes("VmRSS:");
    let analyser = Analyser::new(Config::default()).expect("an analyser");
    let opened = kilobytes("VmHWM:");
    let size =
        analyser.analyse(&bytes).map(|annotation| u64::from(annotation.width_px) * u64::from(annotation.height_px));
    println!("\nmeasured {} {} {}", kilobytes("VmHWM:") - before, kilobytes("VmHWM:") - opened, size.unwrap_or(0));
}

fn kilobytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

struct Measured {
    /// Opening the analyser and analysing.
    all_bytes: u64,
    /// What analysing added to the peak of opening.
    added_bytes: u64,
    pixels: u64,
}

fn measure(file: &Path) -> Measured {
    let child = Command::new(std::env::current_exe().expect("this test's binary"))
        .args(["memory::measured", "--exact", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .output()
        .expect("the test's binary runs");
    let output = String::from_utf8_lossy(&child.stdout);
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("measured "))
        .unwrap_or_else(|| panic!("no answer in {output}"));
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
    Measured { all_bytes: numbers[0] << 10, added_bytes: numbers[1] << 10, pixels: numbers[2] }
}

#[test]
fn the_documented_peak_holds_for_the_worst_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("deep.png");
    DynamicImage::ImageRgba16(DynamicImage::ImageRgb8(scene(2400, 2000)).into_rgba16())
        .save(&deep)
        .expect("the test image is written");
    let mut files = vec![deep, Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/progressive.jpg")];
    for (format, name) in [(ImageFormat::WebP, "a.webp"), (ImageFormat::Gif, "a.gif"), (ImageFormat::Tiff, "a.tiff")] {
        files.push(folder.path().join(name));
        fs::write(files.last().expect("just pushed"), encoded(&scene(1200, 1000), format))
            .expect("the test image is written");
    }
    for file in files {
        let measured = measure(&file);
        let file_bytes = fs::metadata(&file).expect("the file is there").len();
        let allowed = PEAK_BYTES_PER_PIXEL * measured.pixels + 2 * file_bytes + PEAK_BYTES_FIXED;
        let name = file.file_name();
        println!(
            "{name:?}: {} bytes at the peak, {} pixels, file {file_bytes}, {allowed} allowed",
            measured.all_bytes, measured.pixels
        );
        assert!(measured.pixels > 1_000_000, "{name:?} was refused");
        assert!(measured.all_bytes <= allowed, "{name:?}: {} bytes, {allowed} allowed", measured.all_bytes);
    }
}

#[test]
fn refusing_60000_by_60000_takes_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, bytes) in headers(60_000) {
        let file = folder.path().join("huge");
        fs::write(&file, bytes).expect("the test image is written");
        let measured = measure(&file);
        assert_eq!(measured.pixels, 0, "{format:?} was not refused");
        assert!(measured.added_bytes < 4 << 20, "{format:?}: {} bytes", measured.added_bytes);
    }
}
