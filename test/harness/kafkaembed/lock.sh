#!/usr/bin/env bash
# lock.sh VERSION LOG-BINDING >kafka-VERSION.lock: asks Maven which jars a Kafka
# broker of that version needs, and writes their coordinates and SHA-256 sums.
# LOG-BINDING is org.apache.logging.log4j:log4j-slf4j-impl:2.25.4 from Kafka 4 on,
# org.slf4j:slf4j-reload4j:1.7.36 before.
set -euo pipefail
version=$1 binding=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dependency() {
  local group artifact version
  IFS=: read -r group artifact version <<<"$1"
  printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>' "$group" "$artifact" "$version"
}
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>walpost</groupId><artifactId>kafka-lock</artifactId><version>1</version>
<dependencies>$(dependency "org.apache.kafka:kafka_2.13:$version")$(dependency "$binding")</dependencies></project>
POM
mvn -q -B -ntp -f "$work/pom.xml" dependency:list -DincludeScope=runtime -Dsort=true -DoutputFile="$work/list" >&2
mvn -q -B -ntp -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/libs" >&2
echo "# Apache Kafka $version: what a broker needs at run time, and a log binding. Maven"
echo "# coordinates and SHA-256; lock.sh writes this file."
sed -nE 's/^ *([^: ]+):([^:]+):jar:([^:]+):(compile|runtime).*/\1 \2 \3/p' "$work/list" |
  while read -r group artifact version; do
    echo "$group:$artifact:$version $(sha256sum "$work/libs/$artifact-$version.jar" | cut -d' ' -f1)"
  done
