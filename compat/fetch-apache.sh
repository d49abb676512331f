#!/bin/sh
# Fetches the jars of a real Apache RocketMQ server: fetch-apache.sh VERSION DIR
# Afterwards DIR is a value for -Dapache.home (Java) or APACHE_HOME (Go). Idempotent.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 VERSION DIR" >&2; exit 2; }
version=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
[ "$(cat "$dir/.fetched" 2>/dev/null || true)" = "$version" ] && { echo "$dir holds $version"; exit 0; }
rm -rf "$dir/lib" "$dir/.fetched"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>apogee.compat</groupId>
  <artifactId>apache-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-namesrv</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-broker</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-tools</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$dir/lib"
echo "$version" > "$dir/.fetched"
echo "$dir holds $version"
