#!/bin/sh
# later.sh: puts the promtool and the prometheus of later Debian releases into .tools/later/VERSION, beside those of
# bring.sh, so that `make soak` can tell the rules' stories to them, too.
#
# Downloaded and unpacked like those: nothing is installed, and apt's own lists are neither read nor written. Debian's unstable
# release moves on, so what comes is what it has. Where they can't be had, one line says so, and it is no failure.
set -eu
cd "$(dirname "$0")/.."
later=$PWD/.tools/later
incoming=$PWD/.tools/incoming-later
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

main() {
    [ -e "$later/stamp" ] && [ "$(cat "$later/stamp")" = "$(cksum <tools/later.sh)" ] && return
    mkdir -p "$incoming/lists/partial" "$incoming/cache/archives/partial"
    configure
    if ! { apt-get -q -c "$incoming/conf" update && bring trixie && bring sid; } >"$incoming/log" 2>&1; then
        echo "tools: no later promtool brought: $(grep '^E: ' "$incoming/log" || tail -n 1 "$incoming/log")" >&2
        return
    fi
    rm -rf "$later" "$incoming/lists" "$incoming/cache"
    mv "$incoming/later" "$later"
    cksum <tools/later.sh >"$later/stamp"
    echo "tools: later promtool and prometheus $(cd "$later" && echo [0-9]*), in .tools/later"
}

configure() {
    # Where this system's own packages come from has the other releases, too.
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
    for suite in trixie sid; do
        echo "deb [signed-by=$keyring] $site $suite main"
    done >"$incoming/sources.list"
    cat >"$incoming/conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "$incoming/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$incoming";
Dir::State::lists "$incoming/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$incoming/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
}

# Each step says `|| return 1`, because `set -e` is off in a function whose result is asked for.
bring() {
    mkdir -p "$incoming/$1" || return 1
    for name in promtool prometheus; do
        (cd "$incoming/$1" && apt-get -q -c "$incoming/conf" download "$name/$1") || return 1
    done
    for package in "$incoming/$1"/*.deb; do dpkg-deb -x "$package" "$incoming/$1/root" || return 1; done
    # Asking for it also proves that it runs on this machine.
    version=$("$incoming/$1/root/usr/bin/promtool" --version | sed -n '1s/^[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p') || return 1
    [ -n "$version" ] || return 1
    mkdir -p "$incoming/later/$version" || return 1
    mv "$incoming/$1/root/usr/bin/promtool" "$incoming/$1/root/usr/bin/prometheus" "$incoming/later/$version/"
}

rm -rf "$incoming"
main
rm -rf "$incoming"
