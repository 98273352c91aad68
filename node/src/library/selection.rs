//! Which collections this library keeps, by name, and how far that is true.

use alexandria_sync::domain::{Collection, Media, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::Library;
pub use crate::store::Level;
use crate::store::records::ROWS_MAX;
use crate::store::{ChooseError, Listing, Pinned, StoreError};

/// Collections that a list tells of, at most.
pub const LISTED_MAX: usize = 10_000;
/// Collections that the status tells of, at most.
const LEAVING_SHOWN_MAX: usize = 100;

/// What of a fleet's library this node keeps.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionConfig {
    /// How much is kept of collections that nothing was chosen for.
    pub default: Level,
    /// Content that was opened, or came, within this time is not given up for content that nobody waits for, in seconds.
    pub evict_rest_s: u64,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        let store = crate::store::Config::new("");
        Self { default: store.default_level, evict_rest_s: store.evict_rest_s }
    }
}

/// A collection, and how much of it this node keeps.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CollectionState {
    /// Which.
    pub id: RecordId,
    /// Its title; empty if its record is not here.
    pub title: String,
    /// How much of it is to be kept.
    pub keeps: Level,
    /// Whether that was chosen for this collection, rather than by default.
    pub chosen: bool,
    /// Whether its content is pinned.
    pub pinned: bool,
    /// How far what is here has followed.
    pub phase: Phase,
    /// Changes made here that the bridge is not known to have, if it is to leave: at most 1000 are counted.
    pub waiting_to_be_sent: u64,
}

/// How far what is here has followed what was chosen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is as chosen.
    Kept,
    /// It is being read from its beginning.
    Arriving,
    /// Content is being sorted into wanted and on demand.
    Changing,
    /// It is being evicted; what only this node has stays until the bridge has it.
    Leaving,
    /// It is to be evicted once the bridge has what was changed here.
    WaitingToBeSent,
    /// Nothing of it is here.
    NotKept,
}

/// What is kept, at a glance.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct SelectionStatus {
    /// How much is kept of collections that nothing was chosen for.
    pub default: Level,
    /// Collections that are to leave and are not gone yet; the first hundred.
    pub leaving: Vec<CollectionState>,
    /// Media and collections that are pinned.
    pub pinned: u64,
}

