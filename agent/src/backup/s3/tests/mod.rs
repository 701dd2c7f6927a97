//! Against a server whose answers a test writes. tests/s3.rs has a real one.

mod server;

use std::{io::ErrorKind, time::Duration};

use tidemark_store::repository::backend::Backend;

use super::{AccessKey, Credentials, Patience, S3, Settings};
use server::{Asked, Reply, STAMP, Server};

const SECRET: &str = "very-secret";

fn settings(server: &Server) -> Settings {
    let key = AccessKey::new("key-id".into(), SECRET.into());
    let place = "s3://bucket/deep/repository".parse().unwrap();
    Settings {
        endpoint: Some(server.endpoint.clone()),
        allow_http: true,
        patience: Patience {
            attempts: 4,
            first: Duration::from_millis(1),
            ..Patience::default()
        },
        ..Settings::new(place, Credentials::Key(key))
    }
}

fn taken() -> Reply {
    Reply::refused(412, "PreconditionFailed", "it is there")
}

/// Opens a storage, does something with it, and gives what the server was asked after that.
fn with<T>(replies: &[Reply], act: impl FnOnce(&S3) -> T) -> (T, Vec<Asked>) {
    let mut all = vec![Reply::is(200, ""), taken(), Reply::is(204, "")];
    let opening = all.len();
    all.extend_from_slice(replies);
    let server = Server::start(all);
    let storage = S3::open(&settings(&server)).unwrap();
    let done = act(&storage);
    let asked = server.asked();
    (done, asked[opening..].to_vec())
}

/// What opening says against these answers.
fn refusal(replies: &[Reply]) -> (ErrorKind, String) {
    let server = Server::start(replies.to_vec());
    let why = S3::open(&settings(&server)).unwrap_err();
    server.asked();
    let text = why.to_string();
    assert!(text.starts_with("s3://bucket/deep/repository: "), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    (why.kind(), text)
}

#[test]
fn a_service_that_replaces_is_refused() {
    let replaced = [Reply::is(200, ""), Reply::is(200, ""), Reply::is(204, "")];
    let (kind, text) = refusal(&replaced);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("If-None-Match"), "{text}");
    let lacking = [
        Reply::refused(501, "NotImplemented", "no"),
        Reply::is(204, ""),
    ];
    assert_eq!(refusal(&lacking[..1]).0, ErrorKind::Unsupported);
    // The first answer was lost: that the name is taken then proves as much.
    let server = Server::start(vec![Reply::Lost, taken(), Reply::is(204, "")]);
    S3::open(&settings(&server)).unwrap();
    let asked = server.asked();
    assert!(
        asked[0]
            .line
            .starts_with("PUT /bucket/deep/repository/tmp/")
    );
    assert!(asked[0].has("if-none-match: *"), "{asked:?}");
}

#[test]
fn what_is_wrong_with_settings_is_told_when_it_is_opened() {
    for (status, code, message, says) in [
        (404, "NoSuchBucket", "none", "no such bucket"),
        (403, "SignatureDoesNotMatch", "no", "secret is wrong"),
        (301, "PermanentRedirect", "elsewhere", "another region"),
        (
            400,
            "AuthorizationHeaderMalformed",
            "the region 'us-east-1' is wrong; expecting 'eu-1'",
            "expecting 'eu-1'",
        ),
    ] {
        let mut replies = vec![Reply::refused(status, code, message)];
        if status == 403 {
            replies.push(Reply::is(403, ""));
        }
        let (_, text) = refusal(&replies);
        assert!(text.contains(says), "{text}");
    }
    // Whoever may only read is let in, and told when it creates.
    let denied = Reply::refused(403, "AccessDenied", "no");
    let server = Server::start(vec![denied.clone(), Reply::is(200, ""), denied]);
    let storage = S3::open(&settings(&server)).unwrap();
    let why = storage.create("points/a", b"one").unwrap_err();
    assert_eq!(why.kind(), ErrorKind::PermissionDenied);
    server.asked();
}

#[test]
fn no_endpoint_is_told_after_a_few_attempts() {
    let server = Server::start(Vec::new());
    let settings = settings(&server);
    server.asked();
    let why = S3::open(&settings).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::NotConnected);
    assert!(why.to_string().contains("4 attempts"), "{why}");
}

