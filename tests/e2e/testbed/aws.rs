use std::time::Duration;

use alexandria_e2e::aws::Aws;

const DELIVERY: Duration = Duration::from_secs(10);

#[tokio::test]
async fn s3_returns_what_was_put() {
    let aws = Aws::shared().await;
    let (s3, bucket) = (aws.s3(), aws.unique("bucket"));
    s3.create_bucket(&bucket).await;
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    s3.put(&bucket, "blobs/a b+ü", body.clone()).await;
    assert_eq!(s3.object(&bucket, "blobs/a b+ü").await.unwrap(), body);
    assert_eq!(s3.size_bytes(&bucket, "blobs/a b+ü").await, Some(100_000));
    assert_eq!(s3.keys(&bucket, "blobs/").await, ["blobs/a b+ü"]);
    assert_eq!(s3.object(&bucket, "blobs/none").await, None);
    assert!(s3.keys(&bucket, "other/").await.is_empty());
    assert!(s3.unfinished_uploads(&bucket).await.is_empty());
}

#[tokio::test]
async fn sns_delivers_to_an_sqs_queue_with_its_attributes() {
    let aws = Aws::shared().await;
    let messaging = aws.messaging();
    let topic = messaging.create_topic(&aws.unique("topic")).await;
    let queue = messaging.queue_on(&topic).await;
    let body = r#"{"title":"Öl & Wasser"}"#;
    messaging.publish(&topic, body, ("type", "MEDIA_CREATED")).await;
    let taken = messaging.take_until(&queue, "the message", DELIVERY, |_| true).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].body, body);
    assert_eq!(taken[0].attributes["type"], "MEDIA_CREATED");
    assert!(messaging.take(&queue).await.is_empty(), "a message that was taken is gone");
}

/// moto by itself makes up a key, so that the device could never use its certificate.
#[tokio::test]
async fn iot_issues_certificates_for_the_key_that_asked() {
    let aws = Aws::shared().await;
    let certificate = aws.iot().sign(SIGNING_REQUEST).await;
    let ca = std::fs::read_to_string(aws.iot_ca_file()).unwrap();
    let folder = alexandria_e2e::reaper::folder("iot");
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").current_dir(&folder).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, text) in [("request.pem", SIGNING_REQUEST), ("device.pem", &certificate), ("ca.pem", &ca)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let asked_for = openssl(&["req", "-in", "request.pem", "-noout", "-pubkey"]);
    assert_eq!(openssl(&["x509", "-in", "device.pem", "-noout", "-pubkey"]), asked_for);
    openssl(&["verify", "-CAfile", "ca.pem", "-purpose", "sslclient", "device.pem"]);
    let fingerprint = openssl(&["x509", "-in", "device.pem", "-noout", "-fingerprint", "-sha256"]);
    let id = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(aws.iot().certificate(&id).await["status"], "ACTIVE");
}

#[tokio::test]
async fn reset_forgets_everything() {
    let aws = Aws::start().await;
    aws.s3().create_bucket("shelf").await;
    aws.s3().put("shelf", "book", "text").await;
    aws.reset().await;
    aws.s3().create_bucket("shelf").await;
    assert!(aws.s3().keys("shelf", "").await.is_empty());
    assert!(aws.iot().things().await.is_empty());
}

/// Made once with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=node-1`.
const SIGNING_REQUEST: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIHKMHMCAQAwETEPMA0GA1UEAwwGbm9kZS0xMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEAOxnaX4TSNU+tnvueYakTy/AuEGzXsUPZmLxkVWJ5Pm0fr7QiwExykHR
mIoFpkh8iXIFnfudUm1eycDbtbBZOaAAMAoGCCqGSM49BAMCA0cAMEQCIFt7rmUD
KYx7Cy4d+hwR3guBW4oCbr/TArrpe7Y04JvhAiAx910EJ8jExJV5yDy1mtAQc8pO
z/gXeTkHQBrRqppPkw==
-----END CERTIFICATE REQUEST-----
";
