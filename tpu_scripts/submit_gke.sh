#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Starts a training run on a TPU slice of a GKE cluster: fills in gke_jobset.yaml and applies it with kubectl, or, with
# --xpk_cluster, has XPK do the like. A preempted run is started again and goes on from its last checkpoint.
#
#   tpu_scripts/submit_gke.sh --name=NAME --image=IMAGE --accelerator=A --topology=T --config=FILE
#       --workdir=gs://BUCKET/PATH [--spot] [--restarts=N] [--service_account=S] [--dry_run] [-- FLAG ...]
#   tpu_scripts/submit_gke.sh --xpk_cluster=C --zone=ZONE --type=TYPE --name=NAME --image=IMAGE --config=FILE
#       --workdir=gs://BUCKET/PATH [--project=P] [--restarts=N] [--dry_run] [-- FLAG ...]
#
#   --name             of the run in the cluster
#   --image            made with tpu_scripts/Dockerfile, and pushed to where the cluster can read it
#   --accelerator      what GKE calls the chips: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, ...
#   --topology         4x4, 2x2x2, ...; a host has 4 chips, or all of a smaller slice
#   --config           for example configs/stage1.py
#   --workdir          in a bucket that the service account can write
#   --spot             on nodes that can be taken away
#   --restarts         after a failure that is no preemption (default 3)
#   --service_account  of Kubernetes, in the current namespace (default: default)
#   --xpk_cluster      the cluster, for XPK; --zone, --type and --project as in create_tpu_vm.sh
#   --dry_run          print the manifest or the command, and run nothing
#   -- FLAG ...        further flags of dig_jax.main, such as --config.model_path=gs://...
#
# Follow it with: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME --prefix
# Delete it with: kubectl delete jobset NAME, or xpk workload delete. Node pools cost money as long as they are there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= image= accelerator= topology= config= workdir= spot restarts= service_account= xpk_cluster= zone=
  type= project= --' "$@"
required name image config workdir
restarts=${restarts:-3}
whole_number restarts
[[ $workdir == gs://* ]] || die "--workdir=$workdir: expected gs://...; the disks of a pod go away with it"
in_checkout config "$config"
command=(python -m dig_jax.main --distributed --config="$config" --workdir="$workdir" ${rest[@]+"${rest[@]}"})

if [ -n "$xpk_cluster" ]; then
  required zone type
  need xpk "install it with: pip install xpk"
  run xpk workload create --cluster="$xpk_cluster" --workload="$name" --zone="$zone" ${project:+--project="$project"} \
    --tpu-type="$type" --num-slices=1 --docker-image="$image" --max-restarts="$restarts" --restart-on-exit-codes=75,76 \
    --termination-grace-period-seconds=300 --command="$(printf '%q ' "${command[@]}")"
  exit
fi

required accelerator topology
[[ $topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || die "--topology=$topology: expected chips such as 4x4 or 2x2x2"
need kubectl "install it, and choose the cluster with: gcloud container clusters get-credentials"
all_chips=$((${topology//x/ * }))
chips=$((all_chips < 4 ? all_chips : 4))

quoted() { # TEXT: as a string of JSON, and so of YAML
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//$'\n'/\\n}"
}

nodes="{cloud.google.com/gke-tpu-accelerator: $(quoted "$accelerator"), cloud.google.com/gke-tpu-topology: $(quoted "$topology")"
[ -z "$spot" ] || nodes+=', cloud.google.com/gke-spot: "true"'
words=()
for word in "${command[@]}"; do
  words+=("$(quoted "$word")")
done

manifest=$(<"$(dirname "${BASH_SOURCE[0]}")/gke_jobset.yaml")
fill() { # KEY VALUE
  manifest=${manifest//"\${$1}"/"$2"}
}
fill NAME "$name"
fill RESTARTS "$restarts"
fill HOSTS "$((all_chips / chips))"
fill CHIPS "$chips"
fill NODES "$nodes}"
fill SERVICE_ACCOUNT "$(quoted "${service_account:-default}")"
fill IMAGE "$(quoted "$image")"
fill COMMAND "[$(IFS=,; echo "${words[*]}")]"
if [ -n "$dry_run" ]; then
  echo "# kubectl apply -f -"
  printf '%s\n' "$manifest"
else
  kubectl apply -f - <<<"$manifest"
fi
