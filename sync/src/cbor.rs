//! CBOR (RFC 8949) from strangers: what is looked at before anything is decoded, so that no length, count or depth is believed.
//!
//! minicbor allocates nothing from a length, but it walks over what it does not know with a stack of its own, which an item of
//! nested indefinite lengths makes as large as it likes. [`skip`] walks with a bound.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

/// Major types.
pub(crate) const UINT: u8 = 0;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;

/// Which lengths of arrays, maps and strings are allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lengths {
    /// Those that are told before the content.
    Definite,
    /// Those that end with a break, too.
    Any,
}

/// Reads the head of an item of this major type, which must be as short as it can be, and tells its number or length.
pub(crate) fn head(d: &mut Decoder<'_>, major: u8) -> Result<u64, Error> {
    let position = d.position();
    let rest = d.input().get(position..).unwrap_or_default();
    let (&first, after) = rest.split_first().ok_or_else(Error::end_of_input)?;
    if first >> 5 != major {
        return Err(Error::message("an item of another type was expected").at(position));
    }
    let (len, shortest_from) = match first & 0x1f {
        short @ 0..=23 => {
            d.set_position(position + 1);
            return Ok(short.into());
        }
        24 => (1, 24),
        25 => (2, 1 << 8),
        26 => (4, 1 << 16),
        27 => (8, 1 << 32),
        _ => return Err(Error::message("only items of definite length are allowed").at(position)),
    };
    let bytes = after.get(..len).ok_or_else(Error::end_of_input)?;
    let number = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    if number < shortest_from {
        return Err(Error::message("a number is longer than it need be").at(position));
    }
    d.set_position(position + 1 + len);
    Ok(number)
}

/// Moves past one well-formed item that nests at most `depth` containers. Takes no memory but its own frames.
pub(crate) fn skip(d: &mut Decoder<'_>, depth: usize, lengths: Lengths) -> Result<(), Error> {
    match d.datatype()? {
        Type::Array | Type::ArrayIndef => {
            let inside = deeper(d, depth)?;
            let len = d.array()?;
            items(d, (len, 1), inside, lengths)
        }
        Type::Map | Type::MapIndef => {
            let inside = deeper(d, depth)?;
            let len = d.map()?;
            items(d, (len, 2), inside, lengths)
        }
        Type::Tag => {
            let inside = deeper(d, depth)?;
            d.tag()?;
            skip(d, inside, lengths)
        }
        Type::String => d.str().map(drop),
        Type::BytesIndef if lengths == Lengths::Any => d.bytes_iter()?.try_for_each(|part| part.map(drop)),
        Type::StringIndef if lengths == Lengths::Any => d.str_iter()?.try_for_each(|part| part.map(drop)),
        Type::BytesIndef | Type::StringIndef => Err(indefinite(d)),
        Type::Break | Type::Unknown(_) => Err(Error::message("an item was expected").at(d.position())),
        _ => d.skip(),
    }
}

/// Moves past so many entries of one or two items each, or past those before a break.
fn items(d: &mut Decoder<'_>, (len, each): (Option<u64>, usize), depth: usize, lengths: Lengths) -> Result<(), Error> {
    let entry = |d: &mut Decoder<'_>| (0..each).try_for_each(|_| skip(d, depth, lengths));
    if let Some(len) = len {
        return (0..len).try_for_each(|_| entry(d));
    }
    if lengths == Lengths::Definite {
        return Err(indefinite(d));
    }
    while d.datatype()? != Type::Break {
        entry(d)?;
    }
    d.set_position(d.position() + 1);
    Ok(())
}

fn deeper(d: &Decoder<'_>, depth: usize) -> Result<usize, Error> {
    depth.checked_sub(1).ok_or_else(|| Error::message("an item nests too deeply").at(d.position()))
}

fn indefinite(d: &Decoder<'_>) -> Error {
    Error::message("only items of definite length are allowed").at(d.position())
}

/// The number of entries in the array that the map `body` holds under `key`, at most `max + 1`; 0 if there is none. The whole
/// of `body` is looked at: it must be one map of well-formed items that nest at most `depth` containers, itself included.
pub(crate) fn entries(body: &[u8], key: i64, max: usize, depth: usize) -> Result<usize, Error> {
    let mut d = Decoder::new(body);
    skip(&mut d, depth, Lengths::Any)?;
    let mut d = Decoder::new(body);
    let mut pairs = d.map()?;
    let mut largest = 0;
    loop {
        match &mut pairs {
            Some(0) => return Ok(largest),
            Some(left) => *left -= 1,
            None if d.datatype()? == Type::Break => return Ok(largest),
            None => {}
        }
        let found = d.i64()? == key;
        if found && matches!(d.datatype()?, Type::Array | Type::ArrayIndef) {
            largest = largest.max(array_len(&mut Decoder::new(&body[d.position()..]), max, depth)?);
        }
        skip(&mut d, depth, Lengths::Any)?;
    }
}

