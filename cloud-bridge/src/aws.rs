//! How the bridge reaches AWS: one configuration for all clients, with timeouts on everything.
//!
//! Credentials come from where AWS's own tools look for them: the environment, a profile, a container or an instance.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One try of one call: long enough for a part of 32 MiB over 10 Mbit/s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one call before its caller hears of the failure.
const ATTEMPTS_MAX: u32 = 3;
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The `[aws]` section.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The region; without it, the one that AWS's own tools would take.
    pub region: Option<String>,
    /// Another server that speaks AWS's protocols, as a URL.
    pub endpoint: Option<String>,
    /// The access key of such a server. On AWS leave it out: AWS's own ways do not put keys into files.
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    pub secret_access_key: Option<String>,
}

/// Finds the region, the endpoint and the credentials.
pub async fn load(config: &Config) -> SdkConfig {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_max_backoff(BACKOFF_MAX));
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &config.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
        let credentials = Credentials::new(id, secret, None, None, "configuration");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
    }
    loader.load().await
}
