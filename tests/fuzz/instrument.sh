#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER: compiles our own crates so that libFuzzer sees which way they
# went, on stable Rust. Others are shared with the ordinary build.
set -eu
case " $* " in
*" --crate-name build_script_build "*) ;;
*" --crate-name tidemark_"* | *" --crate-name fuzz "*)
	exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
		-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
		-Cllvm-args=-sanitizer-coverage-pc-table \
		-Cllvm-args=-sanitizer-coverage-trace-compares
	;;
esac
exec "$@"
