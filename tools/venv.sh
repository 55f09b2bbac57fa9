#!/bin/sh
# venv.sh PYTHON VENV EXTRA: a virtual environment with this project, editable, and one of its extras.
#
# Silent and instant unless pyproject.toml changed: the environment keeps the copy that it was made from.
set -eu
python=$1 venv=$2 extra=$3
stamp=$venv/.made-from-pyproject.toml
half_made=$venv/.half-made # There until the environment is complete, so that an interrupted run is started anew.

main() {
    if [ ! -e "$half_made" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        same_version
        cmp -s pyproject.toml "$stamp" && return
        echo "venv: pyproject.toml changed, updating $venv"
        install_project
    else
        require_python
        require_ensurepip
        rm -rf "$venv"
        mkdir -p "$venv"
        touch "$half_made"
        echo "venv: making $venv with Python $(version_of "$python") and this project's packages (takes a minute or two, once)"
        quietly "$python" -m venv "$venv" || fail "$python could not make an environment (see above)."
        install_project
        rm "$half_made"
    fi
}

fail() {
    echo "venv: $*" >&2
    exit 1
}

version_of() { "$1" -c 'import platform; print(platform.python_version())'; }
minor_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

install_project() {
    quietly "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" ||
        fail "pip could not install this project (see above). The next run tries again."
    cp pyproject.toml "$stamp"
}

# A test run asked for with one Python must not pass quietly with another.
same_version() {
    [ "$python" = python3 ] && return
    require_python
    [ "$(minor_of "$python")" = "$(minor_of "$venv/bin/python")" ] ||
        fail "$venv holds Python $(version_of "$venv/bin/python"), PYTHON=$python is $(version_of "$python"). Add VENV=.venv-$(minor_of "$python")."
}

require_python() {
    "$python" -c '' 2>/dev/null || fail "$python is not found. Install Python 3.11 or newer, or name one: PYTHON=python3.13."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is Python $(version_of "$python"); scaleobs needs 3.11 or newer. Name one: PYTHON=python3.13."
}

# Debian and Ubuntu keep ensurepip, which fills a new environment, in a package apart.
require_ensurepip() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    command -v apt-get >/dev/null || fail "$python lacks the ensurepip module, so it cannot make environments. Install a complete Python."
    package=python$(minor_of "$python")-venv
    [ "$(minor_of /usr/bin/python3 2>/dev/null)" = "$(minor_of "$python")" ] && package=python3-venv
    [ "$(id -u)" = 0 ] || fail "$python cannot make environments yet. Run: sudo apt-get install $package"
    echo "venv: installing the package $package"
    quietly apt_install || fail "apt-get could not install $package (see above)."
}

# The machine's package lists may be missing or old: they are refreshed only if it does not go without.
apt_install() {
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get install -y --no-install-recommends "$package" && return
    apt-get update && apt-get install -y --no-install-recommends "$package"
}

# What a command prints is shown only if it fails.
quietly() {
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm "$log"
    else
        cat "$log" >&2
        rm "$log"
        return 1
    fi
}

main
