//! Repositories and their keys against a daemon in this process.

use std::os::unix::fs::PermissionsExt;

use crate::{
    exit::Exit,
    fake::{BLOCK, Fake},
};

#[tokio::test]
async fn a_repository_is_made_known_and_forgotten() {
    let fake = Fake::start(BLOCK);
    let (said, ended) = fake
        .command("repo init r /place --password-file /secret")
        .await;
    ended.unwrap();
    assert_eq!(said, ["repository r at /place (encrypted) made"]);
    let (said, _) = fake
        .command("repo add second s3://bucket/x --append-only")
        .await;
    assert_eq!(
        said,
        ["repository second at s3://bucket/x (not encrypted, append-only) known"]
    );
    let (said, _) = fake.command("repo list").await;
    assert_eq!(said.len(), 3);
    assert!(said[1].contains("password in /secret"), "{said:?}");
    assert!(said[2].contains("  not encrypted  ") && said[2].contains("  never  "));
    let (said, _) = fake.command("--json repo list").await;
    assert!(said[0].contains(r#""key":{"password_file":"/secret"}"#));
    fake.command("repo remove r").await.1.unwrap();
    let report = fake.command("repo remove r").await.1.unwrap_err();
    assert_eq!(report.reason.as_deref(), Some("REPOSITORY_NOT_FOUND"));
}

#[tokio::test]
async fn one_without_a_key_is_told_of_in_one_line() {
    let fake = Fake::start(BLOCK);
    let (said, ended) = fake.command("repo init r /place").await;
    ended.unwrap();
    assert_eq!(said.len(), 2);
    assert!(said[1].starts_with("note: it is not encrypted: "));
    assert!(!said[1].contains('\n'));
}

#[tokio::test]
async fn keys_come_and_go() {
    let fake = Fake::start(BLOCK);
    fake.command("repo init r /place --key-file /k")
        .await
        .1
        .unwrap();
    let none = fake.command("repo key add r").await.1.unwrap_err();
    assert_eq!(none.exit, Exit::Usage);
    fake.command("repo key add r --password-file /p")
        .await
        .1
        .unwrap();
    let (said, _) = fake.command("repo key add r --key-credential c").await;
    assert_eq!(said, [r#"key key2 (KeyCredential("c")) opens it too"#]);
    fake.command("repo key remove r key1").await.1.unwrap();
    let (said, _) = fake.command("repo key list r").await;
    assert_eq!(said.len(), 2);
    let last = fake.command("repo key remove r key2").await.1.unwrap_err();
    assert_eq!(last.exit, Exit::Denied);
}

#[tokio::test]
async fn a_master_key_goes_where_it_was_asked_to_only() {
    let fake = Fake::start(BLOCK);
    fake.command("repo init r /place --key-file /k")
        .await
        .1
        .unwrap();
    let key = "7".repeat(72);
    let path = fake.path("escrow");
    let line = format!("repo key export r --to {}", path.display());
    let (said, ended) = fake.command(&line).await;
    ended.unwrap();
    assert!(!said.concat().contains(&key));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{key}\n"));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Never over another, and nothing is left behind where there was no key.
    std::fs::write(&path, "other").unwrap();
    assert!(fake.command(&line).await.1.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "other");
    let nowhere = fake.path("nowhere");
    let line = format!("repo key export x --to {}", nowhere.display());
    assert!(fake.command(&line).await.1.is_err());
    assert!(!nowhere.exists());
    let (said, _) = fake.command("repo key export r --stdout").await;
    assert_eq!(said, [key]);
}

#[tokio::test]
async fn statistics_are_shown_and_drawn() {
    let fake = Fake::start(8 * BLOCK);
    fake.command("repo init r /place").await.1.unwrap();
    fake.command("backup --to r vol").await.1.unwrap();
    let path = fake.path("stats.svg");
    let line = format!("repo stats r --svg {}", path.display());
    let (said, ended) = fake.command(&line).await;
    ended.unwrap();
    assert!(said.iter().any(|line| line.ends_with("░▓")), "{said:?}");
    let drawing = std::fs::read_to_string(&path).unwrap();
    assert!(drawing.contains("vol on host: where it changed"));
    let report = fake.command(&line).await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Failed);
    fake.command(&format!("{line} --force")).await.1.unwrap();
}
