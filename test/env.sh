# Sourced by the scripts beside it: what they agree on. Reads the environment,
# creates nothing.

# A service or a CI runner may start us with next to nothing.
HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
PATH=${PATH:-/usr/bin:/bin}:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
export HOME PATH

# Downloads, images and tools, each by its version; outlives the clone.
KEYWRIGHT_CACHE=${KEYWRIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keywright}
export KEYWRIGHT_CACHE

# One set of flags for building, linting and testing, so that they share the build
# cache: on two cores that saves minutes.
case " ${GOFLAGS:-} " in
  *" -trimpath "*) ;;
  *) GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath -buildvcs=false" ;;
esac
export GOFLAGS

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "$@"; exit 1; }
