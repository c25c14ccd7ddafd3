#!/usr/bin/env bash
# Make (or complete) the virtual environment and install this package into it.
#
#   tools/setup.sh VENV [EXTRA]
#
# PYTHON=/path/to/python chooses the interpreter. Running it again changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1
extra=${2:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

usable() { # is "$1" a Python >= 3.11 that can make virtual environments?
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" && echo "$PYTHON" && return
        echo "error: PYTHON=$PYTHON is not a Python >= 3.11 with the venv module" >&2
        return 1
    fi
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        usable "$name" && echo "$name" && return
    done
    echo "error: no Python >= 3.11 with the venv module was found." >&2
    echo "Install one (Debian and Ubuntu: python3.11 and python3.11-venv), or name yours:" >&2
    echo "  make PYTHON=/path/to/python3.11 ..." >&2
    return 1
}

if ! [ -e "$venv/bin/python" ]; then
    python=$(find_python)
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
elif ! usable "$venv/bin/python"; then
    echo "error: $venv holds no working Python >= 3.11; remove the folder and try again" >&2
    exit 1
fi

install_chromium() { # the page is tested in it; where it is missing, those tests are skipped
    command -v chromium >/dev/null && return
    { [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; } || return 0
    echo "installing Chromium, for the tests of the page"
    export DEBIAN_FRONTEND=noninteractive
    timeout 120 apt-get update -qq </dev/null >/dev/null 2>&1 || true
    timeout 400 apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core \
        </dev/null >/dev/null 2>&1 || echo "it could not be installed; those tests will be skipped"
}

# PyTorch first, with its bound: whatever comes later then finds it in place.
echo "installing PyTorch (a large download the first time)"
"$venv/bin/python" -m pip install --quiet --progress-bar on 'torch>=2.11,<2.14'
echo "installing blt${extra:+ with the '$extra' extra}"
"$venv/bin/python" -m pip install --quiet --editable ".${extra:+[$extra]}"
[ "$extra" != dev ] || install_chromium
