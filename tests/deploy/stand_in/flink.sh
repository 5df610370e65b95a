#!/usr/bin/env bash
# jobmanager.sh and taskmanager.sh of Flink's distribution, for a folder with only its jars.
set -euo pipefail

case "$0" in
*jobmanager.sh)
    kind=GET_JM_RESOURCE_PARAMS
    main=org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint
    ;;
*)
    kind=GET_TM_RESOURCE_PARAMS
    main=org.apache.flink.runtime.taskexecutor.TaskManagerRunner
    ;;
esac
shift # start-foreground
arguments=(--configDir /opt/flink/conf "$@")

options=(-Dorg.slf4j.simpleLogger.defaultLogLevel=info -cp "/opt/flink/lib/*")
for package in lang net io nio lang.reflect text time util util.concurrent util.concurrent.atomic \
    util.concurrent.locks; do
    options+=("--add-opens=java.base/java.$package=ALL-UNNAMED")
done
options+=(--add-opens=java.base/sun.nio.ch=ALL-UNNAMED)

# Two lines: options of Java, and sizes of Flink's memory.
mapfile -t sizes < <(java "${options[@]}" org.apache.flink.runtime.util.bash.BashJavaUtils "$kind" \
    "${arguments[@]}" 2>&1 | sed -n 's/^.*BASH_JAVA_UTILS_EXEC_RESULT://p')
# shellcheck disable=SC2086  # words
exec java ${sizes[0]} "${options[@]}" "$main" "${arguments[@]}" ${sizes[1]:-}
