# Functions of the scripts that start servers which not every run of the tests needs: tests/ceph, tests/garage, tests/mounts.

say() { printf '\n== %s\n' "$*"; }

# Installs Debian packages if one of the programs isn't there: need PROGRAM... -- PACKAGE...
need() {
    local program
    while [ "$1" != -- ]; do
        program=$1
        shift
        command -v "$program" >/dev/null 2>&1 && continue
        while [ "$1" != -- ]; do shift; done
        shift
        DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
        return
    done
}

# Runs what follows until it succeeds: wait_for SECONDS COMMAND...
wait_for() {
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 5))); do "$@" >/dev/null 2>&1 && return; sleep .2; done
    echo "Not up after $seconds s: $*" >&2
    return 1
}

# Whether somebody listens at a port of the loopback.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ends the server whose process id is in a file, by force if it has to be.
end_by_file() {
    local pid
    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep .1; done
    kill -9 "$pid" 2>/dev/null || true
}

# The suite of storage, nights and several hosts at once, on what COMPLINE_TEST_S3 names.
test_elsewhere() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --no-fail-fast --status-level fail -E 'test(elsewhere)'
    else
        cargo test --tests --no-fail-fast elsewhere
    fi
}
