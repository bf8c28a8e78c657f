#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Sees a training run through to its end on a TPU slice that may be taken away: creates the slice, sets it up, launches,
# and watches. A slice that is gone (preempted, suspended, failed) is deleted and made anew, and the run goes on from its
# last checkpoint; a run that saved and stopped, or lost a host, is launched again. Leave it running on a machine that stays on (tmux);
# stopped and started again, it goes on watching.
#
#   tpu_scripts/keep_running.sh --name=NAME --zone=ZONE --type=TYPE --config=FILE --workdir=gs://BUCKET/PATH
#       [--spot] [--queued] [--version=V] [--project=P] [--copy=PATH,...] [--attempts=N] [--poll=SECONDS]
#       [--delete_when_done] [--dry_run] [-- FLAG ...]
#
#   --name, --zone, --type, --spot, --queued, --version, --project   as in create_tpu_vm.sh
#   --copy, --config, -- FLAG ...   as in setup.sh and launch_all_hosts.sh
#   --workdir                       in a bucket: what is on the disks of a slice goes with it
#   --attempts                      creations, launches and deletions, all told, before it gives up (default 100)
#   --poll                          seconds between two looks (default 60)
#   --delete_when_done              delete the slice when the run has ended well
#   --dry_run                       print the commands of each stage and run nothing
#
# Exit codes: 0 the run is done, 1 the run failed (its log is printed) or the attempts are used up; the slice is then
# still there, and costs money. 2 an option is wrong.
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
source "$scripts/common.sh"

read_options 'name= zone= project= type= version= spot queued config= workdir= copy= attempts= poll= delete_when_done --' \
  "$@"
required name zone type config workdir
attempts=${attempts:-100} poll=${poll:-60}
whole_number attempts
whole_number poll
[[ $workdir == gs://* ]] || die "--workdir=$workdir: expected gs://...; the disks of a slice go away with it"
in_checkout config "$config"
need_gcloud
where
same=(--name="$name" --zone="$zone" ${project:+--project="$project"} ${dry_run:+--dry_run})

say() { echo "$(date '+%F %T') $*"; }

stop() { # MESSAGE
  say "$1. The slice may still be there: tpu_scripts/delete_tpu_vm.sh deletes it" >&2
  exit 1
}

create() {
  "$scripts/create_tpu_vm.sh" "${same[@]}" --type="$type" ${version:+--version="$version"} ${spot:+--spot} \
    ${queued:+--queued}
}
set_up() { "$scripts/setup.sh" "${same[@]}" ${copy:+--copy="$copy"}; }
launch() {
  "$scripts/launch_all_hosts.sh" "${same[@]}" --config="$config" --workdir="$workdir" --detach -- \
    ${rest[@]+"${rest[@]}"}
}
delete() { "$scripts/delete_tpu_vm.sh" "${same[@]}" ${queued:+--queued} --yes; }
show_log() { "$scripts/tail_logs.sh" "${same[@]}" --no_follow; }

if [ -n "$dry_run" ]; then
  echo "# every $poll s, until the run has ended: how is the slice?"
  slice_state
  echo "# it is missing: create it"
  create
  echo "# it is there: how is the run?"
  run_state
  echo "# there is none: set up, and launch"
  set_up
  launch
  echo "# it saved and stopped (75), lost a host (76) or was cut off: launch again, as above. It failed: show the log, and end"
  show_log
  echo "# the slice was taken away, or (with --delete_when_done) the run is done: delete it"
  delete
  exit
fi

used=0
attempt() { # WHAT COMMAND ...: one of the attempts; it may fail
  [ "$used" -lt "$attempts" ] || stop "--attempts=$attempts are used up"
  used=$((used + 1))
  say "attempt $used of $attempts: $1"
  shift
  "$@" || say "that did not work"
}

start() { set_up && launch; }

silent=0 # looks in a row that had no answer
no_answer() { # WHO
  silent=$((silent + 1))
  say "$1 did not answer ($silent)"
  [ "$silent" -lt 10 ] || stop "$1 did not answer 10 times in a row"
}

failed='' # the exit code at the last look
look_at_run() {
  local state
  state=$(run_state)
  case "$state" in
    running) ;;
    none) attempt "set up and launch" start ;;
    'exit 0')
      say "the run is done"
      [ -z "$delete_when_done" ] || delete
      exit 0
      ;;
    'exit 75' | 'exit 76' | lost) attempt "launch again ($state)" launch ;;
    exit\ *)
      # Hosts that lose their neighbours to a preemption fail too: the slice's own state, a look later, decides.
      if [ "$failed" = "$state" ]; then
        show_log
        stop "the run failed ($state)"
      fi
      ;;
    *) no_answer "a host"; return ;;
  esac
  silent=0 failed=$state
}

last=''
while true; do
  state=$(slice_state)
  [ "$state" = "$last" ] || say "slice: $state"
  last=$state
  case "$state" in
    READY | ACTIVE) look_at_run ;;
    MISSING) attempt "create" create ;;
    PREEMPTED | TERMINATED | STOPPED | SUSPENDED | FAILED) attempt "delete what is left of it" delete ;;
    UNKNOWN) no_answer "gcloud" ;;
    *) silent=0 ;; # on its way from one to another
  esac
  sleep "$poll"
done
