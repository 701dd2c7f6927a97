//! libFuzzer over the target that `TIDEMARK_FUZZ` names.

#![no_main]

use std::sync::OnceLock;

use tidemark_fuzz::{Target, target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let chosen = TARGET.get_or_init(|| {
        let name = std::env::var("TIDEMARK_FUZZ").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("no target has the name {name:?}"))
    });
    chosen.run(bytes);
});
