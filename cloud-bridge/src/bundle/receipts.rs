//! The last receipt of each node, in table `bundle_receipt`, as it came; and which lives of a node are known here: one that was restored
//! from a backup has forgotten what it said before.

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{OpenError, Receipt, Receiver};
use alexandria_sync::id::{Epoch, NodeId};
use alexandria_sync::session::Selection;
use alexandria_sync::store::Peer;
use alexandria_sync::wire::Hello;
use uuid::Uuid;

use super::{BundleError, Bundles};

/// Lives of one node that are looked at: more than one says that nobody knows.
const LIVES_MAX: i64 = 16;

impl Bundles {
    /// The lives of a node in which buckets of it were read last. More than one, if it was restored and has not sent all since.
    pub(super) async fn lives(&self, node: NodeId) -> Result<Vec<Epoch>, BundleError> {
        let epochs: Vec<i64> = sqlx::query_scalar("SELECT DISTINCT epoch FROM cursor WHERE node = $1 LIMIT $2")
            .bind(uuid(node))
            .bind(LIVES_MAX)
            .fetch_all(self.records.pool())
            .await?;
        Ok(epochs.into_iter().map(|epoch| Epoch(epoch as u64)).collect())
    }

    /// What a node has said last of what it has; `None` if there is nothing that holds in the present lives of both.
    pub(super) async fn last_receipt(
        &self,
        node: NodeId,
        lives: &[Epoch],
        local: Peer,
        standing: Standing,
    ) -> Result<Option<Receipt>, BundleError> {
        let kept: Option<(Vec<u8>, bool)> = sqlx::query_as(
            "SELECT encoding, coalesce(received_at < last_session_at, false) FROM bundle_receipt \
             JOIN node ON node.id = bundle_receipt.node WHERE node.id = $1 AND encoding IS NOT NULL",
        )
        .bind(uuid(node))
        .fetch_optional(self.records.pool())
        .await?;
        let Some((encoding, session_since)) = kept else { return Ok(None) };
        let selection = Selection::default();
        // Who signed it was checked when it came; certificates may have expired since.
        let receiver = Receiver { identity: None, unsigned: true, ..self.receiver(local, standing, &selection) };
        match Receipt::read(&receiver, encoding.as_slice()) {
            // Restored since, it may have forgotten what it had.
            Ok(receipt) if session_since && !lives.is_empty() && !lives.contains(&receipt.reader().epoch) => Ok(None),
            Ok(receipt) => Ok(Some(receipt)),
            Err(OpenError::ReceiptForAnotherLife) => Ok(None),
            Err(error) => {
                tracing::warn!(node.id = %node, %error, "a receipt that was kept cannot be read");
                Ok(None)
            }
        }
    }

    /// Whether a later life of the one who has said hello is known from sticks.
    pub(super) async fn is_of_earlier_life(&self, hello: &Hello) -> Result<bool, BundleError> {
        let later = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM bundle_receipt WHERE node = $1 AND epoch <> $2 AND incarnation > $3)",
        );
        let later = later.bind(uuid(hello.node)).bind(hello.epoch.0 as i64).bind(i64::from(hello.incarnation.0));
        Ok(later.fetch_one(self.records.pool()).await?)
    }

    /// Keeps a receipt, durably, in the place of the one before.
    pub(super) async fn keep_receipt(&self, receipt: &Receipt, bytes: &[u8]) -> Result<(), BundleError> {
        let hello = &receipt.issuer.hello;
        sqlx::query(
            "INSERT INTO bundle_receipt (node, epoch, incarnation, encoding) VALUES ($1, $2, $3, $4) ON CONFLICT (node) \
             DO UPDATE SET epoch = excluded.epoch, incarnation = excluded.incarnation, encoding = excluded.encoding, \
                received_at = now() WHERE excluded.incarnation >= bundle_receipt.incarnation",
        )
        .bind(uuid(hello.node))
        .bind(hello.epoch.0 as i64)
        .bind(i64::from(hello.incarnation.0))
        .bind(bytes)
        .execute(self.records.pool())
        .await?;
        Ok(())
    }

    /// Notes the life in which a node has written a bundle. What it said in an earlier one counts no more.
    pub(super) async fn note_life(&self, hello: &Hello) -> Result<(), BundleError> {
        sqlx::query(
            "INSERT INTO bundle_receipt (node, epoch, incarnation) VALUES ($1, $2, $3) ON CONFLICT (node) \
             DO UPDATE SET epoch = excluded.epoch, incarnation = excluded.incarnation, encoding = NULL, received_at = now() \
                WHERE excluded.incarnation > bundle_receipt.incarnation AND excluded.epoch <> bundle_receipt.epoch",
        )
        .bind(uuid(hello.node))
        .bind(hello.epoch.0 as i64)
        .bind(i64::from(hello.incarnation.0))
        .execute(self.records.pool())
        .await?;
        Ok(())
    }
}

fn uuid(node: NodeId) -> Uuid {
    Uuid::from_bytes(*node.as_bytes())
}
