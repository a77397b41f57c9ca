#!/bin/sh
# Installs the system libraries that MuJoCo needs to draw, and the venv module of the system's
# Python, where that is allowed (apt-get, as root or through sudo without a password) and only if
# they are missing. Otherwise names the libraries in one line. Never fails: without them everything
# but the films runs, and the Makefile itself says when Python lacks its venv module.
#
# usage: scripts/system_packages.sh

[ "$(uname -s)" = Linux ] || exit 0
PATH="$PATH:/usr/sbin:/sbin"

has_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }

missing=""
has_library 'libGL\.so\.1' || missing="$missing libgl1"
has_library 'libEGL\.so\.1' || missing="$missing libegl1"
has_library 'libglib-2\.0\.so\.0' || missing="$missing libglib2.0-0"
has_library 'libX11\.so\.6' || missing="$missing libx11-6"
optional=""
has_library 'libOSMesa\.so' || optional="libosmesa6"

# Debian packs ensurepip on its own; other interpreters of the right version come with it.
if python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    python3 -c 'import ensurepip' 2>/dev/null || optional="python3-venv $optional"
fi

name_them() {
    echo "note: films need the system packages$missing ($1); install them with your package manager, everything else runs without." >&2
}

[ -n "$missing$optional" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    [ -z "$missing" ] || name_them "no apt-get here"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    [ -z "$missing" ] || name_them "needs root: apt-get install$missing"
    exit 0
fi

apt() {
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=30 \
        -o Acquire::https::Timeout=30 -o DPkg::Lock::Timeout=60 "$@" >/dev/null 2>&1
}

updated=""
install() {
    apt install -y --no-install-recommends "$@" && return 0
    [ -n "$updated" ] || { updated=yes; apt update; }
    apt install -y --no-install-recommends "$@"
}

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of package names
    install $missing || name_them "apt-get could not install them"
fi
# One by one: OSMesa, which draws without EGL, is not in newer distributions.
for package in $optional; do
    install "$package" || true
done
exit 0
