#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Says how a TPU slice and the run on it are: two lines, such as "slice: READY" and "run: running".
#
#   tpu_scripts/status.sh --name=NAME --zone=ZONE [--project=P] [--queued] [--dry_run]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --queued                    the slice was asked for with --queued
#   --dry_run                   print the commands and run nothing
#
# slice: READY or ACTIVE (there), CREATING, WAITING_FOR_RESOURCES or PROVISIONING (not yet), PREEMPTED or SUSPENDED
# (taken away), MISSING, ... run: none, running (on any host), lost (cut off), exit CODE: 0 done, 75 saved and stopped,
# 76 lost another host, else failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= queued' "$@"
required name zone
need_gcloud
where

state=$(slice_state)
echo "slice: $state"
if [ -n "$dry_run" ] || [ "$state" = READY ] || [ "$state" = ACTIVE ]; then
  echo "run: $(run_state)"
fi