/// Why something could not be chosen. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Nothing here has this id or name.
    #[error("there is no {what} `{named}` in this library; the catalogue of a fleet comes with the first replication")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// By which name.
        named: String,
    },
    /// Several have this name.
    #[error("{count} collections are called `{named}`: name the one that is meant by its id")]
    Ambiguous {
        /// Which name.
        named: String,
        /// How many.
        count: usize,
    },
    /// It cannot be chosen.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Library {
    /// Every collection that this library knows of, with how much of it is kept, by title; at most [`LISTED_MAX`]. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for every method here that has no error of its own.
    pub fn collections(&self) -> Result<Vec<CollectionState>, StoreError> {
        let mut states = Vec::new();
        for (id, title) in self.titles()? {
            states.push(self.state_of(id, title)?);
        }
        states.sort_by(|a, b| a.title.cmp(&b.title).then(a.id.cmp(&b.id)));
        Ok(states)
    }

    /// What of it the operator should know at a glance. Blocks.
    pub fn selection_status(&self) -> Result<SelectionStatus, StoreError> {
        let records = &self.store().records;
        let mut leaving = Vec::new();
        for id in records.unaligned()? {
            if leaving.len() < LEAVING_SHOWN_MAX && records.keeping(id)?.level == Level::None {
                leaving.push(self.state_of(id, self.title_of(id)?)?);
            }
        }
        Ok(SelectionStatus { default: records.default_level()?, leaving, pinned: records.pins()?.len() as u64 })
    }

    /// Chooses how much of a collection is kept, and tells how it then stands.
    ///
    /// # Errors
    ///
    /// [`SelectError`].
    pub async fn choose_collection(&self, named: &str, level: Level) -> Result<CollectionState, SelectError> {
        let (id, title) = self.collection_named(named)?;
        self.store().records.choose(id, level).await?;
        Ok(self.state_of(id, title)?)
    }

    /// Pins a medium or a collection, or takes its pin back. Says what it is called, and whether that changed anything.
    ///
    /// # Errors
    ///
    /// [`SelectError`].
    pub async fn set_pinned(&self, named: &str, pinned: bool) -> Result<(String, bool), SelectError> {
        let (what, title) = self.pinnable(named)?;
        let records = &self.store().records;
        let changed = if pinned { records.pin(what).await? } else { records.unpin(what).await? };
        Ok((title, changed))
    }

    /// Whether a collection is kept here, so that something can be added to it.
    pub fn keeps(&self, collection: RecordId) -> Result<bool, StoreError> {
        Ok(self.store().records.keeping(collection)?.level != Level::None)
    }

    fn state_of(&self, id: RecordId, title: String) -> Result<CollectionState, StoreError> {
        let records = &self.store().records;
        let keeping = records.keeping(id)?;
        let bucket = BucketId::Collection(id);
        let leaves = keeping.level == Level::None && records.holds_any_of(bucket)?;
        let waiting_to_be_sent = if leaves { records.waiting_to_be_sent(bucket)? } else { 0 };
        let phase = match keeping.level {
            Level::None if waiting_to_be_sent > 0 => Phase::WaitingToBeSent,
            Level::None if leaves => Phase::Leaving,
            Level::None => Phase::NotKept,
            _ if keeping.returning => Phase::Arriving,
            _ if keeping.changing => Phase::Changing,
            _ => Phase::Kept,
        };
        let (keeps, chosen, pinned) = (keeping.level, keeping.chosen, keeping.pinned);
        Ok(CollectionState { id, title, keeps, chosen, pinned, phase, waiting_to_be_sent })
    }

    fn collection_named(&self, named: &str) -> Result<(RecordId, String), SelectError> {
        let unknown = || SelectError::Unknown { what: "collection", named: named.to_owned() };
        let mut all = self.titles()?;
        if let Ok(id) = named.parse::<RecordId>()
            && let Some(at) = all.iter().position(|(known, _)| *known == id)
        {
            return Ok(all.swap_remove(at));
        }
        all.retain(|(_, title)| title == named);
        match all.len() {
            0 | 1 => all.pop().ok_or_else(unknown),
            count => Err(SelectError::Ambiguous { named: named.to_owned(), count }),
        }
    }

    fn pinnable(&self, named: &str) -> Result<(Pinned, String), SelectError> {
        if let Ok(id) = named.parse::<RecordId>()
            && let Some(media) = self.store().records.find(Media::KIND, id)?
            && let Some(media) = Media::from_record(&media.record)
        {
            return Ok((Pinned::Media(id), media.title));
        }
        match self.collection_named(named) {
            Ok((id, title)) => Ok((Pinned::Collection(id), title)),
            Err(SelectError::Unknown { named, .. }) => {
                Err(SelectError::Unknown { what: "medium or collection", named })
            }
            Err(error) => Err(error),
        }
    }

    fn title_of(&self, id: RecordId) -> Result<String, StoreError> {
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Collection::KIND, id };
        let stored = self.store().records.get(key)?;
        Ok(stored.and_then(|stored| Collection::from_record(&stored.record)).map_or_else(String::new, |it| it.title))
    }

    fn titles(&self) -> Result<Vec<(RecordId, String)>, StoreError> {
        let mut listing = Listing::of(Collection::KIND, ROWS_MAX);
        let mut titles = Vec::new();
        loop {
            let page = self.store().records.list(&listing)?;
            titles.extend(page.entries.iter().filter_map(|entry| {
                let title = Collection::from_record(&entry.stored.record)?.title;
                Some((entry.stored.record.key.id, title))
            }));
            match page.next {
                Some(next) if titles.len() < LISTED_MAX => listing.after = Some(next),
                _ => return Ok(titles),
            }
        }
    }
}
