//! What a failure means: whether to try again, and what to tell.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use object_store::client::{HttpError, HttpErrorKind};

use super::wire::Refused;

/// One attempt's failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// What happened, and what the operator can do.
    pub(super) why: String,
    /// It may go better next time.
    pub(super) again: bool,
    /// What was asked for may have been done all the same.
    pub(super) unsure: bool,
}

impl Fault {
    /// One that another attempt does not mend.
    pub(super) fn of(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self {
            kind,
            why: why.into(),
            again: false,
            unsure: false,
        }
    }

    /// A failure on the way.
    pub(super) fn lost(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self {
            again: true,
            unsure: true,
            ..Self::of(kind, why)
        }
    }

    /// An object that others than us took away between two of our looks, or that never was.
    pub(super) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    pub(super) fn is_taken(&self) -> bool {
        self.kind == ErrorKind::AlreadyExists
    }

    pub(super) fn told(self, place: &str) -> io::Error {
        io::Error::new(self.kind, format!("{place}: {}", self.why))
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        let mut transport = None;
        let mut cause: &(dyn Error + 'static) = &error;
        loop {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return refused.into();
            }
            if let Some(http) = cause.downcast_ref::<HttpError>() {
                transport = Some(http.kind());
            }
            match cause.source() {
                None => break,
                Some(deeper) => cause = deeper,
            }
        }
        // The deepest cause is the one that names what failed: a refused connection, an unknown host.
        let why = cause.to_string();
        match transport {
            Some(HttpErrorKind::Connect) => Self {
                unsure: false,
                ..Self::lost(
                    ErrorKind::NotConnected,
                    format!("no connection ({why}): is the endpoint right, and does it answer?"),
                )
            },
            Some(HttpErrorKind::Timeout) => Self::lost(ErrorKind::TimedOut, why),
            Some(_) => Self::lost(
                ErrorKind::ConnectionAborted,
                format!("the connection was lost ({why})"),
            ),
            // An answer that was cut, or that a proxy made up, does not parse either.
            None => Self::lost(
                ErrorKind::InvalidData,
                format!("what came back is no answer of an object service ({error})"),
            ),
        }
    }
}

impl From<&Refused> for Fault {
    fn from(refused: &Refused) -> Self {
        let (kind, advice) = meaning(refused);
        let again = is_temporary(refused);
        let mut why = match advice {
            "" => refused.to_string().trim_end().to_owned(),
            advice => format!("{advice} ({})", refused.to_string().trim_end()),
        };
        if let Some(region) = refused.region.as_ref().filter(|_| advice == REGION) {
            why = format!("{why}; it is in {region}");
        }
        Self {
            // A 5xx may come from something between us and the service.
            unsure: again && refused.status >= 500,
            again,
            ..Self::of(kind, why)
        }
    }
}

const REGION: &str = "the bucket is in another region than was said: set its region";

