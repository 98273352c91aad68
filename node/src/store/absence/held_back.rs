//! Records that were changed here, not sent, and not met when all was read anew after a long absence: others may have deleted
//! them. They stay, with their content, for the readers of this node; no other replica gets them until a person says so.
//!
//! Table `A` names them. Once any replica sends a version, the record lives elsewhere: it is merged as ever, and held back no more. Cursors of
//! others have passed its row by then, so it gets a new one. A delete that is set aside tells of nothing that lives: the record waits for it,
//! held back, whatever others send.

use alexandria_sync::id::RecordId;
use alexandria_sync::record::{Body, Record};
use alexandria_sync::store::Peer;

use super::super::error::StoreError;
use super::super::keys;
use super::super::overlay::Overlay;
use super::super::quarantine;
use super::super::records::{ROWS_MAX, Records, Stored};
use super::super::replication::Received;
use super::super::tables;
use super::super::writer::{Room, Transaction};

/// Records that one operation of the writer sends or drops, at most.
const AT_ONCE: usize = 128;

/// What becomes of records that are held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// They are edits of now, and go where all edits go.
    Send,
    /// They leave this node as if they had never been here.
    Drop,
}

impl Records {
    /// How many records are held back; those past [`ROWS_MAX`] are not counted.
    pub fn held_back_count(&self) -> Result<u64, StoreError> {
        Ok(self.held_back(None)?.0.len() as u64)
    }

    /// The records that are held back after a place, at most [`ROWS_MAX`]; and the place after them, if more may follow.
    pub fn held_back(&self, after: Option<Vec<u8>>) -> Result<(Vec<Stored>, Option<Vec<u8>>), StoreError> {
        let rows = Overlay::new(&self.shared().engine);
        let keys = rows.stored_after(after.unwrap_or(vec![keys::HELD_BACK]), &[keys::HELD_BACK], ROWS_MAX)?;
        let next = if keys.len() == ROWS_MAX { keys.last().map(|(key, _)| key.clone()) } else { None };
        let mut found = Vec::new();
        for (key, _) in keys {
            let of = keys::record_of(&key).ok_or(StoreError::DamagedRow { what: "held back" })?;
            found.extend(tables::read(&rows, of)?.map(Stored::from));
        }
        Ok((found, next))
    }

    /// Sends or drops what is held back: one record, or all. Says how many there were.
    pub async fn release_held_back(&self, id: Option<RecordId>, how: Release) -> Result<u64, StoreError> {
        let mut total = 0;
        let mut after = vec![keys::HELD_BACK];
        loop {
            let from = std::mem::take(&mut after);
            let work = move |transaction: &mut Transaction<'_>| release_some(transaction, from, id, how);
            let room = if how == Release::Send { Room::Needed } else { Room::Freed };
            let (released, next) = self.inner.writer.submit::<_, StoreError>(room, work).await?;
            total += released;
            match next {
                Some(next) => after = next,
                None => return Ok(total),
            }
        }
    }
}

/// A peer has sent a version of a record that is held back, which was merged with the one here, or set aside until it is.
pub(in crate::store) fn no_longer(
    transaction: &mut Transaction<'_>,
    from: Peer,
    theirs: &Record,
    received: &Received,
) -> Result<(), StoreError> {
    let is_deleted = transaction.read(theirs.key)?.is_some_and(|row| row.record.is_tombstone());
    // Whoever sends it may not have had the delete yet that is set aside here.
    if !is_deleted && quarantine::is_delete_aside(&transaction.rows, theirs.key)? {
        return Ok(());
    }
    match received {
        Received::SetAside(_) if theirs.is_tombstone() => return Ok(()),
        Received::Applied => {}
        Received::Superseded | Received::SetAside(_) => {
            if let Some(row) = transaction.read(theirs.key)? {
                let arrived_from = (row.record == *theirs).then_some(from);
                transaction.put(row.record, arrived_from)?;
            }
        }
    }
    transaction.rows.remove(keys::held_back(theirs.key));
    Ok(())
}

fn release_some(
    transaction: &mut Transaction<'_>,
    after: Vec<u8>,
    id: Option<RecordId>,
    how: Release,
) -> Result<(u64, Option<Vec<u8>>), StoreError> {
    let keys = transaction.rows.stored_after(after, &[keys::HELD_BACK], AT_ONCE)?;
    let next = if keys.len() == AT_ONCE { keys.last().map(|(key, _)| key.clone()) } else { None };
    let mut released = 0;
    for (key, _) in keys {
        let of = keys::record_of(&key).ok_or(StoreError::DamagedRow { what: "held back" })?;
        if id.is_some_and(|id| id != of.id) {
            continue;
        }
        transaction.rows.remove(key);
        let Some(row) = transaction.read(of)? else { continue };
        match how {
            Release::Send => {
                let anew = as_edit_of_now(transaction, row.record);
                transaction.put(anew, None)?;
            }
            Release::Drop => tables::remove(&mut transaction.rows, row)?,
        }
        released += 1;
    }
    Ok((released, next))
}

/// The same record, said now.
fn as_edit_of_now(transaction: &Transaction<'_>, record: Record) -> Record {
    let stamp = {
        let mut time = transaction.time();
        time.observe(record.newest_stamp());
        time.stamp()
    };
    match record.body {
        Body::Tombstone(_) => record.deleted(stamp),
        Body::Live(mut fields) => {
            for field in fields.values_mut() {
                field.stamp = stamp;
            }
            Record { key: record.key, body: Body::Live(fields) }
        }
    }
}
