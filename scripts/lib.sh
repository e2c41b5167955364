# Shared by the scripts. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# say TEXT: print a step, with the seconds since the start.
say() { printf '%s%4d s  %s%s\n' "${bold-}" "$SECONDS" "$*" "${plain-}"; }
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

# Without byte code, each start of Python would compile all of our modules again.
unset PYTHONDONTWRITEBYTECODE
