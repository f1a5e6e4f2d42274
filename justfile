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

# Measure: "http" (other stores), "engine" and "large" (other storage engines; more data than memory), "streaming" (one huge value and list), "long_list", "overload", "cluster" (three nodes against three of etcd), "failover" (one of three dies, freezes, comes back)
bench what="http engine":
    #!/usr/bin/env bash
    set -euo pipefail
    features=rivals
    if [[ "{{ what }}" =~ engine|large ]] && benches/engines/rocksdb-library; then
        features+=,rival-rocksdb
    fi
    cargo bench --locked --features "$features" {{ prepend("--bench ", what) }}

# Simulate: all scenarios, or one of them (sim/README.md), with one seed, which gives the same run every time
sim scenario="" seed="":
    {{ if scenario != "" { "KV_SIM_SCENARIO=" + quote(scenario) } else { "" } }} {{ if seed != "" { "KV_SIM_SEED=" + quote(seed) } else { "" } }} cargo test --release --test sim -- --nocapture

# Simulate with many seeds: whole clusters, or another scenario
soak seeds="1000" scenario="cluster":
    KV_SIM_SCENARIO={{ quote(scenario) }} KV_SIM_SEEDS={{ quote(seeds) }} cargo test --release --test sim -- --nocapture

# Simulate clusters of 3, 10, 30 and 100 nodes: how they behave as they grow, as a table and as target/sim-scale.png
sim-scale sizes="3,10,30,100":
    KV_SIM_SIZES={{ quote(sizes) }} cargo test --release --locked --features plot --test sim scale_table -- --ignored --nocapture

# A node under a steady load, an hour by default; leaves target/soak/soak.csv and soak.png
soak-node seconds="3600" rate="2000":
    KV_SOAK_SECONDS={{ quote(seconds) }} KV_SOAK_RATE={{ quote(rate) }} cargo bench --locked --features plot --bench soak
