//! Which collections this node keeps, how much of each, and what is pinned.
//!
//! A choice is made by the operator and wins over the default. Making it is one small transaction; what follows from it
//! for the rows and the content of the collection is done in the background ([`super::align`]), in small steps that can be
//! interrupted anywhere.
//!
//! What always holds:
//! - A collection that is taken up again is read from its beginning: in the transaction that chooses it, cursors into it
//!   are forgotten and it is noted as *returning*, so that peers are asked also for what came from here.
//! - A session that was opened before a choice writes nothing after it ([`SelectedRecords`]).
//! - Removing a collection is never a delete: no tombstone comes of it.
//!
//! Not here: what blobs are wanted because of it (`demand`), and the session's side (`alexandria_sync::session`).

use std::collections::BTreeSet;

use alexandria_sync::absence::Standing;
use alexandria_sync::domain::{Collection, Media, Typed};
use alexandria_sync::erase::blobs_named;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::lineage::{Moment, Remembered, Told};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::session::{Chosen, Selection};
use alexandria_sync::store::{Applied, BucketHead, Cursor, Page, Peer, RecordStore};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::engine::Engine;
use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::overlay::Overlay;
use super::records::Records;
use super::writer::{Room, Transaction};
use super::{absence, demand, tables};

/// Collections that something was chosen for, at most.
pub const CHOICES_MAX: usize = 10_000;
/// Media and collections that are pinned, at most.
pub const PINS_MAX: usize = 10_000;

/// How much of a collection this node keeps.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    None,
    /// Its records. Content comes when somebody opens it.
    Records,
    /// Its records and all content.
    #[default]
    Content,
}

impl Level {
    fn encode(self) -> Vec<u8> {
        vec![match self {
            Self::None => 0,
            Self::Records => 1,
            Self::Content => 2,
        }]
    }

    fn decode(value: &[u8]) -> Result<Self, StoreError> {
        match value {
            [0] => Ok(Self::None),
            [1] => Ok(Self::Records),
            [2] => Ok(Self::Content),
            _ => Err(StoreError::DamagedRow { what: "choice" }),
        }
    }
}

/// What is kept whatever happens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Pinned {
    /// All content of a collection.
    Collection(RecordId),
    /// All files of a medium.
    Media(RecordId),
}

/// Why something could not be chosen or pinned. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The list has its limit.
    #[error("something is chosen for {CHOICES_MAX} collections already")]
    TooManyChoices,
    /// The list has its limit.
    #[error("{PINS_MAX} media and collections are pinned already")]
    TooManyPins,
    /// There would be nothing to pin.
    #[error("the collection is not kept on this node; `alexandria collections add` takes it up")]
    NotKept,
    /// The store's own fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<super::EngineError> for ChooseError {
    fn from(error: super::EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// What was chosen, as a session needs it.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Grows with each choice.
    pub version: u64,
    /// What to pull.
    pub selection: Selection,
    /// How this node stands, for the bridge.
    pub to_bridge: Standing,
    /// The same for other nodes.
    pub nearby: Standing,
}

/// One collection's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keeping {
    /// How much of it is to be kept.
    pub level: Level,
    /// Whether that was chosen for this collection, rather than by default.
    pub chosen: bool,
    /// Whether the rows and the content here still have to follow.
    pub changing: bool,
    /// Whether it is being read again from its beginning.
    pub returning: bool,
    /// Whether its content is pinned.
    pub pinned: bool,
}

impl Records {
    /// How much of a collection is kept, and how far that is true.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as every method here.
    pub fn keeping(&self, collection: RecordId) -> Result<Keeping, StoreError> {
        let rows = Overlay::new(&self.shared().engine);
        Ok(Keeping {
            level: level(&rows, BucketId::Collection(collection))?,
            chosen: rows.contains(&keys::choice(collection))?,
            changing: rows.contains(&keys::unaligned(collection))?,
            returning: rows.contains(&keys::returning(collection))?,
            pinned: rows.contains(&keys::pin(Pinned::Collection(collection)))?,
        })
    }

    /// How much is kept of collections that nothing was chosen for.
    pub fn default_level(&self) -> Result<Level, StoreError> {
        default_level(&Overlay::new(&self.shared().engine))
    }

