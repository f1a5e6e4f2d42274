#!/usr/bin/env bash
# What one add and one get cost a node: system calls (strace), allocations and instructions (callgrind). Counts, not times:
# they come out alike however busy the machine is. A list of 4 values of 100 bytes.
#
# Needs strace, valgrind and curl. Usage: benches/cost.sh [path of kv]
set -euo pipefail

kv=${1:-target/release/kv}
connections=64
seconds=3
folder=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
for tool in strace valgrind callgrind_control curl; do
    command -v "$tool" >/dev/null || { echo "$tool is needed" >&2; exit 1; }
done
(umask 077 && printf bench >"$folder/password")

# Starts a node under the given command, and leaves its process in `node` and its address in `url`.
start() {
    rm -rf "$folder/data"
    # What the last one said of itself is not what this one says.
    : >"$folder/ready"
    "$@" "$kv" serve --listen 127.0.0.1:0 --data "$folder/data" --user bench --password-file "$folder/password" \
        --log-filter warn >>"$folder/ready" 2>"$folder/log" &
    node=$!
    until url=$(grep -o 'http://[0-9.:]*' "$folder/ready"); do
        kill -0 "$node" || { cat "$folder/log" >&2; exit 1; }
        sleep 0.1
    done
}

stop() {
    kill "$node"
    wait "$node" || true
    node=
}

# Puts a load on the node; prints how many operations were done.
load() {
    "$kv" bench --url "$url" --user bench --password-file "$folder/password" --keys 2000 --warmup 0 --json "$@" |
        grep -o '"done":[0-9]*' | head -1 | cut -d: -f2
}

system_calls() {
    start
    load --op get --connections "$connections" --duration 0.1 >/dev/null
    strace -c -f -p "$node" -o "$folder/strace" 2>/dev/null &
    local tracer=$!
    sleep 0.5
    local operations
    operations=$(load --op "$1" --list-length 0 --connections "$connections" --duration "$seconds")
    kill -INT "$tracer"
    wait "$tracer" || true
    stop
    awk -v n="$operations" '$NF ~ /^(recvfrom|writev|sendto|pwrite64|pread64|fdatasync|epoll_wait|futex|write)$/ {
        printf "  %-12s %.2f\n", $NF, $4 / n
    }' "$folder/strace"
}

# Calls of the allocator and instructions in user space.
allocations() {
    start valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$folder/callgrind"
    load --op get --connections "$connections" --duration 0.5 >/dev/null
    callgrind_control -i on "$node" >/dev/null
    local operations
    operations=$(load --op "$1" --list-length 0 --connections "$connections" --duration "$seconds")
    callgrind_control -d "$1" "$node" >/dev/null
    stop
    awk -v n="$operations" '
        /^c?fn=/ {
            split($0, parts, /[()]/)
            if (parts[3] != "") name[parts[2]] = substr(parts[3], 2)
            if (/^cfn=/) called = parts[2]
        }
        /^calls=/ { split($1, count, "="); calls[called] += count[2] }
        /^(summary|totals):/ { instructions = $2 }
        END {
            for (id in calls) if (name[id] ~ /^(malloc|calloc|realloc|posix_memalign)$/) made += calls[id]
            printf "  %-12s %.1f\n  %-12s %d\n", "allocations", made / n, "instructions", instructions / n
        }' "$folder/callgrind.1"
}

for operation in add get; do
    echo "one $operation, $connections connections:"
    system_calls "$operation"
    allocations "$operation"
done
