//! The colours that an image is mostly made of.
//!
//! Pixels of a small copy are counted in a grid of 16 levels for each channel; then the fullest cells are taken, leaving out
//! what is too near to one already taken. A colour is the mean of its cell's pixels, so that flat areas keep their exact
//! colour. No randomness: the same pixels give the same colours.

use std::cmp::Reverse;
use std::fmt;

use image::{RgbImage, imageops};

/// The longer edge of the copy whose pixels are counted.
const COUNTED_EDGE_PX: u32 = 96;
/// Bits of each channel that tell cells apart.
const CELL_BITS: u32 = 4;
/// Colours whose channels differ by less than this in all look like one beside each other.
const DISTINCT_MIN: u32 = 72;
/// A colour on fewer pixels than one in this many is a detail.
const RAREST: usize = 200;

/// A colour in sRGB, 8 bits a channel. Displays as `#rrggbb`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rgb {
    /// Red.
    pub red: u8,
    /// Green.
    pub green: u8,
    /// Blue.
    pub blue: u8,
}

impl fmt::Display for Rgb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// At most `count_max` colours, the most frequent first; at least one if any is asked for.
pub(crate) fn dominant_colours(image: &RgbImage, count_max: usize) -> Vec<Rgb> {
    let (width, height) = (image.width().min(COUNTED_EDGE_PX), image.height().min(COUNTED_EDGE_PX));
    let small = imageops::thumbnail(image, width, height);
    let mut cells = vec![Cell::default(); 1 << (3 * CELL_BITS)];
    for pixel in small.pixels() {
        cells[cell_of(pixel.0)].add(pixel.0);
    }
    let seldom = small.pixels().len() / RAREST;
    // The index breaks ties, so that the order never depends on the sort.
    let mut order: Vec<usize> = (0..cells.len()).filter(|&index| cells[index].count > seldom).collect();
    order.sort_unstable_by_key(|&index| (Reverse(cells[index].count), index));

    let mut colours: Vec<Rgb> = Vec::with_capacity(count_max.min(order.len()));
    for colour in order.into_iter().map(|index| cells[index].mean()) {
        if colours.len() == count_max {
            break;
        }
        if colours.iter().all(|&taken| difference(taken, colour) >= DISTINCT_MIN) {
            colours.push(colour);
        }
    }
    colours
}

#[derive(Clone, Copy, Default)]
struct Cell {
    count: usize,
    sums: [usize; 3],
}

impl Cell {
    fn add(&mut self, channels: [u8; 3]) {
        self.count += 1;
        for (sum, channel) in self.sums.iter_mut().zip(channels) {
            *sum += usize::from(channel);
        }
    }

    fn mean(&self) -> Rgb {
        let [red, green, blue] = self.sums.map(|sum| ((sum + self.count / 2) / self.count.max(1)) as u8);
        Rgb { red, green, blue }
    }
}

fn cell_of(channels: [u8; 3]) -> usize {
    channels.iter().fold(0, |cell, channel| (cell << CELL_BITS) | usize::from(channel >> (8 - CELL_BITS)))
}

fn difference(a: Rgb, b: Rgb) -> u32 {
    u32::from(a.red.abs_diff(b.red)) + u32::from(a.green.abs_diff(b.green)) + u32::from(a.blue.abs_diff(b.blue))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::{Rgb, dominant_colours};

    #[test]
    fn flat_areas_keep_their_exact_colour_in_order_of_size() {
        let image =
            RgbImage::from_fn(
                90,
                60,
                |x, _| if x < 60 { image::Rgb([200, 30, 30]) } else { image::Rgb([15, 40, 160]) },
            );
        let red = Rgb { red: 200, green: 30, blue: 30 };
        let blue = Rgb { red: 15, green: 40, blue: 160 };
        assert_eq!(dominant_colours(&image, 5), [red, blue]);
        assert_eq!(dominant_colours(&image, 1), [red]);
        assert_eq!(dominant_colours(&image, 0), []);
        assert_eq!(red.to_string(), "#c81e1e");
    }

    #[test]
    fn shades_of_one_colour_count_once() {
        let image = RgbImage::from_fn(64, 64, |x, _| image::Rgb([100 + (x / 4) as u8, 100, 100]));
        assert_eq!(dominant_colours(&image, 5).len(), 1);
    }

    #[test]
    fn one_pixel_has_one_colour() {
        assert_eq!(dominant_colours(&RgbImage::new(1, 1), 5), [Rgb { red: 0, green: 0, blue: 0 }]);
    }
}
