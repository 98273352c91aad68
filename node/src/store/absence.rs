//! Long absence (`alexandria_sync::absence`, docs/adr/0013-long-absence.md): how this node stands, and reading all anew once its
//! lease has run out.
//!
//! Three times stand in one row of `m`: in step with the bridge, in step as far as neighbours need it (all but the node's own
//! site), and collected. Who has no such row, and has read nothing, is fresh: it has neither met anybody nor given anything
//! away. Reading all anew is a state in another row:
//! 1. *Reading*: cursors are forgotten. Whatever the bridge sends, and what is made here meanwhile, is confirmed (table `K`). If that takes
//!    longer than a lease, what was confirmed may have been deleted since: it is *cleared*, and reading begins again.
//!    A delete that is set aside meanwhile holds its record back.
//! 2. *Sweeping*: no session is open. Every record is looked at: what is not confirmed leaves or is held back ([`held_back`]).
//! 3. The state goes, and the node is in step as of the hello of the session that read to the end.
//!
//! What always holds:
//! - While there is a state, nothing is given to anybody, and only the bridge's pages are taken.
//! - A record that is neither confirmed nor held back after the sweep is not there.
//! - Each step is one transaction; a crash anywhere goes on from the last.
//!
//! Not here: forgetting tombstones ([`collect`]).

pub mod collect;
pub mod held_back;
mod state;
mod times;

use std::ops::Bound;
use std::sync::Arc;

use alexandria_sync::absence::{Standing, Unconfirmed, Verdict, in_step_once_met, is_set_aside};
use alexandria_sync::domain::{Erasure, ErasureReceipt, Typed};
use alexandria_sync::id::{BucketId, NodeId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::{BucketHead, Peer};

use self::state::State;
use self::times::Times;
use super::engine::{Direction, end_of_prefix};
use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::lineage;
use super::overlay::Overlay;
use super::quarantine;
use super::records::Records;
use super::row::{RecordRow, decode_number};
use super::selection::{Level, level};
use super::tables;
use super::writer::{Room, Shared, Transaction};

/// Rows that one step of the sweep looks at, at most.
const ROWS_AT_ONCE: usize = 256;

/// How far reading all anew is, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadingAnew {
    /// The bridge's records are being read.
    Reading,
    /// No session is open: what the bridge does not have is being looked at, or what was read too long ago is forgotten.
    Sweeping,
}

/// What one step of the sweep came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Swept {
    /// More is to be done.
    More {
        /// Records that were deleted elsewhere meanwhile, and have left.
        forgotten: u64,
        /// Records that were not sent, and are held back.
        held_back: u64,
    },
    /// Nothing is left to be looked at.
    Done,
}

impl Records {
    /// Whether everything is being read anew.
    pub fn reading_anew(&self) -> Result<Option<ReadingAnew>, StoreError> {
        Ok(state(&Overlay::new(&self.shared().engine))?.map(|state| match state {
            State::Reading { .. } => ReadingAnew::Reading,
            State::Sweeping { .. } | State::Clearing { .. } => ReadingAnew::Sweeping,
        }))
    }

    /// As of when this node is in step with the bridge, in milliseconds since 1970; `None` before it ever was.
    pub fn in_step_ms(&self) -> Result<Option<u64>, StoreError> {
        let times = times(&Overlay::new(&self.shared().engine))?.filter(|times| times.is_caught_up);
        Ok(times.map(|times| times.in_step_ms).filter(|at| *at > 0))
    }