    /// Chooses how much of a collection is kept, durably. The rest follows in the background.
    ///
    /// # Errors
    ///
    /// [`ChooseError`].
    pub async fn choose(&self, collection: RecordId, chosen: Level) -> Result<(), ChooseError> {
        let shared = std::sync::Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            let rows = &mut transaction.rows;
            let key = keys::choice(collection);
            if rows.get(&key)? == Some(chosen.encode()) {
                return Ok(());
            }
            if !rows.contains(&key)? && rows.with_prefix(&[keys::CHOICE])?.len() >= CHOICES_MAX {
                return Err(ChooseError::TooManyChoices);
            }
            let before = level(rows, BucketId::Collection(collection))?;
            rows.put(key, chosen.encode());
            if chosen == Level::None {
                rows.remove(keys::pin(Pinned::Collection(collection)));
            } else if before == Level::None {
                take_up(rows, collection)?;
            }
            rows.put(keys::unaligned(collection), Vec::new());
            // Sessions that were opened before write nothing after this.
            shared.selection.send_modify(|version| *version += 1);
            Ok(())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// Pins a medium or a collection: its content is fetched and stays. Whether it was not pinned before.
    ///
    /// # Errors
    ///
    /// [`ChooseError`].
    pub async fn pin(&self, pinned: Pinned) -> Result<bool, ChooseError> {
        let work = move |transaction: &mut Transaction<'_>| {
            let rows = &mut transaction.rows;
            if rows.contains(&keys::pin(pinned))? {
                return Ok(false);
            }
            if let Pinned::Collection(id) = pinned
                && level(rows, BucketId::Collection(id))? == Level::None
            {
                return Err(ChooseError::NotKept);
            }
            if rows.with_prefix(&[keys::PIN])?.len() >= PINS_MAX {
                return Err(ChooseError::TooManyPins);
            }
            rows.put(keys::pin(pinned), Vec::new());
            follow_pin(rows, pinned)?;
            Ok(true)
        };
        let new = self.inner.writer.submit(Room::Freed, work).await?;
        self.shared().alignment.send_modify(|times| *times += 1);
        Ok(new)
    }

