#!/bin/sh
# .tools/bin/alertmanager: the distribution's Alertmanager, run from where `make tools` unpacked it.
#
# The packaged program reads default.tmpl and email.tmpl from /usr/share/prometheus/alertmanager and, without them, dies with
# "failed to parse templates". So the folder is shown to it, and to it alone: every way below ends in `exec`, the process id
# that the caller got is Alertmanager's own and its signals arrive.
set -eu
tools=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd -P)
root=$tools/root
program=$root/usr/bin/prometheus-alertmanager
folder=/usr/share/prometheus/alertmanager

# 1. The package is installed: the folder is at its place.
[ -e "$folder/default.tmpl" ] && exec "$program" "$@"

# 2. A private mount namespace. The mount point does not exist and an ordinary user cannot make it, so its nearest parent is
#    covered by a tmpfs full of links to what was there, plus our entry. (/usr/share has more that matters: time zones.)
if [ "$(id -u)" = 0 ]; then become_root=; else become_root=--map-root-user; fi
if [ -d /usr/share/prometheus ]; then parent=/usr/share/prometheus; ours=alertmanager; else parent=/usr/share; ours=prometheus; fi
# A trial first, because a namespace may be granted and then allow no mount (AppArmor on Ubuntu 24.04).
# shellcheck disable=SC2086 # An empty $become_root must vanish.
if unshare $become_root --mount mount -t tmpfs tmpfs "$root/shown" 2>/dev/null; then
    # shellcheck disable=SC2016,SC2086 # The inner shell expands its own words.
    exec unshare $become_root --mount sh -euc '
        program=$1 shown=$2 parent=$3 ours=$4
        shift 4
        mount -t tmpfs tmpfs "$shown"
        mkdir "$shown/behind"
        mount --rbind "$parent" "$shown/behind"
        ln -s "$shown/behind/"* "$shown/"
        ln -sfn "${shown%/shown}$parent/$ours" "$shown/$ours"
        mount --rbind "$shown" "$parent"
        exec "$program" "$@"
    ' alertmanager "$program" "$root/shown" "$parent" "$ours" "$@"
fi

# 3. No namespace to be had: the copy that looks for the folder in file descriptor 9.
exec 9<"$root$folder"
exec "$program-fd9" "$@"
