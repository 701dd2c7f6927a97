//! Every input that the fuzzer kept, and seeds with ordinary damage, through every target: what
//! was found once stays mended, also where nobody fuzzes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidemark_fuzz::{TARGETS, Target};

/// A corpus is a sample, not a heap.
const MAX_FILES: usize = 50;
const MAX_FILE_BYTES: usize = 4096;

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The target's inputs with their names.
fn inputs(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{folder:?}: {why}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("a folder can be listed"))
        .map(|entry| {
            let bytes = fs::read(entry.path()).expect("an input can be read");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

fn run(target: &Target, name: &str, bytes: &[u8]) {
    // Shown only when it panics.
    println!("{}/{name}: {bytes:02x?}", target.name);
    target.run(bytes);
}

#[test]
fn everything_that_was_kept_holds() {
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        assert!(inputs.len() <= MAX_FILES, "{} has too many", target.name);
        for (name, bytes) in inputs {
            assert!(bytes.len() <= MAX_FILE_BYTES, "{name} is too long");
            run(target, &name, &bytes);
        }
    }
}

#[test]
fn no_folder_is_without_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).expect("a folder can be listed") {
        let name = entry.expect("a folder can be listed").file_name();
        assert!(
            TARGETS.iter().any(|target| name == target.name),
            "{name:?} belongs to no target"
        );
    }
}

/// Most places where a seed is damaged.
const MAX_STEPS: usize = 64;

/// Each seed cut short and with each of some bits turned, spread over its length.
#[test]
fn seeds_and_their_damage_hold() {
    for target in TARGETS {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            run(target, &format!("seed {number}"), &seed);
            let steps = seed.len().min(MAX_STEPS);
            for step in 0..steps {
                let at = seed.len() * step / steps;
                run(target, &format!("seed {number} to {at}"), &seed[..at]);
                let mut turned = seed.clone();
                if let Some(byte) = turned.get_mut(at) {
                    *byte ^= 1 << (step % 8);
                    run(target, &format!("seed {number} turned at {at}"), &turned);
                }
            }
        }
    }
}

/// Writes the seeds into the corpus: for a new target, before it is fuzzed.
#[test]
#[ignore = "changes the corpus"]
fn seeds_are_written() {
    for target in TARGETS {
        let folder = folder(target);
        fs::create_dir_all(&folder).expect("a folder can be made");
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            let path = folder.join(format!("seed-{number}"));
            fs::write(path, seed).expect("an input can be written");
        }
    }
}