    /// Takes a pin back, and says whether there was one.
    pub async fn unpin(&self, pinned: Pinned) -> Result<bool, StoreError> {
        let work = move |transaction: &mut Transaction<'_>| {
            let rows = &mut transaction.rows;
            if !rows.contains(&keys::pin(pinned))? {
                return Ok(false);
            }
            rows.remove(keys::pin(pinned));
            follow_pin(rows, pinned)?;
            Ok(true)
        };
        let was = self.inner.writer.submit::<_, StoreError>(Room::Freed, work).await?;
        self.shared().alignment.send_modify(|times| *times += 1);
        Ok(was)
    }

    /// Everything that is pinned.
    pub fn pins(&self) -> Result<Vec<Pinned>, StoreError> {
        let rows = self.shared().engine.scan_prefix(&[keys::PIN]).take(PINS_MAX);
        rows.map(|row| keys::pin_of(&row?.0).ok_or(StoreError::DamagedRow { what: "pin" })).collect()
    }

    /// What a session is to pull, and its version.
    pub async fn selected(&self) -> Result<Selected, StoreError> {
        let shared = std::sync::Arc::clone(&self.inner.shared);
        // Read by the writer, between two choices.
        let work = move |transaction: &mut Transaction<'_>| {
            let rows = &transaction.rows;
            let default = default_level(rows)?;
            let mut odd_ones = BTreeSet::new();
            for (key, value) in rows.with_prefix(&[keys::CHOICE])? {
                let id = collection_of(&key)?;
                if (Level::decode(&value)? == Level::None) != (default == Level::None) {
                    odd_ones.insert(id);
                }
            }
            let collections = match default {
                Level::None => Chosen::Only(odd_ones),
                Level::Records | Level::Content => Chosen::AllBut(odd_ones),
            };
            let returning = rows.with_prefix(&[keys::RETURNING])?;
            let returning = returning.iter().map(|(key, _)| collection_of(key)).collect::<Result<_, _>>()?;
            let version = *shared.selection.borrow();
            let all_anew = absence::is_reading_anew(rows)?;
            let holds_back = rows.any_with_prefix(&[keys::HELD_BACK])?.is_some();
            let selection = Selection { collections, returning, all_anew, holds_back };
            let [to_bridge, nearby] = absence::standings(rows, selection.is_all())?;
            Ok(Selected { version, selection, to_bridge, nearby })
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// Its version, as it changes.
    pub fn selection_changes(&self) -> watch::Receiver<u64> {
        self.shared().selection.subscribe()
    }

    /// Notes that a bucket was read again to its end in a session of this version: what comes from here need not be sent
    /// back any more.
    pub async fn has_returned(&self, version: u64, bucket: BucketId) -> Result<(), StoreError> {
        let BucketId::Collection(id) = bucket else { return Ok(()) };
        let shared = std::sync::Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            if *shared.selection.borrow() == version {
                transaction.rows.remove(keys::returning(id));
            }
            Ok(())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// The store for a session that pulls what was selected in this version.
    pub fn as_selected(&self, version: u64) -> SelectedRecords {
        SelectedRecords { records: self.clone(), version }
    }
}

/// The record store of one session. Once another choice was made it takes nothing more: what the session reads may not be
/// wanted any more, and where it reads from may have been forgotten.
#[derive(Clone)]
pub struct SelectedRecords {
    records: Records,
    version: u64,
}

impl RecordStore for SelectedRecords {
    type Error = StoreError;

    fn epoch(&self) -> Epoch {
        self.records.epoch()
    }

    async fn heads(&self) -> Result<Vec<BucketHead>, StoreError> {
        self.records.heads().await
    }

    async fn page(&self, bucket: BucketId, after: Seq, reader: Peer, budget_bytes: u32) -> Result<Page, StoreError> {
        self.records.page(bucket, after, reader, budget_bytes).await
    }

    async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, StoreError> {
        self.records.cursor(node, bucket).await
    }

    async fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, StoreError> {
        let applied = self.apply_told(from, bucket, records, next, Told::Nothing).await?;
        Ok(applied.unwrap_or_default())
    }

    async fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, StoreError> {
        self.records.apply_as_selected(Some(self.version), from, bucket, records, next, told).await
    }

    async fn moment(&self) -> Result<Option<Moment>, StoreError> {
        self.records.moment_now().await
    }

    async fn remembered(&self, of: NodeId) -> Result<Vec<Remembered>, StoreError> {
        self.records.remembered_of(of).await
    }

    async fn recall(&self, by: NodeId, remembered: Vec<Remembered>) -> Result<bool, StoreError> {
        self.records.recall_by(by, remembered).await
    }

    async fn meet(&self, peer: Peer, standing: Standing) -> Result<(), StoreError> {
        self.records.note_standing(peer, standing).await
    }

    async fn note_given(&self, at_ms: Option<u64>) -> Result<(), StoreError> {
        self.records.note_given_away(at_ms).await
    }

    async fn caught_up(&self, with: Peer, standing: Standing, has: Option<Vec<BucketHead>>) -> Result<(), StoreError> {
        self.records.note_caught_up(with, standing, has).await
    }
}

/// Takes over what the configuration says about collections that nothing was chosen for. Before anything else is done
/// with the store.
pub(crate) fn adopt_default(engine: &Engine, default: Level) -> Result<(), StoreError> {
    let mut rows = Overlay::new(engine);
    let before = default_level(&rows)?;
    if before == default {
        return Ok(());
    }
    for row in engine.scan_prefix(&[keys::HEAD]) {
        let bucket = KeyReader::new(&row?.0).bucket().ok_or(StoreError::DamagedRow { what: "head" })?;
        let BucketId::Collection(id) = bucket else { continue };
        if rows.contains(&keys::choice(id))? {
            continue;
        }
        if before == Level::None {
            take_up(&mut rows, id)?;
        }
        rows.put(keys::unaligned(id), Vec::new());
    }
    rows.put(default_key(), default.encode());
    rows.keep();
    engine.apply(rows.into_rows())?;
    Ok(engine.flush()?)
}

/// How much is kept of what belongs to a bucket.
pub(crate) fn level(rows: &Overlay<'_>, bucket: BucketId) -> Result<Level, StoreError> {
    let BucketId::Collection(id) = bucket else { return Ok(Level::Content) };
    match rows.get(&keys::choice(id))? {
        Some(value) => Level::decode(&value),
        None => default_level(rows),
    }
}

/// A collection that is made here is kept here, whatever the default is.
pub(crate) fn keep_what_is_made_here(rows: &mut Overlay<'_>, made: RecordKey) -> Result<(), StoreError> {
    let key = keys::choice(made.id);
    if made.kind != Collection::KIND || default_level(rows)? == Level::Content || rows.contains(&key)? {
        return Ok(());
    }
    if rows.with_prefix(&[keys::CHOICE])?.len() < CHOICES_MAX {
        rows.put(key, Level::Content.encode());
    }
    Ok(())
}

/// Forgets how far peers' feeds of a collection were read, and notes that all of it is to be read again.
pub(crate) fn take_up(rows: &mut Overlay<'_>, collection: RecordId) -> Result<(), StoreError> {
    forget_cursors(rows, BucketId::Collection(collection))?;
    rows.put(keys::returning(collection), Vec::new());
    Ok(())
}

fn forget_cursors(rows: &mut Overlay<'_>, bucket: BucketId) -> Result<(), StoreError> {
    for (key, _) in rows.with_prefix(&[keys::CURSOR])? {
        if key.ends_with(&bucket.to_bytes()) {
            rows.remove(key);
        }
    }
    Ok(())
}

/// What follows from a pin, or from its end, for the content that it is about.
pub(crate) fn follow_pin(rows: &mut Overlay<'_>, pinned: Pinned) -> Result<(), StoreError> {
    match pinned {
        Pinned::Collection(id) => rows.put(keys::unaligned(id), Vec::new()),
        Pinned::Media(id) => {
            for (row, _) in rows.with_prefix(&keys::ids(Media::KIND, id))? {
                let Some(key) = tables::record_of_id_row(&row) else { continue };
                let Some(media) = tables::read(rows, key)? else { continue };
                for blob in blobs_named(&media.record) {
                    demand::settle(rows, blob)?;
                }
            }
        }
    }
    Ok(())
}

fn default_level(rows: &Overlay<'_>) -> Result<Level, StoreError> {
    rows.get(&default_key())?.map_or(Ok(Level::default()), |value| Level::decode(&value))
}

fn default_key() -> Vec<u8> {
    keys::key(keys::META, &[b"default-level"])
}

/// The collection that a row of `s`, `v` or `e` is about.
pub(crate) fn collection_of(key: &[u8]) -> Result<RecordId, StoreError> {
    KeyReader::new(key).id().ok_or(StoreError::DamagedRow { what: "choice" })
}
