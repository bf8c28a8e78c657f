# Shared by the scripts beside it; not a command itself.
# shellcheck shell=bash

# What most scripts read from the command line; `read_options` sets them.
name='' zone='' project='' queued='' dry_run='' rest=()

die() {
  echo "error: $*" >&2
  exit 2
}

# usage FILE: prints the comment at the top of a script, which is its help.
usage() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 && !/^# shellcheck/ { sub(/^# ?/, ""); print }' "$1"
}

# read_options 'NAME= SWITCH --' "$@": sets a variable for every option that a script knows: '' without it, VALUE after
# --NAME=VALUE, yes after --SWITCH. With '--' in the list, what follows '--' goes to the array `rest`. Every script
# knows --dry_run and --help.
read_options() {
  local known=" ${1//$'\n'/ } dry_run " argument key
  for key in $known; do
    [ "$key" = -- ] || printf -v "${key%=}" ''
  done
  shift
  while [ $# -gt 0 ]; do
    argument=$1 key=${1#--}
    shift
    case "$argument" in
      -h | --help) usage "$0"; exit 0 ;;
      --) [[ $known == *' -- '* ]] || die "unknown argument '--'; see --help"; rest=("$@"); return ;;
      --*=*) key=${key%%=*}=; [[ $known == *" $key "* ]] || die "unknown argument '$argument'; see --help"
        printf -v "${key%=}" %s "${argument#*=}" ;;
      --*) [[ $known == *" $key "* ]] || die "unknown argument '$argument'; see --help"
        printf -v "$key" yes ;;
      *) die "unknown argument '$argument'; see --help" ;;
    esac
  done
}

# required OPTION ...: ends with a message when one of these options was not given.
required() {
  local key
  for key in "$@"; do
    [ -n "${!key}" ] || die "--$key is required; see --help"
  done
}

# whole_number OPTION: ends with a message when its value is not one.
whole_number() {
  [[ ${!1} =~ ^[0-9]+$ ]] || die "--$1=${!1}: expected a whole number"
}

# checkout: prints the folder of the checkout that these scripts are part of.
checkout() {
  git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel
}

# in_checkout OPTION PATH: ends with a message unless PATH is inside the checkout and there.
in_checkout() {
  local root
  root=$(checkout)
  case "$2" in /* | ../*) die "--$1=$2: expected a path inside the checkout, relative to it" ;; esac
  [ -e "$root/$2" ] || die "--$1=$2: no such file in $root"
}

# need PROGRAM HINT: ends with a message when a program is not there, unless this is a dry run.
need() {
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || die "$1 is not on PATH; $2"
}

need_gcloud() {
  need gcloud "install the Google Cloud CLI and run 'gcloud init'"
}

# run COMMAND ...: runs a command; in a dry run it is printed instead, as a shell would read it.
run() {
  if [ -z "$dry_run" ]; then
    "$@"
    return
  fi
  printf '%s' "$1"
  shift
  [ $# -eq 0 ] || printf ' %q' "$@"
  echo
}

# where: fills the array `place` with the options that say where the slice is.
where() {
  place=(--zone="$zone" ${project:+--project="$project"})
}

# on_workers WORKER COMMAND: runs a command on one host ("0") or on every host ("all") of the slice.
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

# slice_state: prints where the slice is in its life. Of a queued resource: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE,
# SUSPENDED, FAILED ...; of a VM: CREATING, READY, PREEMPTED, TERMINATED ... MISSING when there is none, UNKNOWN when
# gcloud did not say, for whatever reason.
slice_state() {
  local kind=tpu-vm field=state answer
  if [ -n "$queued" ]; then kind=queued-resources field=state.state; fi
  if answer=$(run gcloud compute tpus "$kind" describe "$name" "${place[@]}" --format="value($field)" 2>&1); then
    if [ -n "$dry_run" ]; then echo "$answer"; else echo "${answer##*$'\n'}"; fi
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo MISSING
  else
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

# run_state: prints how the run is, over all hosts: "none", "running" while any host runs, "exit CODE", "lost" when it was
# cut off without a code, or "unreachable" when the hosts do not answer. A failure on one host counts for more than the
# 75 (saved and stopped) or 76 (lost another host) of the others.
run_state() {
  local answer state codes
  if ! answer=$(on_workers all "cd dig_jax 2>/dev/null && [ -e run.pid ] || { echo none; exit; }
  if [ -e run.exit ]; then echo \"exit \$(cat run.exit)\"
  elif kill -0 \"\$(cat run.pid)\" 2>/dev/null; then echo running
  else echo lost; fi"); then
    echo unreachable
    return
  fi
  if [ -n "$dry_run" ]; then
    echo "$answer"
    return
  fi
  for state in running lost; do
    if grep -qx "$state" <<<"$answer"; then
      echo "$state"
      return
    fi
  done
  codes=$(sed -nE 's/^exit ([0-9]+)$/\1/p' <<<"$answer")
  if [ -z "$codes" ]; then
    echo none
  elif state=$(grep -vxm1 -e 0 -e 75 -e 76 <<<"$codes") || state=$(grep -vxm1 0 <<<"$codes"); then
    echo "exit $state"
  elif grep -qx none <<<"$answer"; then
    echo lost
  else
    echo "exit 0"
  fi
}
