#!/usr/bin/env bash
# Runs the tests in tiers. TIER=fast: the environment alone, two minutes. DEEP=1: the long forms.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=.venv/bin/python
TIER="${TIER:-all}"
DEEP="${DEEP:-}"
PACKAGES=(softflowd pmacct nfdump openvswitch-switch iperf3 tshark tcpdump iproute2 prometheus
  prometheus-alertmanager strace systemd)
export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$PWD/.cache/numba}"
export TOCSIN_STATE_DIR="$PWD/.cache/state"
mkdir -p .cache

echo "Plan:"
echo "  fast      unit, property, contract, arch, docs and doctests    2 min, nothing is downloaded"
if [ "$TIER" != fast ]; then
  echo "  whole     scenario, conformance, live with real exporters      8 min, about 150 MB of system packages (root)"
  echo "  checked   kernels again with bounds checks, own cache           3 min"
fi
[ -z "$DEEP" ] || echo "  deep      1,000,000 mutants, 50 kills, 20 seeds, kernels without JIT: hours"

missing() {
  for name in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || echo "$name"
  done
}

install_packages() {
  local wanted
  mapfile -t wanted < <(missing)
  [ ${#wanted[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Left out without root: tests that need ${wanted[*]}"
    echo "  as root: apt-get install --no-install-recommends ${wanted[*]}"
    return 0
  fi
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

FAST=(tests/unit tests/property tests/contract tests/arch tests/docs
  telemetry runtime collectors correlator detectors history alerting tocsin)
present() { for path in "$@"; do [ -e "$path" ] && echo "$path"; done; }

mapfile -t fast < <(present "${FAST[@]}")
$PY -m pytest -q "${fast[@]}"
[ "$TIER" = fast ] && exit 0

install_packages
mapfile -t whole < <(present tests/conformance tests/scenario tests/live tests/fuzz)
$PY -m pytest -q "${whole[@]}"

echo "Kernels with bounds checks"
mapfile -t checked < <(present tests/unit/collectors tests/unit/correlator tests/unit/detectors tests/property tests/fuzz)
NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR="$PWD/.cache/numba-checked" $PY -m pytest -q "${checked[@]}"

if [ -n "$DEEP" ]; then
  echo "Kernels without JIT"
  NUMBA_DISABLE_JIT=1 $PY -m pytest -q tests/unit/collectors tests/unit/correlator
fi
