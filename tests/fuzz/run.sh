#!/bin/bash
# run.sh SECONDS [TARGET]...: fuzzes the targets, all by default, two at a time and so long in all.
# run.sh keep [TARGET]...: takes over into the corpus what earlier runs found and it does not reach.
#
# What is found lies in target/fuzz. An input that fails is kept there as crash-TARGET-*: put it
# into corpus/TARGET with a name that says what it was, and mend the decoder.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(ls tests/fuzz/corpus))
export RUST_BACKTRACE=1

RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/instrument.sh cargo build --quiet --workspace --bin fuzz --features tidemark-fuzz/libfuzzer
# Ordinary builds put other programs into target/debug.
mkdir -p target/fuzz
cp target/debug/fuzz target/fuzz/fuzz

if [ "$what" = keep ]; then
	for target in "${targets[@]}"; do
		kept=tests/fuzz/corpus/$target
		mkdir -p "$kept" "target/fuzz/$target"
		TIDEMARK_FUZZ=$target target/fuzz/fuzz -merge=1 -max_len=4096 "$kept" "target/fuzz/$target" 2>&1 | tail -n 1
		# Named inputs stay; of the others, the smallest.
		ls -Sr "$kept" | grep -E '^[0-9a-f]{40}$' | tail -n +31 | sed "s|^|$kept/|" | xargs -r rm
	done
	exit
fi

each=$(( (what * 2 + ${#targets[@]} - 1) / ${#targets[@]} ))
fuzz() {
	mkdir -p "target/fuzz/$1"
	if ! TIDEMARK_FUZZ=$1 target/fuzz/fuzz -max_total_time="$2" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
		-use_value_profile=1 -print_final_stats=1 -artifact_prefix="target/fuzz/crash-$1-" \
		"target/fuzz/$1" "tests/fuzz/corpus/$1" >"target/fuzz/$1.log" 2>&1; then
		echo "$1: FAILED, see target/fuzz/$1.log"
		grep -aE "panicked|ERROR|Test unit" -A 3 "target/fuzz/$1.log" | cut -c 1-300 | head -n 20
		return 1
	fi
	echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "target/fuzz/$1.log") runs"
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'fuzz {} '"$each"
