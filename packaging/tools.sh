#!/usr/bin/env bash
# Installs what makes packages into target/tools, in these versions and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
# They run for seconds: building them fast is worth more.
export CARGO_PROFILE_RELEASE_{LTO=off,OPT_LEVEL=1,CODEGEN_UNITS=16,DEBUG=false}
mkdir -p "$tools"
exec 9>"$tools/lock"
flock 9
for tool in cargo-deb=3.8.0 cargo-generate-rpm=0.21.1; do
	name=${tool%=*} version=${tool#*=}
	grep -qs "\"$name $version " "$tools/.crates.toml" && continue
	# Out of the workspace, whose own settings are not theirs.
	(cd / && cargo install --quiet --locked "$name" --version "=$version" --root "$tools" --target-dir "$tools/build")
	rm -rf "$tools/build"
done
