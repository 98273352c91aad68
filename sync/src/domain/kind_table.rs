//! The macro behind the tables of kinds: a struct, its field tags, and its way to and from a record.

/// Declares one kind of record; see [`super::Author`] for how a table reads.
macro_rules! kind_table {
    (
        $(#[$doc:meta])*
        $name:ident = $kind:literal $text:literal {
            $( $(#[$field_doc:meta])* $number:literal $rule:ident $field:ident : $type:ty, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )+
        }

        impl $crate::domain::Typed for $name {
            const KIND: $crate::record::Kind = $crate::record::Kind($kind);
            const NAME: &'static str = $text;

            fn from_record(record: &$crate::record::Record) -> Option<Self> {
                if record.key.kind != Self::KIND {
                    return None;
                }
                let fields = record.fields()?;
                let mut typed = Self::default();
                $(
                    if let Some(value) = fields
                        .get(&$crate::record::FieldTag::$rule($number))
                        .and_then(|field| field.value.decode().ok())
                    {
                        typed.$field = value;
                    }
                )+
                Some(typed)
            }

            fn changes_since(&self, before: &Self) -> Vec<($crate::record::FieldTag, $crate::record::Value)> {
                let mut changes = Vec::new();
                $(
                    if self.$field != before.$field {
                        changes.push((
                            $crate::record::FieldTag::$rule($number),
                            $crate::record::Value::encode(&self.$field),
                        ));
                    }
                )+
                changes
            }

            fn validate(&self) -> Result<(), $crate::domain::InvalidField> {
                self.check()
            }
        }
    };
}
pub(crate) use kind_table;
