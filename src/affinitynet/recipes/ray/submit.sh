#!/bin/bash
# Sends a run to a Ray cluster, as a job that goes on when this terminal is closed.
#
#     ray up recipes/ray/cluster.yaml
#     ray dashboard recipes/ray/cluster.yaml &      # has the head's port 8265 here
#     recipes/ray/submit.sh own_images /shared/photos /shared/runs/photos
#
# The job's messages are printed; `ray job stop` ends it when images and steps at hand are saved, and
# the same line goes on. Two processes train together with --ranks 2; --processes 16 asks an
# autoscaler for that many, where the default is as many as there is room for.
set -euo pipefail
recipe=$1 data=$2 out=$3
shift 3

# The job gives affinitynet more than Ray's three seconds between SIGTERM and SIGKILL.
export RAY_ADDRESS=${RAY_ADDRESS:-http://127.0.0.1:8265}
ray job submit --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}' -- \
    /shared/venv/bin/affinitynet run "$recipe" --data "$data" --out "$out" --engine ray "$@"
