//! Pushes against a daemon in this process.

use std::path::PathBuf;

use super::{PushArgs, push};
use crate::{
    cmd::pull::{
        Compress,
        state::{Phase, State, StateFile},
    },
    exit::{Exit, Report},
    fake::{Fake, content},
    image::Identity,
};

fn args(image: PathBuf) -> PushArgs {
    PushArgs {
        image,
        target: "volume:vol".to_owned(),
        state: None,
        compress: Compress::None,
        force: false,
    }
}

/// Data, zeros that are stored, and holes.
fn image(fake: &Fake) -> PathBuf {
    let path = fake.path("image");
    let mut bytes: Vec<u8> = (0..3_000_000_u32)
        .flat_map(u32::to_le_bytes)
        .take(2_500_000)
        .collect();
    bytes[300_000..900_000].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(6_000_001).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 5_999_000).unwrap();
    path
}

async fn run(fake: &Fake, args: &PushArgs) -> Result<super::Pushed, Exit> {
    let (_tell, context) = fake.context();
    push(args, &context)
        .await
        .map_err(|error| Report::of(&error).exit)
}

#[tokio::test]
async fn every_byte_arrives_and_zeros_cost_nothing() {
    let fake = Fake::start(8192);
    for compress in [Compress::None, Compress::Zstd] {
        let args = PushArgs {
            compress,
            ..args(image(&fake))
        };
        let pushed = run(&fake, &args).await.unwrap();
        assert_eq!(fake.model().pushed.data, content(&args.image));
        assert_eq!(pushed.sent.data_bytes + pushed.sent.zero_bytes, 6_000_001);
        assert!(pushed.sent.zero_bytes > 3_500_000, "{:?}", pushed.sent);
        assert!(!fake.model().pushed.aborted);
    }
}

#[tokio::test]
async fn a_digest_that_does_not_hold_is_an_integrity_failure() {
    let fake = Fake::start(8192);
    fake.model().wrong_hashes = true;
    let args = args(image(&fake));
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Integrity);
    assert!(fake.model().pushed.aborted);
}

#[tokio::test]
async fn an_image_that_is_not_valid_needs_force() {
    let fake = Fake::start(8192);
    let mut args = args(image(&fake));
    let identity = Identity::Device {
        number: 1,
        size_bytes: 1,
    };
    let phase = Phase::Invalid {
        reason: "wrong bytes".to_owned(),
    };
    let state = State::new("vol", "id", (1, 4096), identity, phase);
    StateFile::beside(&args.image).store(&state).unwrap();
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Integrity);
    args.force = true;
    run(&fake, &args).await.unwrap();
}
