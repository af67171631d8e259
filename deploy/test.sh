#!/usr/bin/env bash
# Runs the tests in tiers. TIER=fast: the environment alone, two minutes. The long forms: deploy/deep.py.
# WORKERS=N: so many pytest workers at once; default: one a core, and one more where tests wait for real time.
# --plan says what would run, --packages installs what the live tests need; both end there.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=.venv/bin/python
TIER="${TIER:-all}"
WORKERS="${WORKERS:-$(nproc)}"
PACKAGES=(gcc libc6-dev softflowd pmacct nfdump openvswitch-switch iperf3 tshark tcpdump iproute2 prometheus
  prometheus-alertmanager strace systemd rsyslog rsyslog-gnutls frr openssh-server openssh-client snmp snmpd snmptrapd
  faketime gobgpd clickhouse-server)
[ -z "${DEEP:-}" ] || PACKAGES+=(zookeeper openjdk-17-jre-headless)
export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$PWD/.cache/numba}"
export TOCSIN_STATE_DIR="$PWD/.cache/state"
export TOCSIN_LEFT_OUT="$PWD/.cache/left-out"

missing() {
  for name in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || echo "$name"
  done
}

may_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

plan() {
  local wanted
  mapfile -t wanted < <(missing)
  echo "Plan (TIER=$TIER; minutes on 2 cores, a pytest worker each):"
  echo "  fast      2 min   unit, property, contract, architecture, docs, doctests; downloads nothing"
  if [ "$TIER" = fast ]; then return; fi
  echo "  whole    11 min   scenario, conformance, fuzz, live with real exporters and peers"
  if [ ${#wanted[@]} -eq 0 ]; then
    echo "                    system packages: all here"
  elif may_install; then
    echo "                    system packages, at most 220 MB: ${wanted[*]}"
  else
    echo "                    without root these are not installed, and their tests left out: ${wanted[*]}"
    echo "                    as root: apt-get install --no-install-recommends ${wanted[*]}"
  fi
  [ "$(id -u)" -eq 0 ] || echo "                    without root: no network namespaces, so no live traffic"
  echo "  checked   2 min   kernels again with bounds checks, a cache of their own"
}

install_packages() {
  local wanted
  mapfile -t wanted < <(missing)
  if [ ${#wanted[@]} -eq 0 ] || ! may_install; then return 0; fi
  echo "Installing for the live tests: ${wanted[*]}"
  # Services must not start: the tests start their own, on their own ports.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1
  fi
  apt-get -qq update >/dev/null || true
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${wanted[@]}" >/dev/null || {
    echo "Some packages could not be installed together; trying one by one"
    for name in "${wanted[@]}"; do
      DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$name" >/dev/null ||
        echo "  not installed: $name"
    done
  }
  [ -z "$made" ] || rm -f "$policy"
}

# tier NAME ARGUMENT...: one pytest, and how long it took. Each file stays on one of the workers, one a core:
# what its tests share is made once.
tier() {
  local name="$1" began=$SECONDS code=0
  shift
  echo "== $name"
  $PY -m pytest -q -n "$WORKERS" --dist loadfile --no-loadscope-reorder "$@" || code=$?
  echo "== $name: $((SECONDS - began)) s"
  return "$code"
}

case "${1:-}" in
  --plan) plan; exit 0 ;;
  --packages) install_packages; exit 0 ;;
esac

mkdir -p .cache
rm -f "$TOCSIN_LEFT_OUT"
trap '[ ! -s "$TOCSIN_LEFT_OUT" ] || { echo "Left out:"; sort "$TOCSIN_LEFT_OUT" | uniq -c; }' EXIT

[ "$TIER" = fast ] || install_packages
$PY -m tocsin warm
tier fast --tier fast
if [ "$TIER" = fast ]; then exit 0; fi

WORKERS=$((WORKERS + 1)) tier whole --tier whole

CHECKED=(tests/unit/collectors tests/unit/correlator tests/unit/detectors tests/property tests/fuzz)
export NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR="$PWD/.cache/numba-checked"
$PY -m tocsin warm
tier "checked (bounds of every read and write in a kernel)" "${CHECKED[@]}"
