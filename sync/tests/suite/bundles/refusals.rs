//! Bundles and receipts that are not taken, and nothing of them is.

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{
    BucketRefusal, Export, ImportError, OpenError, Reader, Receipt, VALIDITY_MS, VALIDITY_MS_MAX,
};
use alexandria_sync::id::{BucketId, Epoch};
use alexandria_sync::identity::PeerRole;
use alexandria_sync::session::{Chosen, Selection};
use alexandria_sync::sim::Seeded;
use alexandria_sync::store::Peer;

use super::{DAY_MS, NOW_MS, Place, accepts, collection, collection_id, pair};
use crate::fleet::{authority, identity, node_id};

/// Imports what must be refused, and insists that nothing has changed.
fn refused(importer: &Place, bytes: &[u8]) -> OpenError {
    let before = importer.all();
    let refusal = match importer.import(bytes) {
        Err(ImportError::Open(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(importer.all(), before);
    refusal
}

fn filled(mut exporter: Place, now_ms: u64) -> Place {
    exporter.now_ms = now_ms;
    exporter.live_through(&mut Seeded::new(1), 20);
    exporter
}

#[test]
fn a_bundle_of_another_fleet_is_refused_whatever_is_asked() {
    let (ours, theirs) = (authority(), authority());
    let mut importer = Place::member(&ours, 2);
    let bundle = filled(Place::member(&theirs, 1), NOW_MS).export(None);
    assert!(matches!(refused(&importer, &bundle), OpenError::Foreign(_)));
    importer.unsigned = true;
    assert!(matches!(refused(&importer, &bundle), OpenError::Foreign(_)));
}

#[test]
fn what_nobody_has_signed_is_taken_only_on_someones_word() {
    let exporter = filled(Place::alone(1), NOW_MS);
    let bundle = exporter.export(None);
    for mut importer in [Place::alone(2), Place::member(&authority(), 2)] {
        assert!(matches!(refused(&importer, &bundle), OpenError::Unsigned));
        importer.unsigned = true;
        let imported = importer.import(&bundle).expect("it is taken");
        assert!(!imported.issuer.vouched);
        assert_eq!(importer.state(), exporter.state());
    }
    // Signed, but nobody here can tell by whom.
    let bundle = filled(Place::member(&authority(), 1), NOW_MS).export(None);
    let mut importer = Place::alone(2);
    assert!(matches!(refused(&importer, &bundle), OpenError::Unverifiable));
    importer.unsigned = true;
    assert!(!importer.import(&bundle).expect("it is taken").issuer.vouched);
}

#[test]
fn a_member_of_the_fleet_cannot_sign_for_another() {
    let authority = authority();
    let importer = Place::member(&authority, 2);
    let liar = filled(Place::with(Some(identity(&authority, PeerRole::Node, 3)), 1), NOW_MS);
    let refusal = refused(&importer, &liar.export(None));
    assert!(
        matches!(refusal, OpenError::AnotherSigner { claimed, signer } if claimed == node_id(1) && signer == node_id(3))
    );
}

#[test]
fn a_certificate_without_its_signatures_counts_for_nothing() {
    let authority = authority();
    let exporter = filled(Place::member(&authority, 1), NOW_MS);
    let certificate = exporter.identity.as_ref().expect("it is a member").certificate_der();
    // Another key, and the certificate of the exporter: the head is right, the seals are not. The encoding of a
    // certificate varies by a byte or two.
    let forged = (0..100).find_map(|_| {
        let other = Place::member(&authority, 1);
        let theirs = other.identity.as_ref().expect("it is a member").certificate_der();
        (theirs.len() == certificate.len()).then(|| resealed(&other.export(None), theirs, certificate))
    });
    let refusal = refused(&Place::member(&authority, 2), &forged.expect("some are as long"));
    assert!(matches!(&refusal, OpenError::Damaged(problem) if problem.contains("signature")), "{refusal}");
}

/// Puts another certificate of the same length in the head, and makes the hash of the first seal fit.
fn resealed(bundle: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bundle.windows(from.len()).position(|window| window == from).expect("the certificate is in the head");
    let mut forged = bundle.to_vec();
    forged[at..at + to.len()].copy_from_slice(to);
    let mut end = 0;
    loop {
        let len = u32::from_be_bytes(forged[end..end + 4].try_into().expect("four bytes")) as usize;
        if forged[end + 4] == 161 {
            break;
        }
        end += 6 + len;
    }
    let hash = blake3::hash(&forged[..end]);
    let old = blake3::hash(&bundle[..end]);
    let seal = forged[end..].windows(32).position(|window| window == old.as_bytes()).expect("the seal has its hash");
    forged[end + seal..end + seal + 32].copy_from_slice(hash.as_bytes());
    forged
}

#[test]
fn an_expired_bundle_is_refused_with_its_date() {
    let (exporter, mut importer) = pair();
    let exporter = filled(exporter, NOW_MS);
    let bundle = exporter.export(None);
    importer.now_ms = NOW_MS + VALIDITY_MS;
    let refusal = refused(&importer, &bundle);
    assert!(matches!(refusal, OpenError::Expired { .. }) && refusal.to_string().contains("2026-04-01"), "{refusal}");
    importer.now_ms -= 1;
    importer.import(&bundle).expect("it is good to the last");
}

#[test]
fn no_bundle_lasts_longer_than_180_days() {
    let (exporter, importer) = pair();
    let exporter = filled(exporter, NOW_MS);
    let (bundle, _) = exporter.export_with(None, |export| Export { validity_ms: 1000 * DAY_MS, ..export });
    let imported = importer.import(&bundle).expect("it is cut to what is allowed");
    let survey = importer.survey(&bundle);
    assert_eq!(survey.expires_unix_ms, imported.issuer.hello.unix_ms + VALIDITY_MS_MAX);
}

#[test]
fn a_bundle_from_the_future_is_refused_by_a_trusted_clock() {
    let (exporter, importer) = pair();
    let bundle = filled(exporter, NOW_MS + DAY_MS).export(None);
    let refusal = refused(&importer, &bundle);
    assert!(
        matches!(refusal, OpenError::FromTheFuture { .. }) && refusal.to_string().contains("2026-01-02"),
        "{refusal}"
    );
}

#[test]
fn a_bundle_for_another_reader_or_an_earlier_life_is_refused() {
    let authority = authority();
    let exporter = filled(Place::member(&authority, 1), NOW_MS);
    let importer = Place::member(&authority, 2);
    let made_for = |life: Peer| exporter.export(Some(&Reader { node: life.node, life: Some(life), receipt: None }));
    let other = Peer { node: node_id(3), epoch: Epoch(1) };
    assert!(matches!(refused(&importer, &made_for(other)), OpenError::ForAnother { reader } if reader == node_id(3)));
    let earlier = Peer { epoch: Epoch(77), ..importer.peer() };
    assert!(matches!(refused(&importer, &made_for(earlier)), OpenError::ForAnotherLife));
    importer.import(&made_for(importer.peer())).expect("it is for this one");
    let own = Place::member(&authority, 1);
    assert!(matches!(refused(&own, &exporter.export(None)), OpenError::Own));
}

#[test]
fn a_bucket_that_is_not_for_this_replica_is_left_out() {
    let (exporter, importer) = pair();
    let site = BucketId::Site(node_id(1));
    exporter.add_blob(site, b"private");
    exporter.add_blob(collection(1), b"public");
    let imported = importer.import(&exporter.export(None)).expect("it is taken");
    assert_eq!(imported.refused.keys().copied().collect::<Vec<_>>(), [site]);
    assert!(importer.state().keys().all(|key| key.bucket != site));
    assert_eq!(importer.site.blobs.whole_blobs().len(), 1);
}

/// What was deleted since may be forgotten here, and would come back.
#[test]
fn a_bundle_of_one_that_was_away_for_too_long_is_refused() {
    let (mut exporter, mut importer) = pair();
    exporter.add_blob(collection(1), b"perhaps deleted since");
    let standing = |in_step_ms, collected_ms| Standing { in_step_ms, collected_ms, keeps_all: true };
    importer.standing = standing(50, 20);
    assert!(
        matches!(refused(&importer, &exporter.export(None)), OpenError::Lapsed { in_step_ms: 0 }),
        "it does not say"
    );
    exporter.standing = standing(10, 5);
    assert!(matches!(refused(&importer, &exporter.export(None)), OpenError::Lapsed { in_step_ms: 10 }));
    exporter.standing = standing(20, 5);
    importer.import(&exporter.export(None)).expect("it is taken");
}

/// As in a session: what this replica does not keep it does not take, from whomever.
#[test]
fn a_collection_that_is_not_kept_is_not_taken() {
    let (exporter, mut importer) = pair();
    let (kept, other) = (collection(1), collection(2));
    exporter.add_blob(kept, b"kept");
    exporter.add_blob(other, b"not kept");
    exporter.add_blob(BucketId::Catalogue, b"everybody's");
    importer.selection = Selection { collections: Chosen::AllBut([collection_id(2)].into()), ..Selection::default() };
    let bundle = exporter.export(None);
    let survey = importer.survey(&bundle);
    assert_eq!(survey.refused, [(other, BucketRefusal::NotKept)].into());
    assert_eq!((survey.blobs_new, survey.bytes_new), (2, 15), "the content of what is refused would not come");
    let imported = importer.import(&bundle).expect("it is taken");
    assert_eq!((imported.blobs, imported.blob_bytes), (survey.blobs_new, survey.bytes_new));
    assert_eq!(imported.refused, [(other, BucketRefusal::NotKept)].into());
    assert!(importer.state().keys().all(|key| key.bucket != other));
    assert_eq!(importer.site.blobs.whole_blobs().len(), 2);
    importer.selection = Selection { collections: Chosen::Only([collection_id(2)].into()), ..Selection::default() };
    let imported = importer.import(&bundle).expect("it is taken");
    assert_eq!(imported.refused, [(kept, BucketRefusal::NotKept)].into());
    assert_eq!(importer.site.blobs.whole_blobs().len(), 3, "it was chosen since");
}

/// What a survey says of content comes true, also where a refused collection shares it with one that is taken, here or there.
#[test]
fn a_survey_counts_content_that_somebody_else_names_too() {
    let (exporter, mut importer) = pair();
    let shared = exporter.add_blob(collection(1), b"shared");
    exporter.name_blob(collection(2), shared, 6);
    let named_here = exporter.add_blob(collection(2), b"named here");
    importer.name_blob(collection(1), named_here, 10);
    exporter.add_blob(collection(2), b"nobody's");
    importer.selection = Selection { collections: Chosen::AllBut([collection_id(2)].into()), ..Selection::default() };
    let bundle = exporter.export(None);
    let survey = importer.survey(&bundle);
    assert_eq!((survey.blobs_new, survey.bytes_new), (2, 16));
    let imported = importer.import(&bundle).expect("it is taken");
    assert_eq!((imported.blobs, imported.blob_bytes), (2, 16));
}

/// As in a session: what is missing would be taken for read.
#[test]
fn what_was_given_up_comes_back_only_from_a_bundle_that_leaves_nothing_out() {
    let (exporter, mut importer) = pair();
    exporter.add_blob(collection(1), b"a");
    exporter.add_blob(collection(2), b"b");
    importer.selection = Selection { returning: [collection_id(1)].into(), ..Selection::default() };
    let reader = Reader { node: importer.site.id, life: Some(importer.peer()), receipt: None };
    let imported = importer.import(&exporter.export(Some(&reader))).expect("it is taken");
    assert_eq!(imported.refused, [(collection(1), BucketRefusal::LeavesOutOwn)].into());
    assert_eq!(importer.site.blobs.whole_blobs().len(), 1);
    let imported = importer.import(&exporter.export(None)).expect("it is taken");
    assert!(imported.refused.is_empty());
    assert_eq!(importer.site.blobs.whole_blobs().len(), 2);
}

#[test]
fn what_is_no_bundle_is_refused() {
    let (exporter, importer) = pair();
    let bundle = filled(exporter, NOW_MS).export(None);
    assert!(matches!(refused(&importer, b""), OpenError::Cut));
    assert!(matches!(refused(&importer, &bundle[..20]), OpenError::Cut));
    assert!(matches!(refused(&importer, b"PK\x03\x04 and more of a zip file"), OpenError::Damaged(_)));
    let receipt = importer.receipt(Peer { node: node_id(1), epoch: Epoch(1) });
    assert!(matches!(refused(&importer, &receipt), OpenError::NotOne));
}

#[test]
fn a_receipt_counts_only_for_whom_it_is_and_whole() {
    let authority = authority();
    let exporter = filled(Place::member(&authority, 1), NOW_MS);
    let reader = Place::member(&authority, 2);
    reader.import(&exporter.export(None)).expect("it is taken");
    let receipt = reader.receipt(exporter.peer());
    let read = |place: &Place, bytes: &[u8]| {
        let accepts = accepts;
        Receipt::read(&place.receiver(&accepts), bytes)
    };
    let told = read(&exporter, &receipt).expect("it is for this one");
    assert_eq!(told.cursors.len(), 3);
    assert!(told.lacks.is_empty() && told.issuer.vouched);
    let third = Place::member(&authority, 3);
    assert!(matches!(read(&third, &receipt), Err(OpenError::ReceiptForAnother { .. })));
    let earlier = reader.receipt(Peer { epoch: Epoch(9), ..exporter.peer() });
    assert!(matches!(read(&exporter, &earlier), Err(OpenError::ReceiptForAnotherLife)));
    assert!(matches!(read(&exporter, &receipt[..receipt.len() - 1]), Err(OpenError::Cut)));
    for at in 0..receipt.len() {
        let mut changed = receipt.clone();
        changed[at] ^= 0x10;
        assert!(read(&exporter, &changed).is_err(), "byte {at}");
    }
    let foreign = Place::member(&super::authority(), 2).receipt(exporter.peer());
    assert!(matches!(read(&exporter, &foreign), Err(OpenError::Foreign(_))));
    let unsigned = Place::alone(2).receipt(exporter.peer());
    assert!(matches!(read(&exporter, &unsigned), Err(OpenError::Unsigned)));
}
