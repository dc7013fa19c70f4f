#!/bin/sh
# The part of the public Kafka image's contract that the tests use: KAFKA_*
# variables become server.properties, except KAFKA_HEAP_OPTS and KAFKA_OPTS,
# which go to the JVM; CLUSTER_ID, else a fresh one.
set -eu
home=/var/lib/kafka
properties=$home/server.properties
jvm="-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true"

kafka() { # kafka JVM-FLAGS CLASS ARGUMENT...
  flags=$1
  shift
  # shellcheck disable=SC2086 # flags, meant to be split
  exec java $flags $jvm -Dlog4j2.configurationFile=$home/log4j2.xml -Dlog4j.configuration=file:$home/log4j.properties \
    -cp '/opt/kafka/libs/*' "$@"
}

if [ ! -f "$properties" ]; then # a restarted container keeps what it has
  cat >$home/log4j2.xml <<'XML'
<Configuration status="WARN"><Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders><Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers></Configuration>
XML
  cat >$home/log4j.properties <<'PROPERTIES'
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
PROPERTIES
  {
    echo "log.dirs=$home/data"
    env | sed -n 's/^KAFKA_//p' | grep -vE '^(HEAP_OPTS|OPTS)=' | while IFS='=' read -r name value; do
      echo "$(echo "$name" | tr 'A-Z_' 'a-z.')=$value"
    done
  } >"$properties.new"
  : "${CLUSTER_ID:=$(tr -dc 'A-Za-z0-9' </dev/urandom | head -c 21)A}"
  (kafka "-Xmx128m -XX:TieredStopAtLevel=1" kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$properties.new")
  mv "$properties.new" "$properties"
fi

kafka "${KAFKA_HEAP_OPTS:--Xmx512m} ${KAFKA_OPTS:-}" kafka.Kafka "$properties"
