#!/bin/sh
# Hands the token on through a pipe that is read once. An environment would keep it: kernels run as the same user as
# the init that reaps their orphans, and may read that process's /proc/1/environ.
set -eu
exec 3<<TOKEN
${SOPHON_TOKEN-}
TOKEN
unset SOPHON_TOKEN
export SOPHON_TOKEN_FD=3
exec tini -- "$@"
