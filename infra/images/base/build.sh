#!/bin/sh
# Makes the base image of the notebooks where no registry can be reached: Debian's own packages, nothing else.
#
#   sudo infra/images/base/build.sh [TAG]        TAG defaults to debian:bookworm-slim
#
# DEBIAN_MIRROR and SECURITY_MIRROR name other mirrors than Debian's. Where a registry can be reached, this script is
# not needed: `docker pull debian:bookworm-slim` brings the same thing.
set -eu

tag=${1:-debian:bookworm-slim}
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-http://deb.debian.org/debian-security}
bundle=/etc/ssl/certs/ca-certificates.crt

say() { printf '%s\n' "base: $*"; }
fail() { printf '%s\n' "base: $*" >&2; exit 1; }

case $tag in -*) fail "usage: $0 [TAG]" ;; esac
[ "$(id -u)" = 0 ] || fail "debootstrap makes device nodes and files of other users: run this as root (sudo $0 $tag)."
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap, then run this again."
command -v docker >/dev/null || fail "the docker command is missing: apt-get install docker.io, then run this again."
docker version >/dev/null 2>&1 || fail "no Docker engine answers: start dockerd or set DOCKER_HOST, then run this again."

work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

say "1/4 debootstrap $suite from $mirror (about half a minute)"
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "debootstrap failed (its last lines are above): is $mirror reachable? DEBIAN_MIRROR names another one."
}

say "2/4 package sources and certificates"
cat >"$root/etc/apt/sources.list" <<SOURCES
deb $mirror $suite main
deb $mirror $suite-updates main
deb $security $suite-security main
SOURCES
# A host behind a proxy or on a snapshot mirror has told its apt so; without the same words the image reaches nothing.
{ apt-config dump 2>/dev/null || true; } |
    sed -n '/^Acquire::\(Check-Valid-Until\|Check-Date\|https\{0,1\}::Proxy\) /p' >"$root/etc/apt/apt.conf.d/90host"
[ -s "$root/etc/apt/apt.conf.d/90host" ] || rm "$root/etc/apt/apt.conf.d/90host"
# As in Debian's own slim image: nothing that apt can fetch again stays in a layer.
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'CLEAN'
APT::Install-Recommends "false";
Acquire::Languages "none";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/* /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CLEAN
# The bundle serves pip at once; the single files survive the rewriting of the bundle that `apt-get install
# ca-certificates` does, and only single files are found by OpenSSL's directory look-up.
if [ -s "$bundle" ]; then
    install -D -m 644 "$bundle" "$root$bundle"
    mkdir -p "$root/usr/local/share/ca-certificates/host"
    awk -v dir="$root/usr/local/share/ca-certificates/host" '
        /-BEGIN CERTIFICATE-/ { file = sprintf("%s/%03d.crt", dir, ++n) }
        file { print > file }
        /-END CERTIFICATE-/ { close(file); file = "" }' "$bundle"
else
    say "    no $bundle here: the image gets none"
fi

say "3/4 caches, logs, manuals and translations out"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/var/cache/debconf/*-old \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial" "$root/var/log/apt"
: >"$root/etc/machine-id"
: >"$root/etc/resolv.conf" # the host's own; the engine writes the container's
printf 'path-exclude /usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/docker"

say "4/4 docker import $tag"
tar --create --numeric-owner --one-file-system --exclude='./dev/*' --directory "$root" . |
    docker import --change 'CMD ["bash"]' - "$tag" >/dev/null
say "done: $(docker image inspect --format '{{.Size}}' "$tag" | awk '{ printf "%.0f MB", $1 / 1e6 }'), $tag"
