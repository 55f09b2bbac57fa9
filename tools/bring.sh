#!/bin/sh
# bring.sh: puts the real prometheus, promtool, alertmanager, amtool, kubectl, haproxy, postgres and redis-server into
# .tools/bin.
#
# They come from the distribution's packages, downloaded and unpacked below .tools: nothing is installed or started on the
# system, no root is needed, and apt's own lists are neither read nor written. Where that cannot be done, tools that are on
# PATH already are linked; where there are none, one line says so and the tests that need them are skipped.
# With CI=true that is a failure: a test that is skipped there proves nothing.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/.tools
incoming=$tools/incoming # Everything is made in here and moved at the end, so that an interruption leaves nothing half-made.
log=$tools/log
PATH=$(printf %s "$PATH" | tr : '\n' | grep -Fvx "$tools/bin" | paste -s -d : -) # `make test` puts it in front.
names='prometheus promtool alertmanager amtool haproxy postgres initdb redis-server'
and_where_it_can_be_had=kubectl # Not every distribution has a package of it; its tests are skipped then.
. tools/databases.sh

main() {
    is_there && return
    mkdir -p "$tools"
    if command -v flock >/dev/null; then exec 8>"$tools/lock" && flock 8 && is_there && return; fi
    rm -rf "$incoming" "$tools/stamp"
    mkdir -p "$incoming/bin"
    : >"$log"
    if from_packages || from_path; then
        versions=$(versions_in "$incoming/bin") || without "$versions"
        rm -rf .tools/bin .tools/root
        mv "$incoming"/* "$tools/"
        rm -r "$incoming" "$log"
        our_sum >"$tools/stamp"
        echo "tools: $versions, in .tools/bin"
    else
        without "$(grep '^E: ' "$log" || tail -n 1 "$log") (.tools/log says more)"
    fi
}

# The stamp is the sum of these scripts: when they change, the tools are brought anew.
our_sum() { cat tools/bring.sh tools/alertmanager.sh tools/databases.sh | cksum; }

is_there() {
    [ -f "$tools/stamp" ] && [ "$(cat "$tools/stamp")" = "$(our_sum)" ] || return 1
    for name in $names; do [ -x "$tools/bin/$name" ] || return 1; done
}

# Each step says `|| return 1`, because `set -e` is off in a function whose result is asked for.
from_packages() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    echo "tools: downloading prometheus, alertmanager, kubectl, haproxy, postgresql and redis from this distribution's packages (once, about 100 MB)"
    mkdir -p "$incoming/apt/lists/partial" "$incoming/apt/cache/archives/partial" "$incoming/root" || return 1
    # "#clear" keeps hooks of the system (they clean its caches, or talk to its desktop) out of an update that isn't the system's.
    cat >"$incoming/apt/conf" <<CONF || return 1
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "$incoming/apt";
Dir::State::lists "$incoming/apt/lists";
Dir::Cache "$incoming/apt/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    # Some other source of the system may be broken; whether ours are well shows in the download.
    apt-get -q -c "$incoming/apt/conf" update >>"$log" 2>&1 || true
    unpack prometheus && unpack prometheus-alertmanager || return 1
    # promtool is a package of its own in Debian 13 and part of prometheus in Debian 12; amtool may go the same way.
    for name in promtool amtool; do
        [ -x "$incoming/root/usr/bin/$name" ] || unpack "$name" || return 1
    done
    bring_haproxy || return 1
    bring_databases || return 1
    if unpack kubernetes-client; then ln -s ../root/usr/bin/kubectl "$incoming/bin/kubectl" || return 1; else link_kubectl; fi
    # The others are linked with libc and nothing else, so no library packages are brought.
    for name in prometheus promtool amtool; do ln -s "../root/usr/bin/$name" "$incoming/bin/$name" || return 1; done
    install -m 755 tools/alertmanager.sh "$incoming/bin/alertmanager" || return 1
    rm -rf "$incoming/apt" "$incoming/root/usr/share/doc" "$incoming/root/usr/share/man"
    mkdir "$incoming/root/shown" # Where the wrapper mounts what it shows to alertmanager.
    patch_template_folder
}

unpack() {
    mkdir -p "$incoming/apt/$1" || return 1
    (cd "$incoming/apt/$1" && apt-get -q -c "$incoming/apt/conf" download "$1") >>"$log" 2>&1 || return 1
    dpkg-deb -x "$incoming/apt/$1"/*.deb "$incoming/root" >>"$log" 2>&1
}

# A second copy of alertmanager looks for its templates in file descriptor 9: for machines that refuse the private mount
# (containers, and Ubuntu from 24.04 on for ordinary users). tools/alertmanager.sh tells the story.
# The two names are equally long, 34 characters, so nothing moves inside the program.
patch_template_folder() {
    program=$incoming/root/usr/bin/prometheus-alertmanager
    LC_ALL=C sed 's|/usr/share/prometheus/alertmanager|/proc/self/fd/9///////////////////|g' "$program" >"$program-fd9" || return 1
    chmod +x "$program-fd9"
}

# HAProxy, which follows /ready in the test of rolling restarts. It has libraries that are rarely installed (Debian 13's has
# fewer of them); it alone is shown ours.
bring_haproxy() {
    unpack haproxy || return 1
    for name in liblua5.3-0 liblua5.4-0 libopentracing-c-wrapper0 libopentracing1 libpcre2-8-0; do unpack "$name" || true; done
    cat >"$incoming/bin/haproxy" <<'WRAPPER' || return 1
#!/bin/sh
root=$(cd "$(dirname "$(readlink -f "$0")")/../root" && pwd -P)
LD_LIBRARY_PATH=$(printf %s: "$root"/usr/lib/*/)${LD_LIBRARY_PATH-} exec "$root/usr/sbin/haproxy" "$@"
WRAPPER
    chmod +x "$incoming/bin/haproxy"
}

link_kubectl() { ! found=$(command -v kubectl) || ln -sf "$found" "$incoming/bin/kubectl"; }

from_path() {
    rm -rf "$incoming"
    mkdir -p "$incoming/bin"
    missing=
    for name in $names; do
        if found=$(command -v "$name"); then ln -sf "$found" "$incoming/bin/$name"; else missing="$missing $name"; fi
    done
    [ -z "$missing" ] || { echo "not found:$missing" >>"$log"; return 1; }
    link_kubectl
}

# Asking each for its version also proves that it runs on this machine.
versions_in() {
    separator=
    for name in $names $and_where_it_can_be_had; do
        [ "$name" != kubectl ] || [ -x "$1/kubectl" ] || continue
        case $name in haproxy) flags=-v ;; kubectl) flags='version --client' ;; *) flags=--version ;; esac
        # shellcheck disable=SC2086 # Two words are two arguments.
        answer=$("$1/$name" $flags 2>&1) || { echo "$name does not run here: $(echo "$answer" | tail -n 1)"; return 1; }
        # The older of kubectl say more before it: version.Info{Major:"1", Minor:"20", GitVersion:"v1.20.2", ...
        printf '%s%s %s' "$separator" "$name" "$(echo "$answer" | sed -n '1s/^.*GitVersion://; 1s/^[^0-9]*\([0-9][0-9.]*\).*/\1/p')"
        separator=', '
    done
}

without() {
    rm -rf "$incoming"
    echo "tools: none brought: $1. Tests that need them will be skipped. To get them, put $names on PATH." >&2
    if [ "${CI-}" = true ]; then
        echo 'tools: with CI=true this is a failure.' >&2
        exit 1
    fi
    exit 0
}

main
