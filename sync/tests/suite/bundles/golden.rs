//! Bundles and receipts that released versions wrote. Unsigned ones are written again to the byte; of signed ones the
//! signatures differ each time, so those are read only. `ALEXANDRIA_GOLDEN=write` writes what is not there yet.

use std::path::Path;
use std::{env, fs};

use alexandria_sync::bundle::{Ending, Export};
use alexandria_sync::domain::{Author, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::identity::{Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::record::RecordKey;

use super::{Place, collection};
use crate::fleet::{NOW_UNIX_S, authority, node_id};

/// The golden file, which is `made` when there is none.
fn golden(name: &str, made: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bundle-v1").join(name);
    if !path.exists() && env::var_os("ALEXANDRIA_GOLDEN").is_some_and(|how| how == "write") {
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the golden folder can be made");
        fs::write(&path, made()).expect("the golden folder can be written");
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; see the head of this file"))
}

/// An author, a deleted one, and two blobs, one of them of two chunks.
fn filled(exporter: Place) -> Place {
    for (number, name) in [(1, "Chinua Achebe"), (2, "Nobody")] {
        let id = RecordId::derived(&[&[number]]);
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id };
        let author = Author { name: name.into(), ..Author::default() };
        exporter.site.records.write(key, |_, stamp| Some(author.to_record(key.bucket, id, stamp)));
        if number == 2 {
            exporter.site.records.write(key, |held, stamp| Some(held?.deleted(stamp)));
        }
    }
    exporter.add_blob(collection(1), b"file");
    exporter.add_blob(collection(1), &vec![0; (1 << 20) + 1]);
    exporter
}

#[test]
fn golden_unsigned_bundles_read_and_write_as_released() {
    let exporter = filled(Place::alone(1));
    // One that is cut is read as far as it goes; the large blob would only fill the repository.
    let written = exporter.export_with(None, |export| Export { max_bytes: Some(4000), ..export }).0;
    let bytes = golden("unsigned.bundle", || written.clone());
    assert_eq!(
        hex::encode(&written),
        hex::encode(&bytes),
        "bundles are written in another way than released versions do"
    );
    let mut importer = Place::alone(2);
    importer.unsigned = true;
    let imported = importer.import(&bytes).expect("it is taken");
    assert_eq!((imported.ending, imported.blobs, imported.applied.applied), (Ending::Whole, 1, 4));
    assert_eq!(importer.state(), exporter.state());

    let written = importer.receipt(exporter.peer());
    let bytes = golden("unsigned.receipt", || written.clone());
    assert_eq!(
        hex::encode(&written),
        hex::encode(&bytes),
        "receipts are written in another way than released versions do"
    );
    let mut exporter = exporter;
    exporter.unsigned = true;
    let receipt = exporter.read_receipt(&bytes).receipt.expect("it was read");
    assert_eq!((receipt.cursors.len(), receipt.lacks.len()), (2, 1));
}

#[test]
fn golden_signed_bundles_are_still_believed() {
    let trusted = golden("authority.pem", || {
        let authority = authority();
        let exporter = filled(Place::member(&authority, 1));
        golden("signed.bundle", || exporter.export_with(None, |export| Export { max_bytes: Some(5000), ..export }).0);
        authority.certificate_pem().into()
    });
    // One of another fleet by its own certificate, that trusts the golden one: no key lies in the repository.
    let named = PeerIdentity { role: PeerRole::Node, id: node_id(2) };
    let request = SigningRequest::make(named).expect("the system gives randomness");
    let certificate = authority().sign(&request.request_pem, named, [2; 16], NOW_UNIX_S, 365).expect("it is valid");
    let trusted = String::from_utf8(trusted).expect("it is PEM");
    let identity = Identity::from_pem(&certificate, &request.key_pem, &trusted).expect("they fit");
    let importer = Place::with(Some(identity), 2);
    let imported = importer.import(&golden("signed.bundle", Vec::new)).expect("it is taken");
    assert!(imported.issuer.vouched);
    assert_eq!((imported.ending, imported.blobs), (Ending::Whole, 1));
    assert_eq!(importer.state(), filled(Place::alone(1)).state());
}
