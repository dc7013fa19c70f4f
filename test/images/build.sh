#!/usr/bin/env bash
# build.sh [IMAGE...]: images that behave, as far as the tests go, like the
# public ones of Postgres and Kafka, for machines that reach no container
# registry. They are made from Debian's and Maven's packages. An image that is
# up to date is not built again. Needs a Docker engine, Go and apt-get.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '[images %3ss] %s\n' "$SECONDS" "$*"; }

# fetched KIND VERSION: the directory of the downloaded server.
fetched() { (cd "$here" && go run ../harness/cmd/servers fetch "$@"); }

# rootfs DIR PACKAGE...: unpacks Debian packages without running their scripts,
# and adds what every image needs: a shell and the accounts.
rootfs() {
  local root=$1 debs=$work/debs
  shift
  rm -rf "$debs"
  mkdir -p "$debs" "$root"
  (
    cd "$debs"
    apt-get download -qq "$@" >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get download -qq "$@" 2>/dev/null; }
    for deb in ./*.deb; do dpkg-deb -x "$deb" "$root"; done
  )
  rm -rf "$root"/usr/share/{doc,man,locale,lintian,info}
  mkdir -p "$root"/{bin,etc,tmp,proc,sys,dev,run,usr/bin,usr/local/bin}
  chmod 1777 "$root/tmp"
  link_applets "$root"
  cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
postgres:x:999:999::/var/lib/postgresql:/bin/sh
appuser:x:1000:1000::/home/appuser:/bin/sh
PASSWD
  printf 'root:x:0:\npostgres:x:999:\nappuser:x:1000:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
}

# link_applets ROOT: busybox is the shell and all its commands.
link_applets() {
  local busybox
  busybox=$(find "$1/bin" "$1/usr/bin" -name busybox -type f | head -1)
  local applet
  for applet in $("$busybox" --list); do
    [ -e "$1/usr/bin/$applet" ] || ln -s "${busybox#"$1"}" "$1/usr/bin/$applet"
  done
  [ -e "$1/bin/sh" ] || ln -s "${busybox#"$1"}" "$1/bin/sh"
}

# recipe VERSION SCRIPT: names what an image is made of and how.
recipe() { { cat "$0" "$2"; echo "$1"; uname -m; } | sha256sum | cut -c1-16; }

up_to_date() {
  [ "$(docker image inspect --format '{{index .Config.Labels "walpost.recipe"}}' "$1" 2>/dev/null)" = "$2" ]
}

# import IMAGE RECIPE ROOT CHANGE...: everything belongs to root; what a server
# writes to is open to everyone.
import() {
  local image=$1 recipe=$2 root=$3 change changes=()
  shift 3
  for change in "LABEL walpost.recipe=$recipe" "$@"; do changes+=(--change "$change"); done
  tar -C "$root" --owner=0 --group=0 --numeric-owner -c . | docker import "${changes[@]}" - "$image" >/dev/null
  say "$image built"
}

postgres() {
  local image=$1 version=$2 made
  made=$(recipe "$version" "$here/postgres-entrypoint.sh")
  if up_to_date "$image" "$made"; then say "$image is up to date"; return; fi
  local root=$work/postgres-$version
  rootfs "$root" libc6 libc-bin libgcc-s1 libstdc++6 zlib1g busybox-static
  mkdir -p "$root/usr/local/pgsql" "$root/var/lib/postgresql" "$root/run/postgresql"
  chmod 1777 "$root/var/lib/postgresql" "$root/run/postgresql"
  local bin
  bin=$(fetched postgres "$version")
  cp -a "$bin/.." "$root/usr/local/pgsql/"
  install -m755 "$here/postgres-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
  import "$image" "$made" "$root" \
    'ENV PATH=/usr/local/pgsql/bin:/usr/local/bin:/usr/bin:/bin' 'ENV PGDATA=/var/lib/postgresql/data' \
    'ENV LANG=C.UTF-8' 'USER 999' 'EXPOSE 5432' 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]' 'CMD ["postgres"]'
}

# jre: the package behind Debian's default Java.
jre() {
  apt-cache depends default-jre-headless 2>/dev/null | grep -oE 'openjdk-[0-9]+-jre-headless' | head -1 | grep . ||
    { apt-get update -qq && apt-cache depends default-jre-headless | grep -oE 'openjdk-[0-9]+-jre-headless' | head -1; }
}

kafka() {
  local image=$1 version=$2 made
  made=$(recipe "$version" "$here/kafka-run.sh")
  if up_to_date "$image" "$made"; then say "$image is up to date"; return; fi
  local root=$work/kafka-$version
  rootfs "$root" libc6 libgcc-s1 libstdc++6 zlib1g busybox-static "$(jre)"
  local java
  java=$(cd "$root" && find usr/lib/jvm -path '*/bin/java' -type f)
  ln -sf "/$java" "$root/usr/bin/java"
  # The package's scripts, which would have made the class-data archive, did
  # not run. Without it a JVM takes twice as long to start, but starts.
  chroot "$root" /usr/bin/java -Xshare:dump >/dev/null 2>&1 || true
  mkdir -p "$root/opt/kafka" "$root/var/lib/kafka" "$root/etc/kafka/docker"
  chmod 1777 "$root/var/lib/kafka"
  local libs
  libs=$(fetched kafka "$version")
  cp -r "$libs" "$root/opt/kafka/libs"
  install -m755 "$here/kafka-run.sh" "$root/etc/kafka/docker/run"
  import "$image" "$made" "$root" \
    'ENV PATH=/usr/local/bin:/usr/bin:/bin' 'ENV LANG=C.UTF-8' 'USER 1000' 'EXPOSE 9092' 'CMD ["/etc/kafka/docker/run"]'
}

[ $# -gt 0 ] || set -- walpost-test/postgres:18 walpost-test/postgres:14 walpost-test/kafka:4.3.1 walpost-test/kafka:3.9.1
for image in "$@"; do
  case $image in
    walpost-test/postgres:*) postgres "$image" "${image##*:}" ;;
    walpost-test/kafka:*) kafka "$image" "${image##*:}" ;;
    *) echo "usage: $0 [walpost-test/postgres:MAJOR | walpost-test/kafka:VERSION]..." >&2; exit 2 ;;
  esac
done
