//! How many fields an ONNX file unfolds into, counted on the raw bytes.
//!
//! In protobuf two bytes can stand for an empty node or tensor that takes hundreds once parsed: 16 MB of them would take
//! gigabytes. This walks the messages that can repeat and stops at a limit, holding nothing.
//!
//! Not here: what the fields mean (`graph`). What is wrong in ways not seen here, the real parser refuses.

use super::OpenModelError;

/// Messages of onnx.proto whose fields can repeat, each with the field numbers of such messages within it.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    /// Tensors, types, shapes and all else: its fields are counted, theirs are not looked into.
    Other,
}

impl Message {
    /// What a field of this message is, or that the backend must not see it.
    fn field(self, number: u64) -> Result<Option<Self>, &'static str> {
        match (self, number) {
            (Self::Model, 20) => Err("training information"),
            (Self::Model, 25) => Err("model-local functions"),
            (Self::Model, 7) => Ok(Some(Self::Graph)),
            (Self::Model, 8 | 14) | (Self::Graph, 5 | 11..=14) | (Self::Attribute, 5 | 10) => Ok(Some(Self::Other)),
            (Self::Graph, 1) => Ok(Some(Self::Node)),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Err("sparse tensors"),
            (Self::Node, 5) => Ok(Some(Self::Attribute)),
            (Self::Attribute, 6 | 11) => Err("control flow"),
            (Self::Attribute, 15) => Err("type attributes"),
            _ => Ok(None),
        }
    }
}

/// Refuses a file of more than `limit` fields, or with parts that no classifier needs.
pub(super) fn check(onnx: &[u8], limit: usize) -> Result<(), OpenModelError> {
    // Depth is bounded by `Message::field`: model, graph, node, attribute, tensor.
    let mut open = vec![(Message::Model, Reader { rest: onnx })];
    let mut fields = 0;
    while let Some((message, mut reader)) = open.pop() {
        let Some((number, body)) = reader.field()? else { continue };
        open.push((message, reader));
        // A bare number takes about as much parsed as it does here.
        let Some(body) = body else { continue };
        fields += 1;
        if fields > limit {
            return Err(OpenModelError::TooManyFields { limit });
        }
        match message.field(number) {
            Ok(Some(inner)) => open.push((inner, Reader { rest: body })),
            Ok(None) => {}
            Err(what) => return Err(OpenModelError::Unsupported { what: what.into() }),
        }
    }
    Ok(())
}

/// A field's number, and its bytes if it has a length of its own.
type Field<'a> = (u64, Option<&'a [u8]>);

/// Reads the fields of one message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next field; `None` at the end.
    fn field(&mut self) -> Result<Option<Field<'a>>, OpenModelError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let body = match key & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = self.varint()?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return Err(OpenModelError::NotOnnx),
        };
        Ok(Some((key >> 3, body)))
    }

    fn varint(&mut self) -> Result<u64, OpenModelError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(OpenModelError::NotOnnx) };
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(OpenModelError::NotOnnx)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], OpenModelError> {
        let length = usize::try_from(length).map_err(|_| OpenModelError::NotOnnx)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(OpenModelError::NotOnnx)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::OpenModelError;
    use super::check;

    #[test]
    fn empty_nodes_by_the_thousand_are_refused_unparsed() {
        let nodes = [0x0A, 0x00].repeat(500);
        let model = [&[0x3A, 0xE8, 0x07][..], &nodes].concat();
        assert!(check(&model, 501).is_ok());
        assert!(matches!(check(&model, 500), Err(OpenModelError::TooManyFields { limit: 500 })));
    }

    #[test]
    fn a_field_that_ends_past_the_file_is_refused() {
        assert!(matches!(check(&[0x3A, 0x05, 0x0A], 10), Err(OpenModelError::NotOnnx)));
        assert!(matches!(check(&[0xFF; 12], 10), Err(OpenModelError::NotOnnx)));
    }
}
