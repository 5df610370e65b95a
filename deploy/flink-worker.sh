#!/usr/bin/env bash
# Run a Flink TaskManager and Beam's pool of Python workers until one of them ends, then end both.
#
#   flink-worker [-D KEY=VALUE ...]      the options are those of taskmanager.sh
#
# Each connects to the other at localhost, so they share a container. If only one of them was started again,
# jobs would wait forever for workers that the other one still lists.
set -euo pipefail

"${FLINK_HOME}/bin/taskmanager.sh" start-foreground "$@" &
python -m apache_beam.runners.worker.worker_pool_main --service_port=50000 &

# After SIGTERM, a TaskManager reports its end to the JobManager, so no timeout has to pass.
trap 'kill $(jobs -p) 2>/dev/null; wait' TERM INT
wait -n
