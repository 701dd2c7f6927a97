# make demo    see the whole job done and proven, on a throw-away volume
# make test    everything that must pass: formatting, lints, unit and integration tests (as root)
# make concurrency explore what the data plane's threads can do with each other (test does so too)
# make fuzz    look for bytes that break a decoder, FUZZ_SECONDS long (test does so for a minute)
# make test-vm every story on Debian's kernels, and of a whole Debian that boots, where test tells a part (as root)
# make test-faults 200 cycles over disks that fail and writers that die, where test tells a few (as root)
# make simulate 100 million operations of the simulated engine: OPERATIONS=, SEED= and JOBS= change it
# make bench   the benchmarks of the README, as ratios within one run (as root)
# make bench-vm what layers cost over the same disk, on two kernels in virtual machines (as root)
# make package a .deb and an .rpm, into target/packages (PROGRAMS=target/debug: of the programs there)
# make deps    install what a plain Debian 12 lacks; the other targets do so themselves
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help

# A toolchain by rustup that this shell does not know yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# One profile for the programs and their tests, so that nothing is compiled twice.
CARGO := cargo
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

# A command, or a file, and the Debian package that brings it.
NEEDS := cc=gcc g++=g++ make=make /usr/include/stdio.h=libc6-dev pkg-config=pkg-config \
	/usr/lib/llvm-14/lib/libclang-14.so.1=libclang-14-dev /usr/include/libdevmapper.h=libdevmapper-dev \
	qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio modprobe=kmod xz=xz-utils \
	dmsetup=dmsetup lvm=lvm2 cryptsetup=cryptsetup-bin stress-ng=stress-ng fs_mark=fsmark \
	fusermount3=fuse3 mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs \
	lintian=lintian mmdebstrap=mmdebstrap rpm=rpm rpmlint=rpmlint mandoc=mandoc \
	dpkg-shlibdeps=dpkg-dev strip=binutils systemd-analyze=systemd unshare=util-linux \
	/usr/lib/python3/dist-packages/grpc/__init__.py=python3-grpcio protoc=protobuf-compiler \
	/usr/include/google/protobuf/timestamp.proto=libprotobuf-dev \
	grpc_python_plugin=protobuf-compiler-grpc b3sum=b3sum setsid=util-linux \
	/usr/lib/python3/dist-packages/prometheus_client=python3-prometheus-client \
	fio=fio qemu-img=qemu-utils sqlite3=sqlite3 losetup=mount fstrim=util-linux zstd=zstd

.PHONY: help deps rust build lint concurrency fuzz test test-vm test-faults simulate demo bench bench-vm package root

help:
	grep '^# make' Makefile | cut -c3-

deps: rust
	missing=()
	for need in $(NEEDS); do
		what=$${need%=*}
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$$what" >/dev/null || [ -e "$$what" ] || missing+=("$${need#*=}")
	done
	if [ "$${#missing[@]}" -gt 0 ]; then
		echo "installing: $${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		$(SUDO) apt-get -qq update
		$(SUDO) apt-get -qq install --yes --no-install-recommends "$${missing[@]}"
	fi

# Debian 12's own rustc is too old; Cargo.toml names the oldest that will do.
rust:
	oldest=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	if ! command -v cargo >/dev/null; then
		echo "Rust $$oldest or later is needed and not here; trying rustup's own installer"
		get="curl --proto =https --tlsv1.2 -sSf"
		command -v curl >/dev/null || get="wget --https-only -qO-"
		if ! $$get https://sh.rustup.rs > /tmp/rustup-init.$$$$; then
			rm -f /tmp/rustup-init.$$$$
			echo "it cannot be reached. Install Rust as https://rustup.rs says, then run make again:"
			echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
			exit 1
		fi
		sh /tmp/rustup-init.$$$$ -y --profile minimal --component clippy,rustfmt
		rm -f /tmp/rustup-init.$$$$
	fi
	have=$$(cargo --version | cut -d' ' -f2)
	if [ "$$(printf '%s\n' "$$oldest" "$$have" | sort -V | head -n 1)" != "$$oldest" ]; then
		echo "Rust $$have is too old, $$oldest is needed: rustup update stable"
		exit 1
	fi

# With the tests at once, so that both agree on every crate's features.
build: deps
	$(CARGO) build --workspace --bins --tests

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings

# The programs that are packaged, without the symbols; PROGRAMS=target/debug takes those as they are.
PROGRAMS := target/release

package: deps
	if [ "$(PROGRAMS)" = target/release ]; then
		$(CARGO) build --quiet --release --package tidemark-agent --package tidemark-cli --bins
	fi
	packaging/package.sh $(PROGRAMS) target/packages
	ls -l target/packages

root:
	if [ "$$(id -u)" != 0 ]; then
		echo "this mounts file systems and attaches loop devices: run it as root"
		exit 1
	fi

# loom's words take the place of the standard library's, so nothing is shared with other builds.
concurrency: deps
	RUSTFLAGS="--cfg loom" $(CARGO) test --quiet -p tidemark-concurrency --lib --target-dir target/loom

# For how long, over all targets; tests/fuzz/run.sh also takes the names of some.
FUZZ_SECONDS := 60

fuzz: build
	tests/fuzz/run.sh $(FUZZ_SECONDS)

test: root build lint concurrency fuzz
	$(CARGO) test --workspace --no-fail-fast 2>&1 | tee target/test.log && result=0 || result=$$?
	awk '/^test result:/ { passed += $$4; failed += $$6 } END { printf "%d passed, %d failed\n", passed, failed }' target/test.log
	exit $$result

test-vm: root build
	TIDEMARK_VM=all $(CARGO) test --workspace --test vm -- --include-ignored --nocapture --test-threads=1

# TIDEMARK_SEED repeats the choices of a run.
test-faults: root build
	TIDEMARK_FAULT_CYCLES=200 $(CARGO) test --workspace --test faults --test repository -- --nocapture --test-threads=1

# What `make test` does with a million, from the seed after those on.
OPERATIONS := 100000000
SEED := 1000000
JOBS := $(shell nproc)

simulate: build
	target/debug/simulate --operations $(OPERATIONS) --seed $(SEED) --jobs $(JOBS)

demo: root deps
	$(CARGO) build --workspace --bins
	target/debug/tidemark demo

bench: root deps
	$(CARGO) build --quiet --release --workspace --bins
	$(CARGO) bench --quiet -p tidemark-tests -p tidemark-store

# The ublk server that ours is measured against: run as a program, never linked.
RUBLK := rublk --version 0.2.15 --locked --no-default-features

# Optimised as rublk is. Status 126 says that the kernel complained: tests/vm/main.rs tells of what,
# and stories judge it.
bench-vm: root build
	$(CARGO) build --quiet --release --workspace --bins
	if [ ! -x target/rublk/bin/rublk ]; then
		$(CARGO) install --quiet $(RUBLK) --root target/rublk --target-dir target/rublk/build
	fi
	for kernel in 6.12 7.2; do
		for disk in over_memory over_a_disk_of_100_us; do
			TIDEMARK_VM_ACCEL=count TIDEMARK_PROGRAMS=$$PWD/target/release target/debug/vm --kernel $$kernel --memory 4096 --budget 7200 --with target/rublk/bin/rublk -- \
				vm_guest --ignored --nocapture --exact bench::$$disk || [ $$? = 126 ]
		done
	done
