package kafkaembed

import (
	"context"
	"embed"
	"fmt"
	"path/filepath"

	"github.com/walpost/walpost/test/harness/maven"
)

//go:embed kafka-*.lock
var locks embed.FS

// Libs returns a directory with the jars of a Kafka version, below cache, where
// they are downloaded to once; logf is told before. Several processes may call
// it at the same time.
func Libs(ctx context.Context, cache, version string, logf func(format string, args ...any)) (string, error) {
	artifacts, err := jars(version)
	if err != nil {
		return "", err
	}
	libs := filepath.Join(cache, "kafka", version)
	err = maven.Once(libs, func(scratch string) error {
		logf("fetching Kafka %s from Maven Central, once", version)
		return maven.Fetcher{}.Fetch(ctx, scratch, artifacts)
	})
	if err != nil {
		return "", fmt.Errorf("fetch Kafka %s: %w", version, err)
	}
	return libs, nil
}

// jars reads the lock of a version.
func jars(version string) ([]maven.Artifact, error) {
	text, err := locks.ReadFile("kafka-" + version + ".lock")
	if err != nil {
		return nil, fmt.Errorf("find Kafka %s: no lock names its jars; lock.sh writes one", version)
	}
	list, err := maven.ParseLock(string(text))
	if err != nil {
		return nil, fmt.Errorf("kafka-%s.lock: %w", version, err)
	}
	return list, nil
}
