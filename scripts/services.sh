#!/usr/bin/env bash
# Says which services the tests will find on this machine's loopback, and fails when one is missing that is required:
# PLINTH_TEST_REQUIRE="postgres redis" names them, separated by spaces or commas.
set -euo pipefail
require=" ${PLINTH_TEST_REQUIRE:-} "
require=${require//,/ }
missing=()

probe() { # name, port, what it is for
  if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then
    printf '  %-10s port %-5s found     %s\n' "$1" "$2" "$3"
  elif [[ $require == *" $1 "* ]]; then
    printf '  %-10s port %-5s MISSING   %s\n' "$1" "$2" "$3"
    missing+=("$1")
  else
    printf '  %-10s port %-5s not here  %s\n' "$1" "$2" "$3"
  fi
}

echo "services on 127.0.0.1:"
probe postgres 5432 "the metadata suite runs on PostgreSQL too"
probe redis 6379 "the cache suite runs on Redis too"
probe nats 4222 "nothing uses it yet"
for name in $require; do
  case $name in postgres | redis | nats) ;; *) echo "PLINTH_TEST_REQUIRE names '$name'; known are postgres, redis, nats" >&2 && exit 2 ;; esac
done
if ((${#missing[@]})); then
  echo "required by PLINTH_TEST_REQUIRE and not running: ${missing[*]}" >&2
  exit 1
fi
