//! Which states this store has been in, what is remembered of peers, and the new life of a store that was set back to an older copy
//! of its data folder or runs twice (`alexandria_sync::lineage`, docs/adr/0016-copied-cards.md).
//!
//! What always holds:
//! - Each opening draws a number, which is durable before a row is numbered in it. Stamps are given in the incarnation that it
//!   stands for, so that two copies never give the same one.
//! - What is remembered of a peer is written in the transaction of the page that told it.
//! - A new life is one transaction: another incarnation and epoch, and no cursor. From then on sessions of the old one write nothing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use alexandria_sync::id::{Epoch, Incarnation, NodeId};
use alexandria_sync::lineage::{self, Lineage, Moment, Remembered, Told, Verdict, remember};
use rand::Rng;

use super::absence;
use super::engine::Engine;
use super::error::{OpenError, StoreError};
use super::keys;
use super::meta::{self, Identity};
use super::overlay::Overlay;
use super::records::Records;
use super::row::{LineageRow, SetBackRow, decode_number};
use super::writer::{Room, Shared, Transaction};

/// When it was noticed last that this store had been set back, or runs twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SetBack {
    /// When, in milliseconds since 1970.
    pub noticed_unix_ms: u64,
    /// Which peer remembered what is not here.
    pub noticed_by: NodeId,
    /// How often it was noticed, with this time.
    pub times: u64,
}

/// Begins a start of a store with so many rows, durably. Returns the lineage with it, and the incarnation that it stamps in.
pub(crate) fn begin(engine: &Engine, identity: Identity, rows: u64) -> Result<(Lineage, Incarnation), OpenError> {
    let start: u64 = rand::rng().random();
    let kept = engine.get(&key())?.map(|value| LineageRow::decode(&value)).transpose()?;
    let lineage = match kept.filter(|kept| kept.epoch() == identity.epoch) {
        Some(mut lineage) => {
            lineage.begin(start, rows);
            lineage
        }
        None => Lineage::new(identity.epoch, rand::rng().random(), start),
    };
    engine.apply([(key(), Some(LineageRow::encode(&lineage)))])?;
    engine.flush()?;
    Ok((lineage, Incarnation(start as u32)))
}

/// How often rows were held back. Readers pass them without a sight of them: a copy that is older than that must not take them for
/// read.
pub(super) fn withheld(engine: &Engine) -> Result<u64, StoreError> {
    engine.get(&withheld_key())?.map_or(Ok(0), |value| decode_number(&value))
}

/// Rows are held back from now on.
pub(super) fn note_withheld(rows: &mut Overlay<'_>, shared: &Shared) -> Result<(), StoreError> {
    let before = rows.get(&withheld_key())?.map_or(Ok(0), |value| decode_number(&value))?;
    let now = before.saturating_add(1);
    rows.put(withheld_key(), now.to_be_bytes().to_vec());
    shared.withheld.store(now, Ordering::SeqCst);
    Ok(())
}

/// Remembers what a page told; whether the page may be taken.
pub(super) fn note(rows: &mut Overlay<'_>, of: NodeId, epoch: Epoch, told: &Told) -> Result<bool, StoreError> {
    if *told == Told::Nothing {
        return Ok(true);
    }
    let mut remembered = read(rows, of)?;
    if !remember(&mut remembered, epoch, told) {
        return Ok(false);
    }
    rows.put(keys::remembered(of), lineage::to_bytes(&remembered));
    Ok(true)
}

fn read(rows: &Overlay<'_>, of: NodeId) -> Result<Vec<Remembered>, StoreError> {
    let damaged = || StoreError::DamagedRow { what: "what is remembered of a peer" };
    let read = |value: Vec<u8>| lineage::from_bytes(&value).ok_or_else(damaged);
    rows.get(&keys::remembered(of))?.map_or(Ok(Vec::new()), read)
}

fn key() -> Vec<u8> {
    keys::key(keys::META, &[b"lineage"])
}

fn withheld_key() -> Vec<u8> {
    keys::key(keys::META, &[b"withheld"])
}

fn set_back_key() -> Vec<u8> {
    keys::key(keys::META, &[b"set back"])
}

impl Records {
    /// What the store is now, durably.
    pub(crate) async fn moment_now(&self) -> Result<Option<Moment>, StoreError> {
        // Durable heads add up to durable rows.
        let moment = self.shared().lineage().moment(self.shared().rows());
        self.shared().seen_is_durable().await?;
        Ok(moment)
    }

    /// What is remembered of a peer, to be told to it.
    pub async fn remembered_of(&self, peer: NodeId) -> Result<Vec<Remembered>, StoreError> {
        let remembered = read(&Overlay::new(&self.shared().engine), peer)?;
        self.shared().seen_is_durable().await?;
        Ok(remembered)
    }

    /// See [`alexandria_sync::store::RecordStore::recall`].
    pub(crate) async fn recall_by(&self, by: NodeId, remembered: Vec<Remembered>) -> Result<bool, StoreError> {
        let is_believed = self.bridge_id() == Some(by);
        let shared = Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            let lineage = shared.lineage().clone();
            let mine = remembered.iter().filter(|of| of.epoch == lineage.epoch());
            let verdicts: Vec<Verdict> = mine.map(|of| lineage.judge(of.moment, shared.rows())).collect();
            let is_elsewhere = verdicts.iter().any(|verdict| match verdict {
                Verdict::Past => false,
                Verdict::Elsewhere => true,
                Verdict::Unproven => is_believed,
            });
            // Who is known, and knows nobody, was set back to before its first meeting.
            let is_known = verdicts.contains(&Verdict::Past);
            let is_set_back = is_elsewhere || is_known && absence::knows_nobody(&transaction.rows)?;
            if is_set_back {
                begin_new_life(transaction, &shared, by)?;
            }
            Ok(!is_set_back)
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// When it was noticed last that this store had been set back, if ever.
    pub fn set_back(&self) -> Result<Option<SetBack>, StoreError> {
        let value = self.shared().engine.get(&set_back_key())?;
        value.map(|value| SetBackRow::decode(&value)).transpose()
    }
}

fn begin_new_life(transaction: &mut Transaction<'_>, shared: &Shared, by: NodeId) -> Result<(), StoreError> {
    let identity = shared.identity().next_life();
    let lineage = Lineage::new(identity.epoch, rand::rng().random(), rand::rng().random());
    let noticed_unix_ms = transaction.time().now_unix_ms();
    let rows = &mut transaction.rows;
    rows.put(meta::identity_key(), identity.encode());
    rows.put(key(), LineageRow::encode(&lineage));
    // Peers left out what had come from here in the old life, and this store may have lost it.
    absence::begin_again(rows, by)?;
    let before = rows.get(&set_back_key())?.map(|value| SetBackRow::decode(&value)).transpose()?;
    let times = before.map_or(0, |before| before.times).saturating_add(1);
    rows.put(set_back_key(), SetBackRow::encode(SetBack { noticed_unix_ms, noticed_by: by, times }));
    tracing::warn!(
        peer.id = %by,
        epoch = identity.epoch.0,
        times,
        "this data folder is an older copy of itself, or another node runs with a copy of it: a peer has read what is not here. A new \
         life begins; everything is read from the peers anew"
    );
    *shared.lineage.write().unwrap_or_else(PoisonError::into_inner) = lineage;
    *shared.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    // Sessions that are open write nothing after this.
    shared.selection.send_modify(|version| *version += 1);
    Ok(())
}
