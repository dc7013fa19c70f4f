package main

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
)

// partitions of each event topic.
const partitions = 3

// eventTopics are where the default configuration sends what the application
// publishes. They exist before the first event, as in production.
func eventTopics() []string { return []string{"outbox.event.offer", "outbox.event.order"} }

// startKafka runs one broker on a loopback port inside this process. It keeps
// everything in memory and ends with Close.
func startKafka() (*kfake.Cluster, error) {
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ClusterID("walpost-demo"),
		kfake.SeedTopics(partitions, eventTopics()...),
	)
	if err != nil {
		return nil, fmt.Errorf("start Kafka: %w", err)
	}
	return cluster, nil
}
