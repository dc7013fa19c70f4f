package integration

import (
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// TestBrokersComeAndGo: of three brokers one at a time is killed under load, the
// one that matters most: the leader of an event partition, that of the
// checkpoint, the coordinator of the relay's transactions. The relays go on
// without being started again.
func TestBrokersComeAndGo(t *testing.T) {
	t.Parallel()
	cluster := harness.DedicatedKafkaCluster(t)
	pipelines := bothModes(t, harness.Postgres(t, harness.Newest), cluster.Broker)
	relays := startAll(pipelines)
	load := harness.StartLoad(t, pipelines[0].pg, harness.LoadConfig{Rate: 100})
	atomic := pipelines[1]
	for n, victim := range []struct {
		name string
		find func() int
	}{
		{"the leader of an event partition", func() int { return cluster.Leader(atomic.topic("order"), 0) }},
		{"the leader of the checkpoint", func() int { return cluster.Leader(atomic.checkpointTopic, 0) }},
		{"the coordinator", func() int { return cluster.Coordinator("walpost." + atomic.name) }},
	} {
		if n > 0 {
			cluster.AwaitInSync()
		}
		allProgress(t, relays, 200)
		broker := cluster.Node(victim.find())
		start := time.Now()
		broker.Kill()
		allProgress(t, relays, 300)
		figure(t, "%s killed: both relays had published 300 events %s later", victim.name, time.Since(start).Round(time.Millisecond))
		if n < 2 { // two brokers are enough for the rest
			broker.Start()
		}
	}
	finishAll(t, pipelines, load)
}