    /// See [`alexandria_sync::store::RecordStore::note_given`].
    pub(crate) async fn note_given_away(&self, at_ms: Option<u64>) -> Result<(), StoreError> {
        let work = move |transaction: &mut Transaction<'_>| {
            let rows = &mut transaction.rows;
            if is_fresh(rows)? {
                match at_ms {
                    Some(at_ms) => rows.put(times_key(), Times::as_of(at_ms).encode()),
                    None => rows.put(given_key(), Vec::new()),
                }
            }
            Ok(())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// See [`alexandria_sync::store::RecordStore::meet`].
    pub(crate) async fn note_standing(&self, peer: Peer, standing: Standing) -> Result<(), StoreError> {
        let is_bridge = self.bridge_id() == Some(peer.node);
        let shared = Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            meet(&mut transaction.rows, &shared, (peer.node, is_bridge), standing)
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// See [`alexandria_sync::store::RecordStore::caught_up`].
    pub(crate) async fn note_caught_up(
        &self,
        with: Peer,
        standing: Standing,
        has: Option<Vec<BucketHead>>,
    ) -> Result<(), StoreError> {
        let is_bridge = self.bridge_id() == Some(with.node);
        let shared = Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            caught_up(&mut transaction.rows, &shared, (with, is_bridge), standing, has.as_deref())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// Takes the next step of the sweep, durably. To be called while no session is open, until it is done.
    pub async fn sweep_some(&self) -> Result<Swept, StoreError> {
        let shared = Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| sweep_some(&mut transaction.rows, &shared);
        self.inner.writer.submit(Room::Freed, work).await
    }
}

/// How this node stands, as it tells the bridge and as it tells other nodes.
pub(crate) fn standings(rows: &Overlay<'_>, keeps_all: bool) -> Result<[Standing; 2], StoreError> {
    let Some(Times { in_step_ms, in_step_nearby_ms, collected_ms, is_caught_up }) = times(rows)? else {
        let standing = if has_read_nothing(rows)? { Standing::FRESH } else { Standing::default() };
        return Ok([standing; 2].map(|standing| Standing { keeps_all, ..standing }));
    };
    let keeps_all = keeps_all && is_caught_up;
    Ok([in_step_ms, in_step_nearby_ms].map(|in_step_ms| Standing { in_step_ms, collected_ms, keeps_all }))
}

/// Whether everything is being read anew.
pub(crate) fn is_reading_anew(rows: &Overlay<'_>) -> Result<bool, StoreError> {
    Ok(rows.contains(&state_key())?)
}

/// Whether a page may be taken now, and is to be confirmed record by record.
pub(crate) fn confirms(rows: &Overlay<'_>, from: NodeId) -> Result<bool, StoreError> {
    match state(rows)? {
        None => Ok(false),
        Some(State::Reading { bridge, .. }) if bridge == from => Ok(true),
        Some(_) => Err(StoreError::ReadsAnew),
    }
}

/// Notes that a record is the bridge's, too, or was made here while all is read anew.
pub(crate) fn confirm(rows: &mut Overlay<'_>, key: RecordKey) {
    rows.put(keys::confirmed(key), Vec::new());
}

/// The bridge has sent a delete that is set aside here: let in, it will end the record. Until then nobody gets that from here, for once all was read
/// anew this node counts as knowing what was deleted.
pub(crate) fn hold_back_deleted(rows: &mut Overlay<'_>, shared: &Shared, key: RecordKey) -> Result<(), StoreError> {
    let lives = tables::read(rows, key)?.is_some_and(|row| !row.record.is_tombstone());
    if lives && !rows.contains(&keys::held_back(key))? {
        rows.put(keys::held_back(key), Vec::new());
        lineage::note_withheld(rows, shared)?;
    }
    Ok(())
}

fn meet(
    rows: &mut Overlay<'_>,
    shared: &Shared,
    (peer, is_bridge): (NodeId, bool),
    theirs: Standing,
) -> Result<(), StoreError> {
    let before = times(rows)?;
    let mut now = before.unwrap_or_default();
    if before.is_none() && has_read_nothing(rows)? {
        // All that will be here is what was made here, and what the peer gives.
        let in_step_ms = if theirs.in_step_ms == Standing::FRESH.in_step_ms { 0 } else { theirs.in_step_ms };
        now = Times::as_of(in_step_ms);
    } else if theirs.in_step_ms >= now.collected_ms {
        for in_step_ms in [&mut now.in_step_ms, &mut now.in_step_nearby_ms] {
            *in_step_ms = in_step_once_met(*in_step_ms, now.is_caught_up, theirs, is_bridge);
        }
    }
    let in_step_ms = if is_bridge { now.in_step_ms } else { now.in_step_nearby_ms };
    let lapsed = in_step_ms < theirs.collected_ms;
    if is_bridge || !lapsed {
        now.collected_ms = now.collected_ms.max(theirs.collected_ms);
    }
    if before != Some(now) {
        rows.put(times_key(), now.encode());
    }
    if !is_bridge {
        return Ok(());
    }
    let next = match state(rows)? {
        None if lapsed => State::beginning(peer),
        Some(reads) if reads.bridge() != peer => State::Clearing { bridge: peer },
        // What was confirmed may have been deleted since, and that forgotten.
        Some(State::Reading { since_ms, .. }) if since_ms < theirs.collected_ms => State::Clearing { bridge: peer },
        Some(State::Reading { bridge, since_ms }) => {
            let reading = State::Reading { bridge, since_ms: since_ms.min(theirs.in_step_ms) };
            rows.put(state_key(), reading.encode());
            return Ok(());
        }
        None | Some(State::Sweeping { .. } | State::Clearing { .. }) => return Ok(()),
    };
    tracing::warn!(
        in_step_unix_ms = in_step_ms,
        "this node was away for longer than its lease: it reads all anew and gives nothing until it has"
    );
    begin(rows, &next)?;
    // Sessions that are open write nothing after this.
    shared.selection.send_modify(|version| *version += 1);
    Ok(())
}

/// In a new life, which `by` showed to be due, everything is read from the beginning; reading all anew begins again.
pub(crate) fn begin_again(rows: &mut Overlay<'_>, by: NodeId) -> Result<(), StoreError> {
    // What it holds it may have given before, and others deleted.
    no_longer_fresh(rows)?;
    // Known to one of whom nothing was read: how it stands was told to one that passed for new.
    if rows.any_with_prefix(&keys::cursors_into(by))?.is_none() {
        let collected_ms = times(rows)?.unwrap_or_default().collected_ms;
        rows.put(times_key(), Times { collected_ms, ..Times::default() }.encode());
    }
    for (key, _) in rows.with_prefix(&[keys::CURSOR])? {
        rows.remove(key);
    }
    match state(rows)? {
        // What is confirmed was so in the life before, too.
        Some(state @ (State::Reading { .. } | State::Clearing { .. })) => begin(rows, &state),
        // Some of what was confirmed is so no more: the sweep has been there.
        Some(State::Sweeping { bridge, .. }) => begin(rows, &State::Clearing { bridge: bridge.node }),
        None => Ok(()),
    }
}

/// Begins to read all anew, from the beginning.
fn begin(rows: &mut Overlay<'_>, reading: &State) -> Result<(), StoreError> {
    for table in [keys::CURSOR, keys::SENT] {
        for (key, _) in rows.with_prefix(&[table])? {
            rows.remove(key);
        }
    }
    rows.put(state_key(), reading.encode());
    Ok(())
}

fn caught_up(
    rows: &mut Overlay<'_>,
    shared: &Shared,
    (with, is_bridge): (Peer, bool),
    theirs: Standing,
    has: Option<&[BucketHead]>,
) -> Result<(), StoreError> {
    match (state(rows)?, has) {
        (Some(State::Reading { bridge, .. }), Some(has)) if bridge == with.node => {
            for &BucketHead { bucket, head } in has {
                rows.put(keys::sent(bucket), head.0.to_be_bytes().to_vec());
            }
            let (in_step_ms, place) = (theirs.in_step_ms, vec![keys::RECORD]);
            let sweeping = State::Sweeping { bridge: with, in_step_ms, place };
            rows.put(state_key(), sweeping.encode());
            hold_back_what_is_aside(rows)?;
            shared.selection.send_modify(|version| *version += 1);
            return Ok(());
        }
        (Some(_), _) => return Ok(()),
        (None, _) => {}
    }
    if is_bridge && let Some(has) = has {
        collect::note_marks(rows, theirs.in_step_ms, has)?;
    }
    let counts = (is_bridge || theirs.keeps_all) && theirs.in_step_ms != Standing::FRESH.in_step_ms;
    if !counts || !is_met_whole(rows)? {
        return Ok(());
    }
    let mut now = times(rows)?.unwrap_or_default();
    // Of one to whom nothing may be given from here it does not tell what was deleted.
    if now.in_step_nearby_ms >= theirs.collected_ms {
        now.in_step_nearby_ms = now.in_step_nearby_ms.max(theirs.in_step_ms);
        now.is_caught_up = true;
    }
    if is_bridge {
        now.in_step_ms = now.in_step_ms.max(theirs.in_step_ms);
    }
    rows.put(times_key(), now.encode());
    Ok(())
}

/// Whether whatever lies here was met by what was read: no deletion is set aside, and nothing lies in a collection that is not
/// read, but for what is held back.
fn is_met_whole(rows: &Overlay<'_>) -> Result<bool, StoreError> {
    for row in rows.engine().scan_prefix(&[keys::QUARANTINE]) {
        let (key, value) = row?;
        let bucket = keys::record_of(&key).map(|of| of.bucket);
        let bucket = bucket.ok_or(StoreError::DamagedRow { what: "quarantined record" })?;
        if super::row::Quarantined::decode(bucket, &value)?.record.is_tombstone() {
            return Ok(false);
        }
    }
    for (key, _) in rows.with_prefix(&[keys::HEAD])? {
        let bucket = KeyReader::new(&key).bucket().ok_or(StoreError::DamagedRow { what: "head" })?;
        if level(rows, bucket)? != Level::None {
            continue;
        }
        for row in rows.engine().scan_prefix(&keys::records_of(bucket)) {
            let of = keys::record_of(&row?.0).ok_or(StoreError::DamagedRow { what: "record" })?;
            if !rows.contains(&keys::held_back(of))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn sweep_some(rows: &mut Overlay<'_>, shared: &Shared) -> Result<Swept, StoreError> {
    let (bridge, in_step_ms, place) = match state(rows)? {
        Some(State::Sweeping { bridge, in_step_ms, place }) => (bridge, in_step_ms, place),
        Some(State::Clearing { bridge }) => {
            if forget_confirmed(rows)? {
                rows.put(state_key(), State::beginning(bridge).encode());
                return Ok(Swept::Done);
            }
            return Ok(Swept::More { forgotten: 0, held_back: 0 });
        }
        Some(State::Reading { .. }) | None => return Ok(Swept::Done),
    };
    let (mut forgotten, mut held_back) = (0, 0);
    let scan = rows.engine().scan(Bound::Excluded(place), end_of_prefix(&[keys::RECORD]), Direction::Ascending);
    let next = scan.take(ROWS_AT_ONCE).map(|row| row.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = next.last() {
        let place = last.clone();
        for key in next {
            let of = keys::record_of(&key).ok_or(StoreError::DamagedRow { what: "record" })?;
            let confirmed = keys::confirmed(of);
            if rows.contains(&confirmed)? {
                rows.remove(confirmed);
                continue;
            }
            // As it is now: it may have been edited a moment ago.
            let Some(row) = tables::read(rows, of)? else { continue };
            match judge(rows, (bridge, in_step_ms), &row)? {
                None => {}
                Some(Verdict::Forget) => {
                    match (quarantine::is_aside(rows, of)?, row.record.is_tombstone()) {
                        // It meets what may be let in later.
                        (true, true) => continue,
                        (true, false) => rows.put(keys::held_back(of), Vec::new()),
                        (false, _) => {}
                    }
                    tables::remove(rows, row)?;
                    forgotten += 1;
                }
                Some(Verdict::HoldBack) => {
                    rows.put(keys::held_back(of), Vec::new());
                    held_back += 1;
                }
            }
        }
        rows.put(state_key(), State::Sweeping { bridge, in_step_ms, place }.encode());
        if held_back > 0 {
            lineage::note_withheld(rows, shared)?;
        }
        return Ok(Swept::More { forgotten, held_back });
    }
    // Marks of what came after its place was passed.
    if !forget_confirmed(rows)? {
        return Ok(Swept::More { forgotten, held_back });
    }
    for (key, _) in rows.with_prefix(&[keys::SENT])? {
        rows.remove(key);
    }
    let collected_ms = times(rows)?.unwrap_or_default().collected_ms;
    let now = Times { collected_ms, is_caught_up: true, ..Times::as_of(in_step_ms) };
    rows.put(times_key(), now.encode());
    rows.remove(state_key());
    shared.selection.send_modify(|version| *version += 1);
    Ok(Swept::Done)
}

/// Forgets some of the marks of what is confirmed, and says whether there were none.
fn forget_confirmed(rows: &mut Overlay<'_>) -> Result<bool, StoreError> {
    let marks = rows.engine().scan_prefix(&[keys::CONFIRMED]).take(ROWS_AT_ONCE);
    let marks = marks.map(|row| row.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()?;
    let are_none = marks.is_empty();
    for mark in marks {
        rows.remove(mark);
    }
    Ok(are_none)
}

/// What was set aside before all was read anew may have been deleted since: let in later, it is held back.
fn hold_back_what_is_aside(rows: &mut Overlay<'_>) -> Result<(), StoreError> {
    let aside = rows.with_prefix(&[keys::QUARANTINE])?;
    for (key, _) in aside {
        let of = keys::record_of(&key).ok_or(StoreError::DamagedRow { what: "quarantined record" })?;
        if tables::read(rows, of)?.is_none() && !rows.contains(&keys::confirmed(of))? {
            rows.put(keys::held_back(of), Vec::new());
        }
    }
    Ok(())
}

/// What becomes of a record that the bridge has not confirmed; `None` if it stays as it is.
fn judge(
    rows: &Overlay<'_>,
    (bridge, in_step_ms): (Peer, u64),
    row: &RecordRow,
) -> Result<Option<Verdict>, StoreError> {
    // Nobody deletes these: what is unknown to the bridge was not sent.
    if [Erasure::KIND, ErasureReceipt::KIND].contains(&row.record.key.kind) {
        return Ok(None);
    }
    let bucket = row.record.key.bucket;
    let sent = rows.get(&keys::sent(bucket))?.map_or(Ok(0), |value| decode_number(&value)).map(Seq)?;
    // From a bridge that was restored since, it may be what that has lost.
    let came_from_bridge = row.arrived_from == Some(bridge);
    let is_read = level(rows, bucket)? != Level::None;
    let is_held_back = rows.contains(&keys::held_back(row.record.key))?;
    let bridge_had_it = came_from_bridge || row.seq <= sent;
    let is_set_aside = is_set_aside(&row.record, in_step_ms);
    Ok(Some(Unconfirmed { bridge_had_it, is_held_back, is_read, is_set_aside }.verdict()))
}

/// Whether this node has met nobody, as far as it knows, and gave nothing away, not even at a time that it does not know.
pub(crate) fn knows_nobody(rows: &Overlay<'_>) -> Result<bool, StoreError> {
    Ok(is_fresh(rows)? && !rows.contains(&given_key())?)
}

/// Whether it tells that it has met nobody and gave nothing away.
fn is_fresh(rows: &Overlay<'_>) -> Result<bool, StoreError> {
    Ok(times(rows)?.is_none() && has_read_nothing(rows)?)
}

/// Whether nothing of anybody was read, in this life.
fn has_read_nothing(rows: &Overlay<'_>) -> Result<bool, StoreError> {
    Ok(rows.any_with_prefix(&[keys::CURSOR])?.is_none())
}

fn times(rows: &Overlay<'_>) -> Result<Option<Times>, StoreError> {
    rows.get(&times_key())?.map(|value| Times::decode(&value)).transpose()
}

fn state(rows: &Overlay<'_>) -> Result<Option<State>, StoreError> {
    let read = |value: Vec<u8>| State::read(&value).ok_or(StoreError::DamagedRow { what: "absence" });
    rows.get(&state_key())?.map(read).transpose()
}

pub(crate) fn times_key() -> Vec<u8> {
    keys::key(keys::META, &[b"standing"])
}

/// Something was given away before anybody was met, and nobody knows when.
fn given_key() -> Vec<u8> {
    keys::key(keys::META, &[b"given"])
}

pub(crate) fn state_key() -> Vec<u8> {
    keys::key(keys::META, &[b"absence"])
}

/// Once all rows of a copy are back, of whatever age: a node that had met nobody when it was made may have met everybody
/// since, and given what it held. It is not taken for one to which nothing ever came.
pub(crate) fn no_longer_fresh(rows: &mut Overlay<'_>) -> Result<(), StoreError> {
    if times(rows)?.is_none() {
        rows.put(times_key(), Times::default().encode());
    }
    Ok(())
}

/// Puts a row of a copy back: this node knows no more than the older of its copies, and reading all anew begins again.
/// Whether it was one of these rows.
pub(crate) fn restore(rows: &mut Overlay<'_>, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
    if key == times_key() {
        let found = Times::decode(value)?;
        let both = times(rows)?.map_or(found, |known| known.of_both(found));
        rows.put(times_key(), both.encode());
        return Ok(true);
    }
    if key == state_key() {
        let damaged = StoreError::DamagedRow { what: "absence" };
        // No copy has what was confirmed.
        begin(rows, &State::beginning(State::read(value).ok_or(damaged)?.bridge()))?;
        return Ok(true);
    }
    Ok(false)
}

/// The bucket that a row of `Z` or `M` is about.
fn bucket_of(key: &[u8]) -> Result<BucketId, StoreError> {
    KeyReader::new(key).bucket().ok_or(StoreError::DamagedRow { what: "bucket" })
}
