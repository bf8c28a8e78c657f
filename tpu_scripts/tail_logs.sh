#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Follows the log of a run on one host of a TPU slice. Ctrl-C ends the log and leaves the run going.
#
#   tpu_scripts/tail_logs.sh --name=NAME --zone=ZONE [--project=P] [--worker=N] [--lines=N] [--no_follow] [--dry_run]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --worker                    the host: 0 (default), 1, ..., or all, one after the other with --no_follow
#   --lines                     how many of the last lines to begin with (default 100)
#   --no_follow                 print those and end
#   --dry_run                   print the command and run nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= worker= lines= no_follow' "$@"
required name zone
worker=${worker:-0} lines=${lines:-100}
whole_number lines
[ "$worker" = all ] || whole_number worker
[ "$worker" != all ] || [ -n "$no_follow" ] || die "--worker=all needs --no_follow: one log can be followed at a time"
need_gcloud
where

follow=-F
[ -z "$no_follow" ] || follow=
on_workers "$worker" "tail -n $lines $follow dig_jax/run.log"
