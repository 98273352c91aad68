//! OpenAPI schemas of the names in this crate, which all are strings in JSON.

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::chunk::BlobHash;
use crate::id::{BucketId, NodeId, RecordId};

macro_rules! string_schema {
    ($name:ident, $description:literal, $pattern:literal) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .pattern(Some($pattern))
                    .into()
            }
        }

        impl ToSchema for $name {}
    };
}

string_schema!(RecordId, "Id of a record", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$");
string_schema!(NodeId, "Id of a node", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$");
string_schema!(BucketId, "Name of a bucket", "^(catalogue|(collection|site)/[0-9a-f-]{36})$");
string_schema!(BlobHash, "BLAKE3 hash of content", "^[0-9a-f]{64}$");
