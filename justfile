# Print the recipes
default:
    @just --list

# Run a store on this machine, with its files in ./kv-cluster
run-cluster *args:
    cargo run --release -- run-cluster {{ args }}

# All tests
test:
    cargo test --locked

# What has to pass before a change is taken: formatting, lints, tests
check:
    .ci/run

# Measure speed
bench *args:
    cargo bench {{ args }}

# Simulate: all scenarios, or one of them, with one seed, which gives the same run every time
sim scenario="" seed="":
    KV_SIM_SCENARIO="{{ scenario }}" KV_SIM_SEED="{{ seed }}" cargo test --release --test sim -- --nocapture

# Simulate with many seeds
soak seeds="1000" scenario="":
    KV_SIM_SCENARIO="{{ scenario }}" KV_SIM_SEEDS="{{ seeds }}" cargo test --release --test sim -- --nocapture
