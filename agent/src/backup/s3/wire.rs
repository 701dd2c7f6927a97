//! One HTTP request. Whatever is not a success comes out as an error of ours, with what the service said:
//! the library's own errors keep it to themselves.

use std::sync::Once;

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpService, ReqwestConnector,
    },
};
use tokio_stream::StreamExt;

/// More than any error that services send.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// The longest that is told of it.
const MAX_SAID_CHARS: usize = 300;
/// Where the service says in which region a bucket is.
const REGION_HEADER: &str = "x-amz-bucket-region";

/// What a service said instead of yes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the service answers {status} {code} {message}")]
pub(super) struct Refused {
    pub(super) status: u16,
    /// Its own word, like `NoSuchKey`; may be empty, as it always is for a HEAD.
    pub(super) code: String,
    pub(super) message: String,
    /// Where the bucket is, if it says.
    pub(super) region: Option<String>,
}

impl Refused {
    fn new(status: u16, region: Option<String>, body: &str) -> Self {
        let element = |name: &str| -> Option<String> {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            let (text, _) = rest.split_once("</")?;
            // It goes to terminals and logs.
            let plain = text.trim().chars().filter(|c| !c.is_control());
            Some(plain.take(MAX_SAID_CHARS).collect())
        };
        Self {
            status,
            code: element("Code").unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
            region: region.or_else(|| element("Region")),
        }
    }
}

/// Makes clients whose requests are [`Wire`]'s.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        static CIPHERS: Once = Once::new();
        CIPHERS.call_once(|| {
            // An error says that somebody chose already, which will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire(inner)))
    }
}

#[derive(Debug)]
struct Wire(HttpClient);

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let region = response.headers().get(REGION_HEADER);
        let region = region.and_then(|region| region.to_str().ok().map(str::to_owned));
        let mut stream = response.into_body().bytes_stream();
        let mut body = Vec::new();
        // What is lost of an error's text does not change what it says.
        while let Some(Ok(bytes)) = stream.next().await {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_ERROR_BYTES {
                break;
            }
        }
        let refused = Refused::new(status, region, &String::from_utf8_lossy(&body));
        Err(HttpError::new(HttpErrorKind::Unknown, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_kept() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>\nNot\u{1b} here </Message>";
        let refused = Refused::new(404, None, body);
        assert_eq!(refused.code, "NoSuchKey");
        assert_eq!(refused.message, "Not here");
        let silent = Refused::new(403, Some("eu-1".into()), "<Code>");
        assert_eq!(
            (silent.code.as_str(), silent.region),
            ("", Some("eu-1".into()))
        );
    }
}