#[test]
fn a_put_whose_answer_was_lost_knows_its_own_object() {
    let unsure = [Reply::Lost, Reply::refused(500, "InternalError", "oops")];
    for doubt in unsure {
        let replies = [doubt.clone(), taken(), Reply::is(200, "one")];
        let (done, asked) = with(&replies, |storage| storage.create("points/a", b"one"));
        done.unwrap();
        assert_eq!(asked[1].body, b"one");
        // Somebody else's.
        let replies = [doubt, taken(), Reply::is(200, "two")];
        let (done, _) = with(&replies, |storage| storage.create("config", b"one"));
        assert_eq!(done.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    // A longer one is not read at all.
    let replies = [Reply::Lost, taken(), Reply::is(200, "longer")];
    let (done, _) = with(&replies, |storage| storage.create("config", b"one"));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_name_that_was_taken_before_is_not_asked_about() {
    let (done, asked) = with(&[taken()], |storage| storage.create("points/a", b"one"));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(asked.len(), 1);
    // Another's put is running, and may fail: this is not yet an answer.
    let replies = [
        Reply::refused(409, "ConditionalRequestConflict", "busy"),
        Reply::is(200, ""),
    ];
    let (done, _) = with(&replies, |storage| storage.create("points/a", b"one"));
    done.unwrap();
}

#[test]
fn what_passes_is_tried_again_and_what_stays_is_told() {
    let busy = Reply::refused(503, "SlowDown", "slow down");
    let replies = [
        busy.clone(),
        Reply::is(429, ""),
        Reply::Lost,
        Reply::is(200, ""),
    ];
    let (done, _) = with(&replies, |storage| storage.create("points/a", b"one"));
    done.unwrap();
    let replies = vec![busy; 4];
    let (done, _) = with(&replies, |storage| storage.stat("points/a"));
    let why = done.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::ResourceBusy);
    let text = why.to_string();
    assert!(
        text.starts_with("s3://bucket/deep/repository/points/a: "),
        "{text}"
    );
    assert!(text.contains("4 attempts"), "{text}");
}

#[test]
fn a_read_goes_on_where_it_was_cut() {
    let replies = [
        Reply::Cut(200, "0123456789".into(), 4),
        Reply::Lost,
        Reply::Cut(206, "456789".into(), 3),
        Reply::is(206, "789"),
    ];
    let (read, asked) = with(&replies, |storage| storage.read("packs/ab/c", 10));
    assert_eq!(read.unwrap(), b"0123456789");
    assert!(asked[1].has("range: bytes=4-"), "{asked:?}");
    assert!(asked[3].has("range: bytes=7-"), "{asked:?}");
    let replies = [Reply::Cut(206, "3456".into(), 1), Reply::is(206, "456")];
    let mut four = [0; 4];
    let (read, asked) = with(&replies, |storage| {
        storage.read_range("index/a", 3, &mut four)
    });
    read.unwrap();
    assert_eq!(&four, b"3456");
    assert!(asked[0].has("range: bytes=3-6"), "{asked:?}");
    assert!(asked[1].has("range: bytes=4-6"), "{asked:?}");
}

#[test]
fn what_is_too_long_or_too_short_is_not_read() {
    let long = [Reply::Cut(200, "0123".repeat(1000), 1)];
    let (read, _) = with(&long, |storage| storage.read("keys/a", 3999));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidData);
    let mut four = [0; 4];
    let short = [Reply::is(206, "34")];
    let (read, _) = with(&short, |storage| {
        storage.read_range("index/a", 3, &mut four)
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let outside = [Reply::refused(416, "InvalidRange", "no")];
    let (read, _) = with(&outside, |storage| {
        storage.read_range("index/a", 9, &mut four)
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_listing_has_all_pages_and_only_our_names() {
    let page = |key: &str, next: &str| {
        let key = format!("deep/repository/points/{key}");
        let when = "2026-11-21T12:00:01.789Z";
        Reply::Is(
            200,
            format!(
                "<ListBucketResult><Contents><Key>{key}</Key><LastModified>{when}</LastModified>\
                 <ETag>\"1\"</ETag><Size>3</Size></Contents>{next}</ListBucketResult>"
            ),
        )
    };
    let more = "<NextContinuationToken>t1</NextContinuationToken>";
    let cut = Reply::Cut(200, "<ListBucketResult>".into(), 9);
    let replies = [page("a", more), cut, page("b", ""), Reply::is(200, "abc")];
    let (listed, asked) = with(&replies, |storage| {
        (
            storage.list("points/").unwrap(),
            storage.stat("points/b").unwrap(),
        )
    });
    let (all, one) = listed;
    let names: Vec<_> = all.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["points/a", "points/b"]);
    // Of the same second, although one was told in more detail.
    assert_eq!(all[1], one);
    assert!(asked[2].line.contains("continuation-token=t1"), "{asked:?}");
    assert!(
        asked[0]
            .line
            .contains("prefix=deep%2Frepository%2Fpoints%2F")
    );
    let endless = [page("a", more), page("a", more)];
    let (listed, _) = with(&endless, |storage| storage.list("points/"));
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn the_time_is_the_services_also_where_nothing_may_be_deleted() {
    let denied = Reply::refused(403, "AccessDenied", "no");
    let replies = [Reply::is(200, ""), Reply::is(200, ""), denied];
    let (now, asked) = with(&replies, Backend::now);
    // 12:00:01 on that day, as `STAMP` has it.
    assert!(STAMP.ends_with("2026 12:00:01 GMT"));
    assert_eq!(now.unwrap().0, 1_795_262_401_000_000);
    let name = |asked: &Asked| asked.line.split(' ').nth(1).unwrap().to_owned();
    assert!(name(&asked[0]) == name(&asked[1]) && name(&asked[1]) == name(&asked[2]));
}

#[test]
fn deleting_what_is_not_there_is_no_error() {
    let none = Reply::refused(404, "NoSuchKey", "none");
    let replies = [Reply::Lost, none, Reply::is(204, "")];
    let (done, _) = with(&replies, |storage| {
        storage
            .delete("points/a")
            .and_then(|()| storage.delete("points/b"))
    });
    done.unwrap();
}

#[test]
fn a_runtimes_only_worker_may_call() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (done, _) = with(&[Reply::is(200, "one")], |storage| {
        runtime.block_on(async { storage.read("points/a", 3) })
    });
    assert_eq!(done.unwrap(), b"one");
    // It may drop one as well.
    let server = Server::start(vec![Reply::is(200, ""), taken(), Reply::is(204, "")]);
    let storage = S3::open(&settings(&server)).unwrap();
    runtime.block_on(async { drop(storage) });
}

#[test]
fn names_outside_are_refused() {
    let (_, asked) = with(&[], |storage| {
        for name in ["../x", "a//b", ".x", ""] {
            let why = storage.create(name, b"").unwrap_err();
            assert_eq!(why.kind(), ErrorKind::InvalidInput, "{name}");
        }
    });
    assert!(asked.is_empty());
}