/// What an answer means, and what to do; nothing where its own words say it.
fn meaning(refused: &Refused) -> (ErrorKind, &'static str) {
    let region = refused.message.contains("region") || refused.region.is_some();
    match (refused.status, refused.code.as_str()) {
        (_, "NoSuchBucket") => (
            // Not NotFound: that is said of objects, and answered by making a repository.
            ErrorKind::Other,
            "there is no such bucket: make it, or correct the location",
        ),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") | (401, _) => (
            ErrorKind::PermissionDenied,
            "the key id or the secret is wrong",
        ),
        (_, "ExpiredToken" | "TokenRefreshRequired") => (
            ErrorKind::PermissionDenied,
            "the credentials have expired: get new ones",
        ),
        (_, "RequestTimeTooSkewed" | "RequestExpired") => (
            ErrorKind::PermissionDenied,
            "this host's clock and the service's are too far apart: set this host's",
        ),
        (_, "QuotaExceeded" | "XMinioStorageFull") | (507, _) => {
            (ErrorKind::StorageFull, "the storage is full: make room")
        }
        (_, "AuthorizationHeaderMalformed") if region => (ErrorKind::InvalidInput, REGION),
        (300..=399, _) => (ErrorKind::InvalidInput, REGION),
        (403, _) => (
            ErrorKind::PermissionDenied,
            "the credentials do not allow this: a repository needs ListBucket, GetObject and PutObject, \
             and DeleteObject to forget and prune",
        ),
        (404, _) => (ErrorKind::NotFound, "there is no such object"),
        (412, _) => (ErrorKind::AlreadyExists, "the name is taken"),
        (416, _) => (ErrorKind::UnexpectedEof, "the object is shorter"),
        (501, _) => (
            ErrorKind::Unsupported,
            "the service lacks something that a repository needs",
        ),
        (408 | 504, _) | (_, "RequestTimeout") => (ErrorKind::TimedOut, ""),
        (429 | 503, _) | (_, "SlowDown") => (
            ErrorKind::ResourceBusy,
            "the service is overloaded: try later",
        ),
        (400..=499, _) => (ErrorKind::InvalidInput, ""),
        _ => (ErrorKind::Other, ""),
    }
}

/// Whether an answer may be another one next time.
fn is_temporary(refused: &Refused) -> bool {
    match refused.code.as_str() {
        // The bytes were damaged or cut on their way, and the service noticed.
        "RequestTimeout"
        | "IncompleteBody"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "SlowDown" => true,
        "XMinioStorageFull" | "QuotaExceeded" => false,
        // 409: another request for the same name is running, and may fail.
        _ => matches!(
            refused.status,
            408 | 409 | 425 | 429 | 500 | 502 | 503 | 504
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, code: &str) -> Fault {
        Fault::from(&Refused {
            status,
            code: code.into(),
            message: "said so".into(),
            region: Some("eu-1".into()),
        })
    }

    #[test]
    fn answers_have_a_kind_and_advice() {
        for (status, code, kind, says) in [
            (404, "NoSuchBucket", ErrorKind::Other, "make it"),
            (404, "NoSuchKey", ErrorKind::NotFound, "no such object"),
            (404, "", ErrorKind::NotFound, "no such object"),
            (
                403,
                "SignatureDoesNotMatch",
                ErrorKind::PermissionDenied,
                "secret is wrong",
            ),
            (
                403,
                "AccessDenied",
                ErrorKind::PermissionDenied,
                "do not allow",
            ),
            (
                403,
                "RequestTimeTooSkewed",
                ErrorKind::PermissionDenied,
                "clock",
            ),
            (400, "ExpiredToken", ErrorKind::PermissionDenied, "expired"),
            (
                400,
                "AuthorizationHeaderMalformed",
                ErrorKind::InvalidInput,
                "it is in eu-1",
            ),
            (
                301,
                "PermanentRedirect",
                ErrorKind::InvalidInput,
                "it is in eu-1",
            ),
            (412, "PreconditionFailed", ErrorKind::AlreadyExists, "taken"),
            (416, "InvalidRange", ErrorKind::UnexpectedEof, "shorter"),
            (501, "NotImplemented", ErrorKind::Unsupported, "lacks"),
            (
                507,
                "XMinioStorageFull",
                ErrorKind::StorageFull,
                "make room",
            ),
            (400, "KeyTooLongError", ErrorKind::InvalidInput, "said so"),
        ] {
            let fault = fault(status, code);
            assert!(fault.kind == kind && fault.why.contains(says), "{fault:?}");
            assert!(!fault.again && !fault.unsure, "{fault:?}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (status, code, unsure) in [
            (500, "InternalError", true),
            (502, "", true),
            (503, "SlowDown", true),
            (504, "", true),
            (429, "", false),
            (408, "", false),
            (409, "ConditionalRequestConflict", false),
            (400, "RequestTimeout", false),
            (400, "BadDigest", false),
        ] {
            let fault = fault(status, code);
            assert!(fault.again && fault.unsure == unsure, "{fault:?}");
        }
    }
}
