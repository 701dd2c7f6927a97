//! How a repository's storage is reached.

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

use super::{
    credentials::Credentials,
    error::SettingsError,
    place::Place,
    tries::{CONNECT_WITHIN, Patience},
    wire::Connector,
};

/// Where a bucket is if nothing else is said.
const USUAL_REGION: &str = "us-east-1";

/// All that is needed to reach a repository.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bucket and prefix.
    pub place: Place,
    /// Who we are.
    pub credentials: Credentials,
    /// The bucket's region; `None`: us-east-1, which services other than Amazon's hardly ever mind.
    pub region: Option<String>,
    /// The service's URL, without bucket; `None`: Amazon's for the region.
    pub endpoint: Option<String>,
    /// Lets an endpoint begin with `http://`. What is stored then travels in the clear, as does everything
    /// but the secret.
    pub allow_http: bool,
    /// Whether the bucket stands in the URL's path, not before the host; `None`: where an endpoint is
    /// given, or the bucket's name has dots, which certificates do not cover.
    pub path_style: Option<bool>,
    /// How long temporary failures are borne.
    pub patience: Patience,
}

impl Settings {
    /// With the usual answer to everything else.
    pub fn new(place: Place, credentials: Credentials) -> Self {
        Self {
            place,
            credentials,
            region: None,
            endpoint: None,
            allow_http: false,
            path_style: None,
            patience: Patience::default(),
        }
    }

    pub(super) fn client(&self) -> Result<AmazonS3, SettingsError> {
        let dotted = self.place.bucket().contains('.');
        let in_path = self.path_style.unwrap_or(self.endpoint.is_some() || dotted);
        // One policy for all failures, in `tries`: the library's own stays out of it.
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            // It would hold for a whole pack as for a point: `tries` has one for each size.
            .with_timeout_disabled();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(self.place.bucket())
            .with_region(self.region.as_deref().unwrap_or(USUAL_REGION))
            .with_virtual_hosted_style_request(!in_path)
            .with_disable_bulk_delete(true)
            .with_http_connector(Connector)
            .with_client_options(options)
            .with_allow_http(self.allow_http)
            .with_retry(once);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(self.url(endpoint, in_path)?);
        }
        if let Credentials::Key(key) = &self.credentials {
            builder = builder
                .with_access_key_id(&key.id)
                .with_secret_access_key(key.secret.as_str());
            if let Some(token) = &key.token {
                builder = builder.with_token(token.as_str());
            }
        }
        builder
            .build()
            .map_err(|why| SettingsError::Client(why.to_string()))
    }

    /// The endpoint, with the bucket before its host unless it stands in the path.
    fn url(&self, endpoint: &str, in_path: bool) -> Result<String, SettingsError> {
        let wrong = |why| SettingsError::Endpoint {
            text: endpoint.to_owned(),
            why,
        };
        let (scheme, host) = endpoint
            .split_once("://")
            .ok_or_else(|| wrong("it does not begin with https:// or http://"))?;
        match scheme {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => {
                return Err(wrong(
                    "it is not encrypted: use https://, or allow http explicitly",
                ));
            }
            _ => return Err(wrong("it does not begin with https:// or http://")),
        }
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(['@', '?', '#', ' ']) {
            return Err(wrong("it has to be a host, maybe with a port and a path"));
        }
        if in_path {
            return Ok(format!("{scheme}://{host}"));
        }
        Ok(format!("{scheme}://{}.{host}", self.place.bucket()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(place: &str) -> Settings {
        Settings::new(place.parse().unwrap(), Credentials::Instance)
    }

    #[test]
    fn endpoints_become_urls() {
        let mut settings = settings("s3://abc/x");
        settings.allow_http = true;
        let url = |endpoint, in_path| settings.url(endpoint, in_path).unwrap();
        assert_eq!(url("http://h:9000/", true), "http://h:9000");
        assert_eq!(url("https://h/s3", false), "https://abc.h/s3");
    }

    #[test]
    fn endpoints_that_are_none_say_why() {
        for (endpoint, why) in [
            ("minio:9000", "begin with"),
            ("ftp://h", "begin with"),
            ("http://h", "allow http"),
            ("https://", "a host"),
            ("https://key:secret@h", "a host"),
        ] {
            let told = settings("s3://abc").url(endpoint, true).unwrap_err();
            assert!(told.to_string().contains(why), "{endpoint}: {told}");
        }
    }

    #[test]
    fn a_client_is_made_with_the_systems_certificates() {
        settings("s3://abc/x").client().unwrap();
        settings("s3://a.b.c").client().unwrap();
    }
}
