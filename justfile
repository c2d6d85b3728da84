# Recipes for people and CI; run them with ./justw (which gets just first if it is missing).

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# list the recipes
default:
    @just --justfile {{ justfile() }} --list --unsorted

# build the host, the plugins and the tools around them
build:
    cargo build --workspace

# run all tests, with real nats-server processes on free ports; closes with a line that counts them
test *ARGS: fetch-tools build
    @scripts/fetch-tool cargo-auditable
    @scripts/test "$@"

# start everything, send the sample webhooks of DIR (or the project's own) and show each one's way
demo *ARGS: fetch-tools build
    @scripts/demo "$@"

# the same, kept running: nats-server, an api and a worker with the example plugins; takes over a changed library
dev *ARGS: fetch-tools build
    @scripts/dev "$@"

# kill, stop and restart everything under load for a minute, and judge what was promised: --seconds N --seed S
torture *ARGS: fetch-tools build
    @scripts/torture "$@"

# measure all paths against their floors, and run the trials (release build; see docs/performance.md)
bench *ARGS: fetch-tools
    cargo build --release --workspace
    @target/release/cardcage-bench "$@"

# tests of the boundary, the SDK, the loader and the crash room under AddressSanitizer and LeakSanitizer, where a nightly compiler is
sanitize *ARGS:
    @scripts/sanitize "$@"

# hand TARGET of fuzz/ to libFuzzer, with its seeds, for SECONDS or a minute: TARGET [SECONDS]
fuzz *ARGS:
    @scripts/fuzz "$@"

# format the code
fmt:
    cargo fmt --all

# clippy, formatting and documentation, warnings refused
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# check dependencies: licences, bans, sources, and advisories where their database can be reached
deny:
    @scripts/deny

# get the pinned nats-server into .tools/ (does nothing if it is there, or if CARDCAGE_NATS_SERVER names another)
fetch-tools:
    @[ -n "${CARDCAGE_NATS_SERVER:-}" ] || scripts/fetch-tool nats-server