fn array_len(d: &mut Decoder<'_>, max: usize, depth: usize) -> Result<usize, Error> {
    if let Some(len) = d.array()? {
        return Ok(usize::try_from(len).unwrap_or(usize::MAX));
    }
    let mut len = 0;
    while len <= max && d.datatype()? != Type::Break {
        skip(d, depth, Lengths::Any)?;
        len += 1;
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8], depth: usize, lengths: Lengths) -> Result<usize, Error> {
        let mut d = Decoder::new(bytes);
        skip(&mut d, depth, lengths).map(|()| d.position())
    }

    #[test]
    fn items_of_every_form_are_passed_over_to_their_end() {
        let items: [&[u8]; 12] = [
            &[0x17],
            &[0x39, 0x01, 0x00],
            &[0x42, 1, 2],
            &[0x62, b'h', b'i'],
            &[0x82, 0x80, 0xa0],
            &[0xa1, 0x01, 0x81, 0x02],
            &[0xc1, 0x00],
            &[0xf6],
            &[0xf8, 0xff],
            &[0xf9, 0x3c, 0x00],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ];
        for item in items {
            let with_more = [item, &[0x00]].concat();
            assert_eq!(skipped(&with_more, 2, Lengths::Definite).unwrap(), item.len(), "{item:02x?}");
        }
        let indefinite: [&[u8]; 4] =
            [&[0x9f, 0x01, 0xff], &[0xbf, 0x01, 0x9f, 0xff, 0xff], &[0x5f, 0x41, 1, 0xff], &[0x7f, 0x61, b'h', 0xff]];
        for item in indefinite {
            assert_eq!(skipped(item, 2, Lengths::Any).unwrap(), item.len(), "{item:02x?}");
            assert!(skipped(item, 2, Lengths::Definite).is_err(), "{item:02x?}");
        }
    }

    #[test]
    fn depth_is_bounded_and_cut_or_broken_items_are_refused() {
        for container in [&[0x81][..], &[0x9f], &[0xa1, 0x00], &[0xbf, 0x00], &[0xc1]] {
            let nested = container.repeat(100_000);
            assert!(skipped(&nested, 16, Lengths::Any).is_err(), "{container:02x?}");
        }
        for broken in
            [&[][..], &[0xff], &[0x82, 0x00], &[0x62, 0xff, 0xff], &[0x9f, 0x00], &[0x1c], &[0xbf, 0x00, 0xff]]
        {
            assert!(skipped(broken, 16, Lengths::Any).is_err(), "{broken:02x?}");
        }
    }

    #[test]
    fn entries_are_counted_before_they_are_read() {
        let count = |body: &[u8]| entries(body, 3, 4, 3).ok();
        assert_eq!(count(&[0xa2, 0x00, 0x01, 0x03, 0x82, 0x00, 0x00]), Some(2));
        assert_eq!(count(&[0xbf, 0x03, 0x9f, 0x00, 0x00, 0x00, 0xff, 0xff]), Some(3));
        assert_eq!(count(&[0xa1, 0x03, 0x9f, 0, 0, 0, 0, 0, 0, 0, 0xff]), Some(5), "it stops counting past the limit");
        assert_eq!(count(&[0xa1, 0x00, 0x81, 0x00]), Some(0));
        assert_eq!(count(&[0xa1, 0x00, 0x81, 0x81, 0x81, 0x00]), None, "too deep");
        assert_eq!(count(&[0xa1, 0x03, 0x82, 0x00]), None, "cut");
    }

    #[test]
    fn a_head_is_as_short_as_it_can_be() {
        let read = |bytes: &[u8]| head(&mut Decoder::new(bytes), UINT).ok();
        assert_eq!(read(&[0x17]), Some(23));
        assert_eq!(read(&[0x18, 24]), Some(24));
        assert_eq!(read(&[0x19, 1, 0]), Some(256));
        assert_eq!(read(&[0x1a, 0, 1, 0, 0]), Some(65_536));
        assert_eq!(read(&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        for longer in
            [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(read(longer), None, "{longer:02x?}");
        }
        for other in [&[0x1f][..], &[0x20], &[0x18], &[]] {
            assert_eq!(read(other), None, "{other:02x?}");
        }
    }
}
